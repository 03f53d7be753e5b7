#!/usr/bin/env python3
"""Writes the golden numbers of tests/model with transformers and peft as the reference.

    python tools/make_model_golden.py families | long | lora | adapters | float8 | real MODEL.gguf NAME

Run by hand in an environment with torch, transformers, peft, gguf and tokenizers; neither build nor tests need it.
Checkpoints are not stored: both sides fill them by the same formula (fill() here, golden_fill() in the tests), whose
values are exact in bf16. `families`, `lora` and `adapters` write tests/golden/model_families.json, model_lora* and
model_adapters.json; `float8` writes float8.json with torch's own type; `long` writes model_long.json: rotary
embeddings that are scaled for long texts, and sliding windows; `real` writes model_real_NAME.json for the texts in
tests/golden/model_texts.txt.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import torch

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"


def splitmix(seed, n):
    """The first n outputs of SplitMix64, as base::Random gives them."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fnv1a(name):
    h = 0xCBF29CE484222325
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def fill(name, shape):
    """Values for the parameter `name`: norms in 0.5 .. 1.5, embeddings up to 1, the rest up to 1/4, all exact in bf16."""
    bits = splitmix(fnv1a(name), int(np.prod(shape)))
    if "norm" in name:
        values = 1 + ((bits >> np.uint64(58)).astype(np.float32) - 32) / 64
    else:
        scale = 1.0 if "embed" in name else 0.25
        values = ((bits >> np.uint64(56)).astype(np.float32) - 128) / 128 * scale
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def integers(name, n, below):
    return [int(v % np.uint64(below)) for v in splitmix(fnv1a(name), n)]


def short(x, digits=8):
    return float(f"{x:.{digits}g}")


SHARED = dict(max_position_embeddings=64, rms_norm_eps=1e-5, initializer_range=0.02)
FAMILIES = {
    "llama_untied_gqa_wide_heads": ("Llama", dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=97, tie_word_embeddings=False,
        rope_theta=10000.0)),
    "llama_tied_biased": ("Llama", dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, vocab_size=101, tie_word_embeddings=True, attention_bias=True,
        rope_theta=100000.0)),
    "qwen2_untied_gqa": ("Qwen2", dict(hidden_size=64, intermediate_size=112, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=1, vocab_size=97, tie_word_embeddings=False, rope_theta=1000000.0)),
    "qwen2_tied": ("Qwen2", dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, vocab_size=89, tie_word_embeddings=True, rope_theta=10000.0)),
    "qwen3_untied_gqa_wide_heads": ("Qwen3", dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, head_dim=16, vocab_size=97, tie_word_embeddings=False,
        rope_theta=1000000.0)),
    "qwen3_tied_biased_narrow_heads": ("Qwen3", dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=6, vocab_size=103, tie_word_embeddings=True,
        attention_bias=True, rope_theta=1000000.0)),
}


def build(family, values):
    import transformers
    config = getattr(transformers, family + "Config")(**{**SHARED, **values})
    config.architectures = [family + "ForCausalLM"]
    config._attn_implementation = "eager"
    model = getattr(transformers, family + "ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(fill(name, tuple(parameter.shape)))
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        stored = json.loads((pathlib.Path(folder) / "config.json").read_text())
    return model, stored


def sequences(name, vocab):
    return [integers(name + ".a", 17, vocab), integers(name + ".b", 9, vocab)]


def families():
    out = {}
    for name, (family, values) in FAMILIES.items():
        model, stored = build(family, values)
        vocab = values["vocab_size"]
        ids = sequences(name, vocab)
        targets = [integers(f"{name}.targets.{i}", len(s), vocab) for i, s in enumerate(ids)]
        columns = sorted(set(integers(name + ".columns", 8, vocab)))
        logits = torch.cat([model(torch.tensor([s])).logits[0] for s in ids])
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(sum(targets, [])))
        loss.backward()
        gradients = {}
        for parameter_name, parameter in model.named_parameters():
            g = parameter.grad.flatten()
            at = sorted(set(integers(parameter_name + ".samples", 5, g.numel())))
            gradients[parameter_name] = dict(norm=short(g.norm().item()), max=short(g.abs().max().item()), at=at,
                                             values=[short(g[i].item()) for i in at])
        out[name] = dict(config=stored, ids=ids, targets=targets, columns=columns,
                         max_logit=short(logits.abs().max().item()), loss=short(loss.item()),
                         logits=[[short(v) for v in row] for row in logits[:, columns].tolist()],
                         logit_norms=[short(v) for v in logits.norm(dim=1).tolist()], gradients=gradients)
        print(name, "loss", loss.item(), "largest logit", logits.abs().max().item(), len(gradients), "parameters")
    write("model_families.json", out)


LONG = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=16, vocab_size=89, tie_word_embeddings=True, rope_theta=10000.0, max_position_embeddings=128)
FACTORS = [1.0, 1.02, 1.1, 1.35, 1.9, 2.6, 3.4, 4.1]


def scaled(kind, **values):
    return dict(rope_scaling=dict(rope_type=kind, **values))


# What each adds to LONG. Texts are 24 and 100 tokens long: inside and past the original length of 32.
LONG_CASES = {
    "linear": ("Llama", dict(rope_scaling=dict(type="linear", factor=4.0))),
    "dynamic": ("Llama", scaled("dynamic", factor=4.0)),
    "yarn": ("Qwen3", scaled("yarn", factor=4.0, original_max_position_embeddings=32)),
    "yarn_attention_factor": ("Qwen2", scaled("yarn", factor=4.0, original_max_position_embeddings=32,
                                              attention_factor=0.8)),
    "yarn_mscale": ("Llama", scaled("yarn", factor=4.0, original_max_position_embeddings=32, mscale=0.707,
                                    mscale_all_dim=1.3, beta_fast=16, beta_slow=2)),
    "yarn_not_truncated": ("Qwen3", scaled("yarn", factor=3.5, original_max_position_embeddings=32, truncate=False)),
    "yarn_null_factor": ("Qwen3", scaled("yarn", factor=None, original_max_position_embeddings=32)),
    "llama3": ("Llama", scaled("llama3", factor=4.0, original_max_position_embeddings=32, low_freq_factor=1.0,
                               high_freq_factor=4.0)),
    "longrope": ("Llama", scaled("longrope", factor=4.0, original_max_position_embeddings=32,
                                 short_factor=FACTORS, long_factor=FACTORS)),
    "longrope_two_lists": ("Qwen3", scaled("longrope", original_max_position_embeddings=32,
                                           short_factor=FACTORS, long_factor=[1.5 * f for f in FACTORS])),
    "sliding": ("Qwen2", dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=20, max_window_layers=1)),
    "sliding_layer_types": ("Qwen3", dict(use_sliding_window=True, sliding_window=70,
                                          layer_types=["sliding_attention", "full_attention"])),
}
# Published configurations, of which only frequencies are computed.
PUBLISHED = {
    "llama_3_1": ("Llama", dict(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        rope_theta=500000.0, max_position_embeddings=131072, **scaled("llama3", factor=8.0, low_freq_factor=1.0,
        high_freq_factor=4.0, original_max_position_embeddings=8192))),
    "llama_3_2": ("Llama", dict(hidden_size=2048, num_attention_heads=32, num_key_value_heads=8, head_dim=64,
        rope_theta=500000.0, max_position_embeddings=131072, **scaled("llama3", factor=32.0, low_freq_factor=1.0,
        high_freq_factor=4.0, original_max_position_embeddings=8192))),
    "qwen3_yarn": ("Qwen3", dict(hidden_size=1024, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        rope_theta=1000000.0, max_position_embeddings=131072, **scaled("yarn", factor=4.0,
        original_max_position_embeddings=32768))),
}


def frequencies(config, length):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    inverse, factor = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, seq_len=length)
    return dict(length=length, inverse=[short(v, 9) for v in inverse.tolist()], attention_factor=short(float(factor), 9))


def long():
    import transformers
    logits, published = {}, {}
    for name, (family, values) in LONG_CASES.items():
        given = {**LONG, **values}
        model, stored = build(family, given)
        model_type = stored["model_type"]
        texts = {"inside": integers(name + ".inside", 24, LONG["vocab_size"])}
        if name != "longrope_two_lists":  # whose frequencies past the original length are the longest text's
            texts["past"] = integers(name + ".past", 100, LONG["vocab_size"])
        columns = sorted(set(integers(name + ".columns", 6, LONG["vocab_size"])))
        out = dict(stored=stored, columns=columns, texts={},
                   given={**SHARED, **given, "model_type": model_type, "architectures": stored["architectures"]})
        for text, ids in texts.items():
            with torch.no_grad():
                rows = model(torch.tensor([ids])).logits[0]
            out["texts"][text] = dict(ids=ids, max_logit=short(rows.abs().max().item()),
                                      rows=[[short(v) for v in row] for row in rows[::9, columns].tolist()])
        if "rope_scaling" in values:
            out["frequencies"] = [frequencies(model.config, length) for length in (24, 100, 300)]
        logits[name] = out
        print(name, {t: v["max_logit"] for t, v in out["texts"].items()})
    for name, (family, values) in PUBLISHED.items():
        config = getattr(transformers, family + "Config")(**values)
        published[name] = dict(given={**SHARED, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 8, **values,
                                      "model_type": config.model_type}, **frequencies(config, 100))
    write("model_long.json", dict(rows_apart=9, cases=logits, published=published))


def lora():
    from peft import LoraConfig, get_peft_model
    family, values = FAMILIES["qwen3_untied_gqa_wide_heads"]
    out = {}
    for name, options in {"plain": {}, "rslora": dict(use_rslora=True)}.items():
        model, stored = build(family, values)
        peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM",
            target_modules=["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"], **options)).eval()
        with torch.no_grad():
            for parameter_name, parameter in peft.named_parameters():
                if "lora_" in parameter_name:
                    file_name = parameter_name.replace(".default.", ".")
                    parameter.copy_(fill(file_name, tuple(parameter.shape)))
        ids = sequences("lora", values["vocab_size"])
        columns = sorted(set(integers("lora.columns", 8, values["vocab_size"])))
        with torch.no_grad():
            applied = torch.cat([peft(torch.tensor([s])).logits[0] for s in ids])
        if name == "plain":
            with tempfile.TemporaryDirectory() as folder:
                peft.save_pretrained(folder)
                target = GOLDEN / "model_lora_adapter"
                target.mkdir(exist_ok=True)
                for file in ("adapter_config.json", "adapter_model.safetensors"):
                    shutil.copyfile(pathlib.Path(folder) / file, target / file)
        merged_model = peft.merge_and_unload()
        with torch.no_grad():
            merged = torch.cat([merged_model(torch.tensor([s])).logits[0] for s in ids])
        print(name, "applied against merged:", (applied - merged).abs().max().item(), "largest", merged.abs().max().item())
        out[name] = dict(config=stored, ids=ids, columns=columns, max_logit=short(applied.abs().max().item()),
                         logits=[[short(v) for v in row] for row in applied[:, columns].tolist()])
    write("model_lora.json", out)


UNTIED, TIED, TIED_BIASED = "qwen3_untied_gqa_wide_heads", "qwen3_tied_biased_narrow_heads", "llama_tied_biased"
ADAPTERS = {
    "patterns": (UNTIED, dict(target_modules="all-linear", use_rslora=True,
        rank_pattern={"v_proj": 2, r"layers\.1\..*(gate|up)_proj": 6, "up_proj": 1},
        alpha_pattern={"^model.layers.0.self_attn.q_proj": 9, "layers.*_proj": 5})),
    "regex": (UNTIED, dict(target_modules=r".*layers\.0.*\.(q|v|down)_proj", rank_pattern={"down_proj": 3})),
    "dora": (UNTIED, dict(target_modules=["q_proj", "v_proj", "down_proj", "lm_head"], use_dora=True,
        rank_pattern={"down_proj": 3})),
    "bias_all": (TIED_BIASED, dict(target_modules=["q_proj", "up_proj"], bias="all")),
    "bias_lora_only": ("qwen2_tied", dict(target_modules=["q_proj", "o_proj"], bias="lora_only")),
    "saved": (UNTIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head", "norm", "up_proj"])),
    "saved_embedding_of_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"])),
    "saved_both_of_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])),
    "saved_and_tied": (TIED, dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"],
        ensure_weight_tying=True)),
    "embedding_and_head": (UNTIED, dict(target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "embedding_of_tied": (TIED, dict(target_modules=["q_proj", "embed_tokens"])),
    "head_of_tied": (TIED, dict(target_modules=["q_proj", "lm_head"])),
    "embedding_and_tied": (TIED, dict(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True)),
    "tokens": (UNTIED, dict(target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [80, 3], "lm_head": [5]})),
    "tokens_of_tied": (TIED, dict(target_modules=["q_proj"], trainable_token_indices=[1, 7, 88])),
}


def adapters():
    """Each adapter as peft writes it, with other values in its tensors, read again and applied by peft."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
    out = {}
    for name, (family, options) in ADAPTERS.items():
        class_name, values = FAMILIES[family]
        vocab = values["vocab_size"]
        model, stored = build(class_name, values)
        peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **options))
        ids = [7, 3, 80, 5, 1, 88, 3, *integers("adapters", 4, 80)]
        columns = sorted({1, 3, 5, 7, *integers("adapters.columns", 4, vocab)})
        with tempfile.TemporaryDirectory() as folder:
            peft.save_pretrained(folder)
            path = pathlib.Path(folder) / "adapter_model.safetensors"
            written = load_file(path)
            tied = "lm_head" if options.get("ensure_weight_tying") else None
            tensors, records = {}, []
            for tensor_name, tensor in sorted(written.items()):
                shape = list(tensor.shape)
                if tensor_name.endswith(".base_layer.weight"):  # of the base model
                    record = dict(base=tensor_name.removeprefix("base_model.model.").replace(".base_layer", ""))
                    if record["base"] == "lm_head.weight" and values["tie_word_embeddings"]:
                        record["base"] = "model.embed_tokens.weight"
                    filled = fill(record["base"], shape)
                elif tied and tensor_name.startswith("base_model.model.lm_head."):  # the embedding's
                    other = {"weight": "weight", "lora_A.weight": "lora_embedding_B", "lora_B.weight": "lora_embedding_A"}
                    of = "base_model.model.model.embed_tokens." + other[tensor_name.removeprefix("base_model.model.lm_head.")]
                    record = dict(like=of, transposed="lora_" in of)
                    filled = fill(of, list(written[of].shape))
                    filled = filled.T.contiguous() if record["transposed"] else filled
                else:
                    record = dict(scale=8 if "magnitude" in tensor_name else 1)
                    filled = fill(tensor_name, shape) * record["scale"]
                tensors[tensor_name] = filled
                records.append(dict(name=tensor_name, shape=shape, **record))
            save_file(tensors, path)
            config = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
            base, _ = build(class_name, values)
            loaded = PeftModel.from_pretrained(base, folder).eval()
            with torch.no_grad():
                applied = loaded(torch.tensor([ids])).logits[0]
            merged_model = loaded.merge_and_unload()
            with torch.no_grad():
                merged = merged_model(torch.tensor([ids])).logits[0]
        difference = (applied - merged).abs().max().item()
        print(name, "largest", applied.abs().max().item(), "merged differs by", difference)
        # Of a tied model peft merges what belongs to one of the two tables into both; it warns of that.
        tables = {"embedding_of_tied", "head_of_tied", "embedding_and_tied"}
        assert name in tables or difference < 1e-5 * applied.abs().max(), name
        out[name] = dict(config=stored, adapter=config, tensors=records, ids=[ids], columns=columns,
                         max_logit=short(applied.abs().max().item()),
                         logits=[[short(v) for v in row] for row in applied[:, columns].tolist()])
    write("model_adapters.json", out)


def float8():
    """All 256 codes of float8_e4m3fn, and a matrix of them with scales of each kind, as bits."""
    def bits(values):
        return values.view(torch.int32).flatten().tolist()

    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    rows, columns, block = 5, 7, (2, 3)
    stored = [v if v & 0x7F != 0x7F else 0 for v in integers("float8", rows * columns, 256)]
    matrix = torch.tensor(stored, dtype=torch.uint8).view(torch.float8_e4m3fn).reshape(rows, columns).float()
    cases = {}
    for name, shape in {"tensor": [], "tensor_of_one": [1], "row": [rows, 1], "block": [3, 3]}.items():
        scales = fill("float8." + name, shape if shape else [1]).abs() * 3 + 0.1
        spread = scales.expand(rows, columns) if shape != [3, 3] else (
            scales.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns])
        values = matrix * spread
        cases[name] = dict(scale_shape=shape, scales=bits(scales), values=bits(values),
                           bf16=values.bfloat16().view(torch.int16).flatten().tolist())
    write("float8.json", dict(codes=bits(codes.float()), shape=[rows, columns], block=list(block), stored=stored,
                              cases=cases))


def reference_tokenizer(gguf_path):
    """The published tokenizer, rebuilt from the header's vocabulary and merges with the `tokenizers` package."""
    import gguf
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    fields = gguf.GGUFReader(gguf_path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    added = {t for t, kind in zip(tokens, types) if kind != 1}
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    pre = fields["tokenizer.ggml.pre"].contents()
    if pre == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    elif pre == "qwen2":
        pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                   r"|\s+(?!\S)|\s+")
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        raise SystemExit(f"no reference tokenizer for {pre}")
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, added


def real(path, name):
    from transformers import AutoModelForCausalLM
    texts = (GOLDEN / "model_texts.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert len(texts) == 50, len(texts)
    tokenizer, added = reference_tokenizer(path)
    assert not any(a in t for a in added for t in texts)
    ids = [tokenizer.encode(t.replace("\\n", "\n").replace("\\t", "\t")).ids for t in texts]
    path = pathlib.Path(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    logits = []
    for one in ids[:10]:
        with torch.no_grad():
            rows = model(torch.tensor([one])).logits[0]
        top = rows[-1].topk(5)
        columns = sorted(set(integers(f"columns.{len(logits)}", 6, rows.shape[1])))
        # Rows two apart keep the file small and still catch any fault in rotation or masking.
        logits.append(dict(max=short(rows.abs().max().item()), top_ids=top.indices.tolist(),
                           top=[short(v) for v in top.values.tolist()], columns=columns,
                           rows=[[short(v, 7) for v in row] for row in rows[::2, columns].tolist()],
                           norm=short(rows[-1].norm().item())))
    print(name, model.config.model_type, sum(map(len, ids)), "ids")
    write(f"model_real_{name}.json", dict(ids=ids, logits=logits))


def write(name, value):
    text = json.dumps(value, separators=(",", ":"))
    (GOLDEN / name).write_text(text + "\n")
    print(GOLDEN / name, len(text), "bytes")


if __name__ == "__main__":
    if sys.argv[1:] == ["families"]:
        families()
    elif sys.argv[1:] == ["long"]:
        long()
    elif sys.argv[1:] == ["lora"]:
        lora()
    elif sys.argv[1:] == ["adapters"]:
        adapters()
    elif sys.argv[1:] == ["float8"]:
        float8()
    elif len(sys.argv) == 4 and sys.argv[1] == "real":
        real(*sys.argv[2:])
    else:
        sys.exit(__doc__)
