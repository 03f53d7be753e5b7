#!/usr/bin/env python3
"""Checks a GPU's results against the CPU's, then measures the GPU; bench/gpu.sh builds and calls it.

bench/gpu.py --erank PATH --out FILE.md [--device cuda|cpu] [--check-shape S] [--shapes S...] [--seconds N]

check    the same random model on the CPU in fp32 and on the device in fp32 and bf16: the largest difference of the
         eleven answers' shares of their probability, direct and after reasoning; of several GPUs, on all together too.
         Over a bound, or where there was no time to compare, the exit code is 1.
measure  `erank bench` of each shape in bf16, 100 passages: prefill, direct and thinking, decode, against the device's
         own GEMM peak; and 400 thinking tokens for 100 passages of --think-shape.

What is not done after --seconds is left out. FILE.md is written after each part. --device cpu tries the program itself
where there is no GPU.
"""
import argparse
import datetime
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

BOUNDS = {"fp32": 1e-5, "bf16": 5e-3}  # of a share
FIGURES = {  # of `erank bench --json`: heading, digits
    "gemm_gflops": ("GEMM peak, GFLOP/s", 0),
    "prefill_tokens_per_s": ("prefill, tokens/s", 0),
    "prefill_share_of_gemm": ("share of the GEMM peak", 2),
    "direct_documents_per_s": ("direct, passages/s", 0),
    "think_documents_per_s": ("thinking, passages/s", 1),
    "decode_64_tokens_per_s": ("decode of 64, tokens/s", 0),
}


END = [float("inf")]  # of time.monotonic()


def call(*command):
    left = max(1, END[0] - time.monotonic()) if END[0] < float("inf") else None
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=False, timeout=left)
    if result.returncode:
        sys.exit(f"gpu: {' '.join(map(str, command))}: exit code {result.returncode}")
    return result.stdout


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def write_candidates(path):
    """Few queries with passages of very different lengths, so that a pass holds many shapes of sequence."""
    draw = random.Random(1)
    words = ["river", "stone", "light", "trade", "engine", "leaf", "market", "glass", "winter", "signal"]
    with open(path, "w", encoding="utf-8") as file:
        for q in range(4):
            hits = [{"docid": f"d{i}", "text": " ".join(draw.choices(words, k=draw.randint(1, 40)))} for i in range(16)]
            file.write(json.dumps({"qid": str(q), "query": " ".join(draw.choices(words, k=6)), "hits": hits}) + "\n")


def shares(distribution):
    return [p / sum(distribution) for p in distribution]


def distributions(args, folder, device, precision, mode):
    lines = call(args.erank, "rerank", "--model", folder / "model", "--candidates", folder / "candidates.jsonl", *mode,
                 "--format", "jsonl", "--precision", precision, "--device", device, "--quiet").splitlines()
    return {(r["qid"], r["docid"]): (r["reasoning"], shares(r["distribution"])) for r in map(json.loads, lines)}


def check(args, folder):
    """Rows of a table, and whether all is within its bound."""
    rows, fine = [["answers", "precision", "pairs compared", "largest difference", "bound"]], True
    try:
        call(args.erank, "model", "random", "--shape", args.check_shape, "--out", folder / "model")
        write_candidates(folder / "candidates.jsonl")
        for name, mode in {"direct": ["--direct"], "after reasoning": ["--think", "--max-think-tokens", "16"]}.items():
            fine &= compare(args, folder, name, mode, args.device, rows)
        if (together := all_gpus(args)) != args.device:
            fine &= compare(args, folder, f"direct, {together}", ["--direct"], together, rows)
    except subprocess.TimeoutExpired:
        rows.append(["the rest", "", "no time", "", ""])
        fine = False
    return rows, fine


def all_gpus(args):
    """The device, or a list of this machine's GPUs where it has several."""
    if args.device == "cpu":
        return "cpu"
    count = len(call("nvidia-smi", "-L").splitlines())
    return "cuda:" + ",".join(map(str, range(count))) if count > 1 else "cuda"


def compare(args, folder, name, mode, device, rows):
    """Adds a row for each precision; whether all is within its bound."""
    fine = True
    expected = distributions(args, folder, "cpu", "fp32", mode)
    for precision, bound in BOUNDS.items():
        found = distributions(args, folder, device, precision, mode)
        # Reasoning takes another turn where two tokens are nearly alike: then the answers differ too.
        same = [key for key, (text, _) in expected.items() if found[key][0] == text]
        worst = max((abs(a - b) for key in same for a, b in zip(expected[key][1], found[key][1])), default=1)
        # In fp32 a tie of rounding may turn one, too.
        fine &= worst <= bound and len(same) >= len(expected) * (0.95 if precision == "fp32" else 0.25)
        rows.append([name, precision, f"{len(same)} of {len(expected)}", f"{worst:.1e}", f"{bound:.0e}"])
    return fine


def bench(args, shape, *more):
    return json.loads(call(args.erank, "bench", "--shape", shape, "--device", args.device, "--documents",
                           args.documents, *more, "--json"))


def measured(args, shape):
    try:
        result = bench(args, shape)
    except subprocess.TimeoutExpired:
        return [shape, *("no time" for _ in FIGURES)]
    return [shape, *(f"{result[f]:.{digits}f}" for f, (_, digits) in FIGURES.items())]


def thinking(args):
    """A line on long reasoning."""
    what = f"{args.think_tokens} thinking tokens for {args.documents} passages of {args.think_shape}"
    try:
        result = bench(args, args.think_shape, "--think-tokens", args.think_tokens, "--only", "think")
    except subprocess.TimeoutExpired:
        return f"{what}: no time\n"
    return f"{what}: {args.documents / result['think_documents_per_s']:.2f} s\n"


def card(args):
    if args.device == "cpu":
        return "the CPU, to try this program"
    return call("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erank", default="build-cuda/erank")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--check-shape", default="smollm2-135m")
    parser.add_argument("--shapes", nargs="+", default=["smollm2-135m", "qwen3-0.6b", "qwen3-4b"])
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--think-shape", default="qwen3-4b")
    parser.add_argument("--think-tokens", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=360)
    args = parser.parse_args()
    END[0] = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        checked, fine = check(args, pathlib.Path(folder))
    text = (f"{card(args)}, {datetime.date.today()}, `bench/gpu.sh`\n\nAgainst the CPU in fp32, {args.check_shape} "
            f"with random weights:\n\n{aligned(checked)}")
    args.out.write_text(text, encoding="utf-8")
    rows = [["shape", *(heading for heading, _ in FIGURES.values())]]
    for shape in args.shapes:
        rows.append(measured(args, shape))
        whole = f"{text}\nSpeed in bf16, random weights, {args.documents} passages:\n\n{aligned(rows)}"
        args.out.write_text(whole, encoding="utf-8")
    whole += f"\n{thinking(args)}"
    args.out.write_text(whole, encoding="utf-8")
    print(whole)
    if not fine:
        sys.exit("gpu: results differ from the CPU's by more than the bound, or were not compared")


main()
