"""Times `tokenizers` on one thread, in seconds of processor time: tokenizer_speed_peer.py KIND PATH TEXTS (a JSON list). Prints a line of JSON.

KIND `folder`: Qwen's vocab.json + merges.txt in PATH; `gguf`: a SmolLM2 GGUF.
"""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402

kind, path, texts_path = sys.argv[1:]
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/text"))
from tokenizer_reference import qwen, smollm  # noqa: E402

tokenizer, _ = (qwen if kind == "folder" else smollm)(path)
with open(texts_path) as file:
    texts = json.load(file)


def one_by_one():
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)


def batch():
    return sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))


def batch_fast():
    return sum(len(e.ids) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False))


best = {}
for _ in range(3):
    for way in (one_by_one, batch, batch_fast):
        begin = time.process_time()
        num_ids = way()
        seconds = time.process_time() - begin
        best[way.__name__] = min(best.get(way.__name__, seconds), seconds)
print(
    json.dumps(
        {
            "tool": "tokenizers " + tokenizers.__version__,
            "vocabulary": kind,
            "ids": num_ids,
            "seconds": round(min(best.values()), 4),
            "ways": {name: round(value, 4) for name, value in best.items()},
        }
    )
)
