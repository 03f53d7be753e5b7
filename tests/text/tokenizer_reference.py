"""Ids and pieces as Hugging Face's tokenizers gives them, on seeded random text: the oracle of the
differential tests. Writes JSONL.

  tokenizer_reference.py folder DIR OUT COUNT SEED   vocab.json + merges.txt + added_tokens.json of a Qwen model
  tokenizer_reference.py gguf FILE OUT COUNT SEED    a SmolLM2 GGUF
      {"text", "ids": without added tokens, "special_ids": with them}
  tokenizer_reference.py split PATTERNS OUT COUNT SEED   PATTERNS: a JSON list of Oniguruma patterns
      {"pattern": index, "text", "pieces"}
  tokenizer_reference.py json FILE OUT COUNT SEED   a tokenizer.json; text of its added tokens and what may touch them
      {"text", "special_ids"}
"""
import json
import os
import random
import sys

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers  # noqa: E402
from tokenizers.models import BPE  # noqa: E402

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACES = (
    " \t\n\r\v\f\x1c\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f"
    "\u2060\u3000\ufeff"
)
MARKS = "".join(
    map(
        chr,
        [*range(0x300, 0x370), *range(0x483, 0x488), *range(0x591, 0x5BE), *range(0x64B, 0x660)]
        + [0x6DF, 0x93C, 0x94D, 0x9FE, 0xC3C, 0xE38, 0xF71, 0xF72, 0xF74, 0x1715, 0x1AC1, 0x1DF6]
        + [0x20D0, 0x302A, 0x3099, 0x309A, 0xFB1E, 0xFE20, 0x10D24, 0x11930, 0x1193D, 0x16FF0]
        + [0x1D165, 0x1D16D, 0x1E130, 0x1E4EC],
    )
)
COMPOSING = (
    "aAeEiIoOuUcCnNsSyYzZ\u03b1\u03c9\u03d2\u0430\u0438\u0627\u0647\u0915\u09c7\u0b47\u0bc6\u0cc6"
    "\u0d46\u0dd9\u1025\u1b05\u304b\u306f\u30ab\u30cf\u017f\u212b\u2126\u1e9b\u0344\u0f73\u2adc"
    "\ufb1d\uf900\U0002f800\U00011099\U00011935"
)
WORDS = (
    "the of and relevance passage query don't I'LL we've it's they're CAN'T he'D 'S 's 'T 'Re 'VE 'm "
    "'lL 'd '\u017f '\u017ft \u2019s naïve façade Straße résumé Ünïcödé déjà coöperate привет мир Ёлка "
    "България שלום עולם مرحبا العالم नमस्ते दुनिया สวัสดี ชาวโลก 你好世界 日本語のテキスト 안녕하세요 세계 ქართული "
    "Հայերեն ελληνικά Việt Nam Đặng <think> </think> <|im_start|> <|im_end|> <|endoftext|> <|im_ "
    "<tool_call> <repo_name> [PAD] <s> </s>"
).split(" ")
CODE = (
    "for (int i = 0; i < n; ++i) {\n\tx[i] += y[i];\n}\n",
    "def f(x):\n    return x**2  # square\n",
    "a->b::c<T>&&",
    "if(!p||q){return -1;}",
    "SELECT * FROM t WHERE id=42;",
    "</div>\r\n<p class=\"x\">",
    "$HOME/.cache/*.json",
    "\\frac{1}{2} \\alpha_{ij}",
    "https://example.org/a?b=c&d=%20",
    "0xDEADBEEF",
    "1e-5",
    '"""doc"""',
    "#include <x.h>\n",
    "===== ----- .....",
    "!!!???",
    "...\n\n\n",
    "();\n\n        }\n    }\n",
)
EMOJI = "😀🚀🦙👍🏽👩‍👩‍👧‍👦🏳️‍🌈🇩🇪1️⃣☕✅❤️🫠🪿🫨"
DIGITS = (
    "0123456789²³¹¼½¾٠١٢३०१२ⅠⅫ㊿①๑〇\U00010d40\U00011de0\U00011f50\U00016ff4\U0001d7ce\U0001ccf0"
    "\U0001fbf0"
)


def code_point(rng):
    kind = rng.randrange(10)
    if kind < 3:
        c = rng.randrange(0x80, 0x800)
    elif kind < 6:
        c = rng.randrange(0x800, 0x10000)
    elif kind < 9:
        c = rng.randrange(0x10000, 0x20000)
    else:
        c = rng.randrange(0x110000)
    return chr(c) if not 0xD800 <= c < 0xE000 else "\ufffd"


def jamo(rng):
    return chr(rng.choice((rng.randrange(0x1100, 0x1200), rng.randrange(0xAC00, 0xD7A4))))


def part(rng):
    kind = rng.randrange(12)
    many = rng.choice((1, 1, 2, 3, 5, 9))
    if kind == 0:
        return "".join(code_point(rng) for _ in range(many))
    if kind == 1:
        return rng.choice(CODE)
    if kind == 2:
        return "".join(rng.choice(DIGITS[:10]) for _ in range(many))
    if kind == 3:
        return "".join(rng.choice(DIGITS) for _ in range(many))
    if kind == 4:
        return rng.choice(SPACES) * many
    if kind == 5:
        return "".join(rng.choice(SPACES) for _ in range(many))
    if kind == 6:
        return rng.choice(COMPOSING) + "".join(rng.choice(MARKS) for _ in range(rng.randrange(5)))
    if kind == 7:
        return "".join(jamo(rng) for _ in range(many))
    if kind == 8:
        return "".join(rng.choice(EMOJI) for _ in range(many))
    if kind == 9:
        return "".join(chr(rng.randrange(0x20, 0x7F)) for _ in range(many * 3))
    if kind == 10:
        run = rng.choice((" ", "\n", "\r\n", "\n\n", "  ", "\t", "\r"))
        return run * rng.choice((1, 1, 1, 2, 7, 40))
    return rng.choice(WORDS) + rng.choice(("", " ", " ", " ", ", ", ".", "\n"))


def texts(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(part(rng) for _ in range(rng.choice((1, 2, 3, 4, 6, 10, 20))))


def qwen(folder):
    tokenizer = Tokenizer(BPE.from_file(folder + "/vocab.json", folder + "/merges.txt"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    with open(folder + "/added_tokens.json") as file:
        added = json.load(file)
    return tokenizer, sorted(added, key=added.get)


def smollm(path):
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    types = fields["tokenizer.ggml.token_type"].contents()
    return tokenizer, [t for t, kind in zip(tokens, types) if kind == 3]


def write_ids(build, path, out, count, seed):
    plain, added = build(path)
    with_added, _ = build(path)
    with_added.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in added])
    for text in texts(count, seed):
        ids = plain.encode(text, add_special_tokens=False).ids
        special = with_added.encode(text, add_special_tokens=False).ids if "<" in text else ids
        out.write(json.dumps({"text": text, "ids": ids, "special_ids": special}) + "\n")


def write_pieces(path, out, count, seed):
    with open(path) as file:
        patterns = json.load(file)
    for i, pattern in enumerate(patterns):
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        for text in texts(count, seed + i):
            pieces = [piece for piece, _ in split.pre_tokenize_str(text)]
            out.write(json.dumps({"pattern": i, "text": text, "pieces": pieces}) + "\n")


def write_added(path, out, count, seed):
    tokenizer = Tokenizer.from_file(path)
    parts = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    parts = parts * 3 + list(" \n\ta_1-.\u00a0\u3000\u0301") + ["e\u0301", "é", "  ", "don't", " 123", "--"]
    rng = random.Random(seed)
    for _ in range(count):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 12)))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.write(json.dumps({"text": text, "special_ids": ids}) + "\n")


def main():
    mode, path, target, count, seed = sys.argv[1:]
    with open(target, "w") as out:
        if mode == "folder":
            write_ids(qwen, path, out, int(count), int(seed))
        elif mode == "gguf":
            write_ids(smollm, path, out, int(count), int(seed))
        elif mode == "json":
            write_added(path, out, int(count), int(seed))
        elif mode == "split":
            write_pieces(path, out, int(count), int(seed))
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
