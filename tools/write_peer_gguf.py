"""Writes a model folder as a BF16 GGUF for llama.cpp: write_peer_gguf.py FOLDER TOKENIZER_GGUF OUT.

FOLDER: config.json and safetensors of a Llama or Qwen3, as `erank model merge` and `erank model random` write them. The
vocabulary is that of TOKENIZER_GGUF, filled up with unused tokens to the size in config.json. Matrices are bf16, norms
fp32, as llama.cpp's own converter writes them. Needs torch, safetensors and gguf.
"""
import json
import pathlib
import sys

import gguf
import safetensors
import torch

folder, tokenizer, out = map(pathlib.Path, sys.argv[1:])
config = json.loads((folder / "config.json").read_text())
family = config["model_type"]
if family not in ("llama", "qwen3"):
    sys.exit(f"write_peer_gguf: model_type is {family}, expected llama or qwen3")
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
head_dim = config.get("head_dim") or config["hidden_size"] // heads

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_there(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def as_stored(name, tensor):
    # llama.cpp rotates neighbouring numbers of a Llama's head, the checkpoint the head's two halves.
    if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        n = heads if name.endswith("q_proj.weight") else kv_heads
        tensor = tensor.view(n, 2, head_dim // 2, -1).transpose(1, 2).reshape(tensor.shape)
    return tensor.contiguous()


writer = gguf.GGUFWriter(out, family)
writer.add_block_count(config["num_hidden_layers"])
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_key_length(head_dim)
writer.add_value_length(head_dim)
writer.add_rope_dimension_count(head_dim)
writer.add_rope_freq_base((config.get("rope_parameters") or config)["rope_theta"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_vocab_size(config["vocab_size"])
writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)

fields = gguf.GGUFReader(tokenizer).fields
tokens = list(fields["tokenizer.ggml.tokens"].contents())
types = list(fields["tokenizer.ggml.token_type"].contents())
unused = range(len(tokens), config["vocab_size"])
writer.add_tokenizer_model(fields["tokenizer.ggml.model"].contents())
writer.add_tokenizer_pre(fields["tokenizer.ggml.pre"].contents())
writer.add_token_list(tokens + [f"[unused{i}]" for i in unused])
writer.add_token_types(types + [gguf.TokenType.UNUSED for _ in unused])
writer.add_token_merges(fields["tokenizer.ggml.merges"].contents())
writer.add_bos_token_id(fields["tokenizer.ggml.bos_token_id"].contents())
writer.add_eos_token_id(fields["tokenizer.ggml.eos_token_id"].contents())
writer.add_add_bos_token(False)

for path in sorted(folder.glob("*.safetensors")):
    with safetensors.safe_open(path, framework="pt") as file:
        for name in file.keys():
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                continue
            tensor = as_stored(name, file.get_tensor(name))
            if tensor.dim() == 1:
                writer.add_tensor(name_there(name), tensor.float().numpy())
            else:
                raw = tensor.to(torch.bfloat16).view(torch.uint8).numpy()
                writer.add_tensor(name_there(name), raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
