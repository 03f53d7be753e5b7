#!/usr/bin/env python3
"""Times a step of reinforcement learning with samples: `erank train grpo` and TRL's GRPOTrainer, one after the other.

bench/grpo_speed.py [--erank PATH] [--queries N] [--docs N] [--rollouts N] [--tokens N] [--steps N] [--quick]
                    [--out FILE.json] [--update-docs]

Both train a new LoRA adapter on the default model (as `erank model merge` writes it) on the same prompts, those of
BM25's best passages for the first queries of examples/demo: reasoning and an answer of at most --tokens tokens, sampled
at temperature 1, and one optimiser step on all of an iteration's samples. The peer is in the Python environment that
tools/peers makes; it first tries its settings on a quarter of the prompts, and is measured with the fastest. The first
step is not counted; erank also runs again at the end, as a check that the machine was the same. Tables go to stdout,
all that was measured to --out; --update-docs writes the tables between the marks of docs/performance.md.
"""
import argparse
import collections
import json
import os
import pathlib
import statistics
import sys
import tempfile
import textwrap

from peers_programs import ROOT, Unavailable, cache_folder, call, json_line, say
from peers_tables import aligned, machine_facts, markdown, update_docs

RANK, RATE, KL_COEF, PASSAGE_TOKENS = 16, 1e-4, 0.001, 96
MARK = "<!-- grpo table -->"


def candidates(erank, args):
    """[{qid, query, hits}] of the first queries with --docs candidates, of which one is relevant; and grades."""
    demo = ROOT / "examples/demo"
    read = lambda name: {r["_id"]: r for r in map(json.loads, (demo / name).read_text().splitlines())}  # noqa: E731
    corpus, queries, grades = read("corpus.jsonl"), read("queries.jsonl"), collections.defaultdict(dict)
    for line in (demo / "qrels/test.tsv").read_text().splitlines()[1:]:
        qid, docid, grade = line.split("\t")
        grades[qid][docid] = int(grade)
    found = collections.defaultdict(list)
    for line in call([erank, "retrieve", "--beir", demo, "--top", args.docs])[0].splitlines():
        qid, _, docid, _, score, _ = line.split()
        text = corpus[docid]["title"] + " " + corpus[docid]["text"]
        found[qid].append({"docid": docid, "score": float(score), "text": text})
    usable = [qid for qid, hits in found.items() if len(hits) == args.docs and
              any(grades[qid].get(hit["docid"], 0) > 0 for hit in hits)]
    if len(usable) < args.queries:
        sys.exit(f"grpo_speed: {len(usable)} queries have {args.docs} candidates, not {args.queries}")
    return [{"qid": q, "query": queries[q]["text"], "hits": found[q]} for q in usable[:args.queries]], grades


def erank_run(erank, args, work, name):
    out = work / name
    command = [erank, "train", "grpo", "--model", work / "model", "--candidates", work / "candidates.jsonl", "--qrels",
               work / "qrels", "--out", out, "--modes", "think", "--rollouts", args.rollouts, "--max-think-tokens",
               args.tokens, "--iterations", args.steps + 1, "--queries-per-iteration", args.queries, "--docs-per-query",
               args.docs, "--mini-batch", args.queries * args.docs, "--layout", "passage-last", "--max-doc-tokens",
               PASSAGE_TOKENS, "--kl-coef", KL_COEF, "--learning-rate", RATE, "--lora-rank", RANK, "--lora-alpha",
               2 * RANK, "--precision", args.precision, "--threads", args.threads]
    _, _, memory = call(command)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [(p, s) for p, s in zip([x for x in lines if "prepared" in x], [x for x in lines if "loss" in x])][1:]
    median = lambda key, i: statistics.median(pair[i][key] for pair in steps)  # noqa: E731
    return {"memory": memory, "seconds": [p["seconds"] + s["seconds"] for p, s in steps],
            "sampling": median("sampling_seconds", 0), "reference": median("reference_seconds", 0),
            "learning": median("seconds", 1), "share": median("share_of_gemm_peak", 1),
            "tokens": median("rollout_tokens", 0), "unformatted": median("unformatted", 0),
            "learned": median("tokens", 1), "computed_per_needed": median("computed_per_needed", 0), "log": lines}


def peer_run(python, job, setting, steps):
    path = job["work"] / "job.json"
    path.write_text(json.dumps({**job, "setting": setting, "steps": steps, "work": str(job["work"])}))
    text, _, memory = call([python, ROOT / "bench/grpo_speed_peer.py", path], timeout=3600)
    line = json_line(text)
    return {**line, "memory": memory, "seconds": line["seconds"][1:] or line["seconds"]}


def peer_settings(args, size):
    """Those to try. The weights' precision is decided first, then the batch, then how completions are generated."""
    batches = [b for b in args.batches if b <= size and size % b == 0] or [size]
    middle = batches[len(batches) // 2]
    plain = {"batch": middle, "continuous": False}
    if args.precision == "bf16":
        yield [{**plain, "weights": "bf16", "adapter": "fp32", "autocast": True},
               {**plain, "weights": "bf16", "adapter": "bf16", "autocast": False},
               {**plain, "weights": "fp32", "adapter": "fp32", "autocast": True}]
    else:
        yield [{**plain, "weights": "fp32", "adapter": "fp32", "autocast": False}]
    yield [{"batch": b} for b in batches if b != middle]
    yield [{"continuous": True}]


def fastest_setting(python, job, args):
    quarter = job["prompts"][:max(1, len(job["prompts"]) // 4)]
    trial_job = {**job, "prompts": quarter}
    best, tried = None, []
    for changes in peer_settings(args, len(quarter) * args.rollouts):
        if tried and best is None:
            break
        base = best[1] if best else {}
        for change in changes:
            setting = {**base, **change}
            try:
                seconds = peer_run(python, trial_job, setting, 1)["seconds"][0]
            except Unavailable as reason:
                tried.append((setting, None, str(reason)))
                say(f"TRL, {named(setting)}: {reason}")
                continue
            tried.append((setting, seconds, ""))
            say(f"TRL, {named(setting)}: {seconds:.1f} s a step of {len(quarter) * args.rollouts} completions")
            if best is None or seconds < best[0]:
                best = seconds, setting
    if best is None:
        raise Unavailable("no setting of TRL works: " + tried[-1][2])
    return best[1], tried


def named(s):
    return (f"{s['weights']} weights and {s['adapter']} adapter{', bf16 autocast' if s['autocast'] else ''}, "
            f"batches of {s['batch']}{', continuous batching' if s['continuous'] else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--erank", type=pathlib.Path, default=ROOT / "build/erank")
    parser.add_argument("--queries", type=int, default=2)
    parser.add_argument("--docs", type=int, default=10)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="timed ones")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 10], help="of the peer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only-erank", action="store_true")
    parser.add_argument("--quick", action="store_true", help="sees whether all works: the figures mean nothing")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("grpo_speed.json"))
    parser.add_argument("--update-docs", nargs="?", type=pathlib.Path, const=ROOT / "docs/performance.md")
    args = parser.parse_args()
    if args.quick:
        args.queries, args.docs, args.rollouts, args.tokens, args.steps, args.batches = 1, 4, 2, 64, 1, [2]
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    args.precision = "bf16" if any(word in flags for word in ("avx512_bf16", "amx_bf16", " bf16")) else "fp32"
    if args.update_docs:
        update_docs(args.update_docs, None, MARK)
    erank = args.erank.resolve()
    with tempfile.TemporaryDirectory(prefix="erank_grpo_speed_") as work:
        measure(erank, args, pathlib.Path(work))


def measure(erank, args, work):
    rows, grades = candidates(erank, args)
    call([erank, "model", "merge", "--out", work / "model"])
    (work / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "qrels").write_text("".join(f"{row['qid']} 0 {docid} {grade}\n" for row in rows
                                        for docid, grade in grades[row["qid"]].items()))
    pairs = [(row, hit) for row in rows for hit in row["hits"]]
    given = "".join(json.dumps({"query": row["query"], "document": hit["text"]}) + "\n" for row, hit in pairs)
    prompts = call([erank, "prompt", "--model", work / "model", "--layout", "passage-last", "--max-doc-tokens",
                    PASSAGE_TOKENS], text_in=given)[0].splitlines()
    job = {"model": str(work / "model"), "work": work, "rollouts": args.rollouts, "tokens": args.tokens, "rank": RANK,
           "rate": RATE, "kl_coef": KL_COEF, "threads": args.threads,
           "prompts": [{"prompt": p["text"], "ids": p["ids"], "grade": grades[row["qid"]].get(hit["docid"], 0)}
                       for (row, hit), p in zip(pairs, map(json.loads, prompts))]}
    results = {"settings": {key: str(value) for key, value in vars(args).items()
                            if not isinstance(value, pathlib.Path)}, "machine": machine_facts(),
               "load": round(os.getloadavg()[0], 2)}
    say("erank")
    ours = results["erank"] = erank_run(erank, args, work, "run1")
    peer, setting, again = None, None, None
    try:
        if args.only_erank:
            raise Unavailable("--only-erank")
        made = [mark.parent / "bin/python" for mark in sorted((cache_folder() / "peers").glob("trl-*/complete"))]
        if not made:
            raise Unavailable("TRL is not there; run tools/peers trl")
        python = made[-1]
        setting, results["tried"] = fastest_setting(python, job, args)
        say(f"TRL, {named(setting)}")
        peer = results["trl"] = peer_run(python, job, setting, args.steps + 1)
        say("erank again")
        again = results["erank_again"] = erank_run(erank, args, work, "run2")
    except Unavailable as reason:
        print(f"TRL was not measured: {reason}")
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    rows = table(ours, peer, args)
    print(aligned(rows))
    lines = facts_lines(results, args, setting, again)
    print("\n".join(lines) + f"\nwritten: {args.out}")
    if args.update_docs and peer:
        update_docs(args.update_docs, textwrap.fill(" ".join(lines), 120) + "\n\n" + markdown(rows), MARK)


def table(ours, peer, args):
    """What a step takes in the median: a heading and a row a figure."""
    step = statistics.median(ours["seconds"])
    rows = [["a step", "erank"], ["seconds", f"{step:.2f}"], ["of it sampling", f"{ours['sampling']:.2f}"],
            ["the reference", f"{ours['reference']:.2f}"], ["learning", f"{ours['learning']:.2f}"],
            ["mean tokens of a sample", f"{ours['tokens']:.1f}"],
            ["samples without an answer", f"{ours['unformatted']:.2f}"],
            ["tokens through the network, learning", f"{ours['learned']:.0f}"],
            ["peak memory, MB", f"{ours['memory']:.0f}"]]
    if peer:
        theirs = statistics.median(peer["seconds"])
        of_step = lambda key: peer[key] / peer["steps"]  # noqa: E731
        sampling = statistics.median(peer["sampling_seconds"][1:])
        cells = ["TRL", f"{theirs:.2f}", f"{sampling:.2f}", "", f"{theirs - sampling:.2f} with the reference",
                 f"{peer['generated'] / peer['completions']:.1f}", f"{1 - peer['formatted'] / peer['completions']:.2f}",
                 f"{of_step('learning'):.0f}", f"{peer['memory']:.0f}"]
        ratios = ["TRL : erank", f"{theirs / step:.2f}", f"{sampling / ours['sampling']:.2f}", "",
                  f"{(theirs - sampling) / (ours['learning'] + ours['reference']):.2f}", "", "",
                  f"{of_step('learning') / ours['learned']:.2f}", f"{peer['memory'] / ours['memory']:.2f}"]
        rows = [[*row, cell, ratio] for row, cell, ratio in zip(rows, cells, ratios)]
    return rows


def facts_lines(results, args, setting, again):
    m, ours, peer = results["machine"], results["erank"], results.get("trl")
    lines = [f"`{m['command']}`: {m['processor']}, {args.threads} threads, {m['memory_gb']} GB; {m['date']}, commit {m['commit']}, load "
             f"before the run {results['load']}; {args.queries} queries of {args.docs} documents, {args.rollouts} "
             f"samples each, {args.steps} steps after the first.",
             f"erank, {args.precision}: learning at {ours['share']:.2f} of the GEMM peak, tokens computed per needed "
             f"{ours['computed_per_needed']:.3f} (sampling)."]
    if peer:
        lines += [f"TRL {peer['version']}, transformers {peer['transformers']}, torch {peer['torch']}, "
                  f"{named(setting)}, the fastest of {len(results['tried'])} settings."]
    if again:
        lines += [f"erank once more after it: {statistics.median(again['seconds']):.2f} s a step."]
    return lines


if __name__ == "__main__":
    main()
