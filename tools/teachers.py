"""The embedding models that tools/label_pairs.py asks how well a query and a document fit (tools/fetch_teachers.py).

embed(name, folder, texts, queries) -> [len(texts), width] float32 of length 1. Needs torch, transformers, gguf.
"""
import sys

import numpy
import torch
import transformers

MAX_TOKENS = 112


class MiniLM:
    """all-MiniLM-L6-v2: BERT, the mean of the last layer."""

    def __init__(self, folder):
        self.model = transformers.AutoModel.from_pretrained(folder / "minilm").eval()

    def hidden(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    @staticmethod
    def prefix(queries):
        return ""


class Nomic:
    """nomic-embed-text-v1.5: BERT's layout with rotation and a gated network in place of positions and GELU."""

    def __init__(self, folder):
        import gguf
        reader = gguf.GGUFReader(folder / "nomic/model.gguf")
        self.w = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).astype("float32"))
                  for t in reader.tensors}

        def value(key):
            return reader.fields[f"nomic-bert.{key}"].contents()

        self.layers, self.heads = value("block_count"), value("attention.head_count")
        self.eps, self.base = value("attention.layer_norm_epsilon"), value("rope.freq_base")

    def norm(self, x, name):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    def hidden(self, ids, mask):
        w, linear = self.w, torch.nn.functional.linear
        count, length = ids.shape
        x = self.norm(w["token_embd.weight"][ids] + w["token_types.weight"][0], "token_embd_norm")
        size = x.shape[-1] // self.heads
        angles = torch.outer(torch.arange(length), self.base ** (-torch.arange(0, size, 2) / size))
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)

        def rotate(t):
            first, second = t.chunk(2, -1)
            return t * cos + torch.cat([-second, first], -1) * sin

        for i in range(self.layers):
            qkv = linear(x, w[f"blk.{i}.attn_qkv.weight"]).view(count, length, 3, self.heads, size)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(rotate(q), rotate(k), v,
                                                                     attn_mask=mask[:, None, None, :].bool())
            mixed = mixed.transpose(1, 2).reshape(count, length, -1)
            x = self.norm(x + linear(mixed, w[f"blk.{i}.attn_output.weight"]), f"blk.{i}.attn_output_norm")
            gated = linear(x, w[f"blk.{i}.ffn_up.weight"]) * torch.nn.functional.silu(
                linear(x, w[f"blk.{i}.ffn_gate.weight"]))
            x = self.norm(x + linear(gated, w[f"blk.{i}.ffn_down.weight"]), f"blk.{i}.layer_output_norm")
        return x

    @staticmethod
    def prefix(queries):
        return "search_query: " if queries else "search_document: "


TEACHERS = {"minilm": MiniLM, "nomic": Nomic}


# Products in bf16 where the processor multiplies it.
@torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())
@torch.no_grad()
def embed(name, folder, texts, queries):
    if name not in TEACHERS:
        sys.exit(f"teachers: no teacher {name!r}; expected {' or '.join(TEACHERS)}")
    if not (folder / name).exists():
        sys.exit(f"teachers: {folder / name} is not there; tools/fetch_teachers.py {folder} fetches it")
    teacher = TEACHERS[name](folder)
    # Both models read BERT's lower-case word pieces.
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "minilm/tokenizer.json"))
    tokenizer.backend_tokenizer.no_padding()
    ids = tokenizer([teacher.prefix(queries) + t for t in texts], truncation=True, max_length=MAX_TOKENS,
                    padding=False)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    out = None
    for begin in range(0, len(order), 32):
        rows = order[begin:begin + 32]
        longest = max(len(ids[i]) for i in rows)
        batch = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in rows])
        mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in rows])
        x = (teacher.hidden(batch, mask) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        x = torch.nn.functional.normalize(x.float(), dim=-1).numpy()
        if out is None:
            out = numpy.zeros((len(texts), x.shape[1]), dtype="float32")
        out[rows] = x
        if sys.stderr.isatty() or begin % 3200 == 0:
            print(f"\r{name}: {begin + len(rows)} of {len(order)} texts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return out
