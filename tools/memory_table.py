#!/usr/bin/env python3
"""The memory of training Qwen3 4B, 14B and 32B by `erank train --dry-run`, as the table of docs/training.md.

    tools/memory_table.py [--erank build/erank]

A dry run reads no weights: the folders hold the models' shapes and the tiny model's tokenizer. Needs mpirun.
"""
import argparse
import itertools
import json
import os
import pathlib
import subprocess
import tempfile

SHAPES = {  # layers, hidden, ffn, heads, tied
    "4B": (36, 2560, 9728, 32, True),
    "14B": (40, 5120, 17408, 40, False),
    "32B": (64, 5120, 25600, 64, False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erank", default="build/erank")
    erank = parser.parse_args().erank
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       OMPI_MCA_rmaps_base_oversubscribe="1")
    print("| model | verb | trains | processes | weights | optimiser | a pass | logits | engine | reference | together |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        subprocess.run([erank, "model", "random", "--shape", "tiny", "--out", folder / "tiny"], check=True,
                       stdout=subprocess.DEVNULL)
        (folder / "tiny" / "model.safetensors").unlink()
        pair = {"qid": "q", "docid": "d", "query": "letters", "text": "a " * 1000, "score": 5}  # over 1024 tokens
        (folder / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
        hits = [{"docid": str(i), "text": pair["text"]} for i in range(20)]
        (folder / "lists.jsonl").write_text(json.dumps({"qid": "q", "query": "letters", "hits": hits}) + "\n")
        (folder / "qrels").write_text("q 0 0 1\n")
        verbs = {"sft": ["--data", folder / "pairs.jsonl"],
                 "grpo": ["--candidates", folder / "lists.jsonl", "--qrels", folder / "qrels", "--rollouts", "6",
                          "--modes", "think"]}
        path = folder / "tiny" / "config.json"
        config = json.loads(path.read_text())
        for name, (layers, hidden, ffn, heads, tied) in SHAPES.items():
            config.update(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=ffn,
                          num_attention_heads=heads, num_key_value_heads=8, head_dim=128, vocab_size=151936,
                          max_position_embeddings=40960, tie_word_embeddings=tied)
            path.write_text(json.dumps(config))
            for verb, full, processes in itertools.product(verbs, (False, True), (1, 8)):
                launcher = ["mpirun", "--bind-to", "none", "-n", "8"] if processes > 1 else []
                command = [erank, "train", verb, "--model", folder / "tiny", *verbs[verb], "--precision", "bf16",
                           "--dry-run", "--json"] + ["--full"] * full
                out = subprocess.run(launcher + command, check=True, capture_output=True, text=True,
                                     env=environment).stdout
                plan = json.loads(out)
                sizes = [plan.get(key, 0) / 1e9 for key in
                         ("weights_bytes", "optimizer_bytes", "activation_bytes", "logits_bytes", "serving_bytes",
                          "reference_bytes")]
                print(f"| {name} | {verb} | {'all' if full else 'adapter'} | {processes} |",
                      " | ".join(f"{size:.1f}" for size in sizes + [sum(sizes)]), "|", flush=True)


if __name__ == "__main__":
    main()
