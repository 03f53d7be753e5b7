#!/usr/bin/env python3
"""Measures what reading long documents in windows is worth: BM25, the beginning alone, and windows.

tools/long_documents.py DATA OUT [--sets NAME...] [--queries N] [--top N] [--joined N] [--erank PATH] [-- RERANK OPTION...]

DATA is a folder that tools/lay_out_data.py made. Of each set --queries queries of its development split (test where it
has none) are drawn by a seed. The set `joined` is nfcorpus with --joined neighbours of its corpus made one document,
whose grade is their best. Printed are nDCG@10 of the best --top of BM25, how many windows a document has, and the
difference of windows and beginning with its 95 % interval (paired bootstrap over queries). Called again it goes on.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def call(*command):
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
    if result.returncode:
        sys.exit(f"long_documents: {' '.join(map(str, command))}: exit code {result.returncode}")
    return result.stdout


def write_set(args, name, out):
    folder = args.data / ("nfcorpus" if name == "joined" else name)
    corpus, home = lines(folder / "corpus.jsonl"), {}
    for d in corpus:
        d["text"] = (d.pop("title", "") + " " + d["text"]).strip()
        home[d["_id"]] = d["_id"]
    if name == "joined":
        parts = [corpus[i:i + args.joined] for i in range(0, len(corpus), args.joined)]
        corpus = [{"_id": f"j{n}", "text": "\n\n".join(d["text"] for d in part)} for n, part in enumerate(parts)]
        home = {d["_id"]: f"j{n}" for n, part in enumerate(parts) for d in part}
    split = next(s for s in ("dev", "test") if (folder / "qrels" / f"{s}.tsv").exists())
    qrels = {}
    for row in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        qid, docid, grade = row.split("\t")
        if docid in home:
            grades = qrels.setdefault(qid, {})
            grades[home[docid]] = max(grades.get(home[docid], 0), int(grade))
    qids = sorted(qid for qid, grades in qrels.items() if max(grades.values()) > 0)
    qids = set(random.Random(1).sample(qids, min(args.queries, len(qids))))
    (out / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in corpus), encoding="utf-8")
    (out / "queries.jsonl").write_text("".join(json.dumps(q) + "\n" for q in lines(folder / "queries.jsonl")
                                               if q["_id"] in qids), encoding="utf-8")
    (out / "qrels").write_text("".join(f"{q} 0 {d} {g}\n" for q in sorted(qids) for d, g in qrels[q].items()),
                               encoding="utf-8")


def ndcg(args, out, run):
    measured = call(args.erank, "eval", "-c", "-q", "--json", "-m", "nDCG@10", out / "qrels", run)
    return json.loads(measured)["nDCG@10"]["queries"]


def measure(args, name):
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "bm25.run").exists():
        write_set(args, name, out)
        call(args.erank, "index", "--corpus", out / "corpus.jsonl", "--out", out / "bm25", "--overwrite")
        call(args.erank, "retrieve", "--index", out / "bm25", "--queries", out / "queries.jsonl", "--top", args.top,
             "--out", out / "bm25.run")
    values, windows = {"bm25": ndcg(args, out, out / "bm25.run")}, []
    for way in ("cut", "windows"):
        run = out / f"{way}.jsonl"
        if not run.exists():
            call(args.erank, "rerank", "--queries", out / "queries.jsonl", "--corpus", out / "corpus.jsonl", "--run",
                 out / "bm25.run", "--direct", "--long-docs", way, "--format", "jsonl", "--out", run, "--resume",
                 *args.options)
        rows = [row for row in lines(run) if row["score"] is not None]
        (out / f"{way}.run").write_text("".join(f"{r['qid']} Q0 {r['docid']} {r['rank']} {-r['rank']} {way}\n"
                                                for r in rows), encoding="utf-8")
        values[way] = ndcg(args, out, out / f"{way}.run")
        windows = [row.get("window", {}).get("of", 1) for row in rows]
    means = {way: sum(of.values()) / len(of) for way, of in values.items()}
    differences = [values["windows"][q] - values["cut"][q] for q in values["cut"]]
    draw = random.Random(1)
    drawn = sorted(sum(draw.choices(differences, k=len(differences))) / len(differences) for _ in range(10000))
    print(f"{name:<10}{len(differences):>8}{sum(windows) / len(windows):>9.1f}" +
          "".join(f"{means[way]:>9.4f}" for way in ("bm25", "cut", "windows")) +
          f"{means['windows'] - means['cut']:>+11.4f} ({drawn[250]:+.4f} to {drawn[9749]:+.4f})", flush=True)


def main():
    argv, options = sys.argv[1:], []
    if "--" in argv:
        argv, options = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--sets", nargs="+", default=["joined", "nfcorpus", "dl19"])
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--joined", type=int, default=4)
    parser.add_argument("--erank", default="build/erank")
    args = parser.parse_args(argv)
    args.options = options
    print(f"{'set':<10}{'queries':>8}{'windows':>9}{'BM25':>9}{'cut':>9}{'windows':>9}{'windows - cut':>16}")
    for name in args.sets:
        measure(args, name)


main()
