#!/usr/bin/env python3
"""Measures a model beside BM25 on the collections of a data folder (docs/formats.md, "Data folder").

tools/measure_model.py DATA OUT [--model DIR | --teachers NAME...] [--sets SET...] [--think] [--top N] [--queries N]

OUT gets a folder of runs and results.json; called again it goes on where it stopped: a ranking that is complete is not
made again, one that was broken off goes on from its journal. Printed is a table of nDCG@10: BM25, the model alone, the
paper's blend (0.2 BM25) and every other weight of --weights.

  --teachers   the embedding models of tools/teachers.py in place of a model: the mean of their cosines, each divided by
               its deviation within the query's candidates (needs torch, transformers, gguf)
  --think      the thinking mode in place of the direct one; also counts how many thoughts ended by themselves
  --top N      candidates of BM25 that are reranked (100)
  --queries N  of each set, drawn by the seed 1 (0: all that have a judgement in the folder)
"""
import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys

import fetch_teachers

SETS = {"dl19": "dev", "nfcorpus-dev": "dev", "nfcorpus": "test", "cranfield": "test", "npl": "test"}


def call(*command):
    result = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=False)
    if result.returncode:
        sys.exit(f"measure_model: {' '.join(map(str, command))}: exit code {result.returncode}")
    return result.stdout


def read_judged(path):
    with open(path, encoding="utf-8") as file:
        return sorted({line.split()[0] for line in list(file)[1:] if int(line.split()[2]) > 0})


def blend(rows, weight):
    """{docid: score} of one query: z-scores of both, population deviation, `weight` of the first stage."""
    def z(values):
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        return [(v - mean) / deviation if deviation > 0 else 0.0 for v in values]
    first, model = z([r["first_stage_score"] for r in rows]), z([r["score"] for r in rows])
    return {r["docid"]: weight * f + (1 - weight) * m for r, f, m in zip(rows, first, model)}


class Set:
    def __init__(self, args, name):
        self.args, self.name = args, name
        self.folder = args.data / name.removesuffix("-dev")
        self.work = args.out / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.judged = read_judged(self.folder / "qrels" / f"{SETS[name]}.tsv")
        if args.queries:
            self.judged = random.Random(1).sample(self.judged, min(args.queries, len(self.judged)))
        self.qrels = self.only_judged(self.folder / "qrels" / f"{SETS[name]}.tsv", "qrels.tsv", heading=True)
        self.queries = self.work / "queries.jsonl"
        with open(self.folder / "queries.jsonl", encoding="utf-8") as file:
            self.queries.write_text("".join(line for line in file if json.loads(line)["_id"] in set(self.judged)),
                                    encoding="utf-8")
        run = self.folder / "bm25.run"
        if not run.exists():
            index = self.work / "corpus.bm25"
            call(args.erank, "index", "--corpus", self.folder / "corpus.jsonl", "--out", index, "--overwrite")
            run = self.work / "bm25.all.run"
            call(args.erank, "retrieve", "--index", index, "--queries", self.queries, "--top", 100,
                 "--out", run, "--overwrite")
        self.run = self.only_judged(run, "bm25.run", heading=False)

    def only_judged(self, path, name, heading):
        wanted = set(self.judged)
        with open(path, encoding="utf-8") as file:
            lines = list(file)
        kept = lines[:1] if heading else []
        kept += [line for line in lines[len(kept):] if line.split()[0] in wanted]
        (self.work / name).write_text("".join(kept), encoding="utf-8")
        return self.work / name

    def ndcg(self, run):
        measured = json.loads(call(self.args.erank, "eval", "-c", "--json", "-m", "nDCG@10", self.qrels, run))
        return measured["nDCG@10"]["all"]

    def ask_teachers(self):
        import numpy
        import teachers

        def read(path):
            with open(path, encoding="utf-8") as file:
                return {d["_id"]: (d.get("title", "") + " " + d["text"]).strip() for d in map(json.loads, file)}
        documents, queries = read(self.folder / "corpus.jsonl"), read(self.queries)
        with open(self.run, encoding="utf-8") as file:
            hits = [line.split() for line in file]
        candidates = collections.defaultdict(list)
        for qid, _, docid, _, score, _ in hits:
            if len(candidates[qid]) < self.args.top:
                candidates[qid].append({"qid": qid, "docid": docid, "first_stage_score": float(score), "score": 0.0})
        texts = sorted({documents[row["docid"]] for rows in candidates.values() for row in rows})
        for name in self.args.teachers:
            of_query = dict(zip(candidates, teachers.embed(name, self.args.folder, [queries[q] for q in candidates], True)))
            of_text = dict(zip(texts, teachers.embed(name, self.args.folder, texts, False)))
            for qid, rows in candidates.items():
                cosines = numpy.array([of_text[documents[row["docid"]]] @ of_query[qid] for row in rows])
                for row, value in zip(rows, (cosines - cosines.mean()) / (cosines.std() or 1)):
                    row["score"] += float(value)
        return [row for rows in candidates.values() for row in rows]

    def rerank(self):
        if self.args.teachers:
            return self.ask_teachers()
        mode = self.args.mode
        out = self.work / f"{mode}-top{self.args.top}-{len(self.judged)}.jsonl"
        if not out.exists():
            subprocess.run(list(map(str, [self.args.erank, "rerank", *self.args.model, f"--{mode}", "--precision", "bf16",
                                          "--long-docs", "cut", "--corpus",
                                          self.folder / "corpus.jsonl", "--queries", self.queries, "--run", self.run,
                                          "--top", self.args.top, "--format", "jsonl", "--out", out, "--resume"])),
                           check=True)
        with open(out, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def measure(self):
        rows = self.rerank()
        queries = collections.defaultdict(list)
        for row in rows:
            if row["score"] is not None:
                queries[row["qid"]].append(row)
        result = {"set": self.name, "queries": len(self.judged), "pairs": sum(map(len, queries.values())),
                  "top": self.args.top, "mode": self.args.mode,
                  "bm25": self.ndcg(self.run)}
        for weight in self.args.weights:
            run = self.work / f"blend-{weight}.run"
            with open(run, "w", encoding="utf-8") as file:
                for qid, ranked in queries.items():
                    scores = blend(ranked, weight)
                    rest = [r["docid"] for r in rows if r["qid"] == qid and r["docid"] not in scores]
                    order = sorted(scores, key=lambda d: -scores[d]) + rest
                    file.writelines(f"{qid} Q0 {d} {i + 1} {len(order) - i} blend\n" for i, d in enumerate(order))
            result[f"w{weight}"] = self.ndcg(run)
        scored = [row for ranked in queries.values() for row in ranked]
        if not self.args.teachers:
            result["integers"] = {str(i): n for i, n in sorted(collections.Counter(r["integer"] for r in scored).items())}
        if self.args.think:
            result["finish"] = dict(collections.Counter(row["finish"] for row in scored))
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", default=[], type=lambda m: ["--model", m])
    parser.add_argument("--teachers", nargs="+", default=[])
    parser.add_argument("--folder", type=pathlib.Path, default=fetch_teachers.default_folder(),
                        help="of tools/fetch_teachers.py")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--think", action="store_true")
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    parser.add_argument("--erank", default="build/erank")
    args = parser.parse_args()
    if args.teachers and (args.model or args.think):
        parser.error("--teachers measures teachers in place of a model: leave out --model and --think")
    args.mode = "+".join(args.teachers) or ("think" if args.think else "direct")
    results = args.out / "results.json"
    args.out.mkdir(parents=True, exist_ok=True)
    found = json.loads(results.read_text()) if results.exists() else {}
    names = ["BM25"] + ["alone" if w == 0 else f"{w:g} BM25" for w in args.weights]
    print(f"{'nDCG@10':<14}{'queries':>8}{'pairs':>8}" + "".join(f"{n:>10}" for n in names))
    for name in args.sets:
        one = Set(args, name)
        result = one.measure()
        found[f"{name}, {result['mode']}, top {args.top}, {result['queries']} queries"] = result
        results.with_suffix(".part").write_text(json.dumps(found, indent=1) + "\n")
        results.with_suffix(".part").rename(results)
        values = [result["bm25"]] + [result[f"w{w}"] for w in args.weights]
        print(f"{name:<14}{result['queries']:>8}{result['pairs']:>8}" + "".join(f"{v:>10.4f}" for v in values), flush=True)


main()
