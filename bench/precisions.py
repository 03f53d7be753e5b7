#!/usr/bin/env python3
"""Memory and speed of a shape in each precision on the CPU, by `erank bench`.

bench/precisions.py [--erank PATH] [--shape SHAPE] [--precisions bf16,int8,gguf] [--documents N] [--threads N]
                    [--out FILE.json] [--update-docs]

One process a precision, one after another: random weights, passages scored directly (150 shared and 180 own tokens),
tokens generated one at a time and eight at once, and the most memory that the process held. A table goes to stdout,
what was measured to --out; --update-docs writes the table to docs/performance.md.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

from peers_programs import ROOT
from peers_tables import aligned, machine_facts, markdown, update_docs

MARK = "<!-- precisions table -->"


def measure(args, precision):
    print(f"precisions: {args.shape} in {precision}", file=sys.stderr, flush=True)
    command = [args.erank, "bench", "--shape", args.shape, "--precision", precision, "--documents", str(args.documents),
               "--only", "direct,decode", "--json"]
    if args.threads:
        command += ["--threads", str(args.threads)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def table(found):
    rows = [["precision", "weights, GB", "peak memory, GB", "direct, pairs/s", "decode 1, tokens/s",
             "decode 8, tokens/s"]]
    for precision, one in found.items():
        rows.append([precision, f"{one['weight_bytes'] / 1e9:.2f}", f"{one['peak_memory_bytes'] / 1e9:.2f}",
                     f"{one['direct_documents_per_s']:.2f}", f"{one['decode_1_tokens_per_s']:.1f}",
                     f"{one['decode_8_tokens_per_s']:.1f}"])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erank", default=str(ROOT / "build/erank"))
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--precisions", default="bf16,int8,gguf")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--update-docs", action="store_true")
    args = parser.parse_args()
    docs = ROOT / "docs/performance.md"
    if args.update_docs:
        update_docs(docs, None, MARK)
    facts = machine_facts()
    found = {precision: measure(args, precision) for precision in args.precisions.split(",")}
    threads = next(iter(found.values()))["threads"]
    print(aligned(table(found)))
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps({"machine": facts, "found": found}, indent=1) + "\n")
    if args.update_docs:
        line = (f"`{facts['command']}`: shape {args.shape}, {facts['processor']}, {threads} of {os.cpu_count()} threads, "
                f"{facts['memory_gb']} GB; {facts['date']}, commit {facts['commit']}.")
        update_docs(docs, f"\n{line}\n\n{markdown(table(found))}\n", MARK)


if __name__ == "__main__":
    main()
