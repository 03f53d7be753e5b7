#!/usr/bin/env python3
"""Trains the default model on by each of the ways of `erank train` on the same judged queries, and measures them.

tools/compare_training.py DATA OUT [--only NAME...] [--steps N] [--lists N] [--queries N] [--measure]

DATA is a folder that tools/lay_out_data.py made. The training lists are drawn by a seed from the train splits: 20
candidates, --positives of them relevant, the others from BM25's best 100 and not relevant. Every way sees the same
lists, --lists of them a step, and is validated on 24 queries of dl19 and 24 of nfcorpus dev with BM25's best 24. OUT
gets a folder for each way; called again, runs go on and what is trained is left as it is.

  --only NAME  these ways (all); none: only the data is made
  --measure    after training: other queries of dl19 and 100 of nfcorpus dev, BM25's best 100, direct answers in bf16,
               with the difference to the model before training and its 95 % interval (paired bootstrap over queries)
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys

MODEL = "models/erank-135m"
SOURCES = {"nfcorpus": (1, 1), "marco": (2, 9)}  # the lowest grade that is relevant, lists of a query at most
WAYS = {
    "sft": ["sft", "--modes", "direct", "--learning-rate", "0.0002"],
    "sft-margin": ["sft", "--modes", "direct", "--learning-rate", "0.0002", "--rank-loss", "margin", "--rank-weight",
                   "0.05"],
    "sft-softmax": ["sft", "--modes", "direct", "--learning-rate", "0.0002", "--rank-loss", "softmax"],
    "exact-rr": ["grpo", "--reward", "rr", "--adv-std", "off"],
    "exact-ndcg": ["grpo", "--reward", "ndcg", "--adv-std", "off"],
    "exact-se": ["grpo", "--reward", "se", "--adv-std", "off"],
    "think-rr": ["grpo", "--reward", "rr", "--rollouts", "4", "--modes", "think", "--max-think-tokens", "64"],
}


def call(*command):
    result = subprocess.run(list(map(str, command)), check=False)
    if result.returncode:
        sys.exit(f"compare_training: {' '.join(map(str, command))}: exit code {result.returncode}")


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(path):
    qrels = {}
    for qid, docid, grade in (row.split("\t") for row in path.read_text(encoding="utf-8").splitlines()[1:]):
        qrels.setdefault(qid, {})[docid] = int(grade)
    return qrels


class Collection:
    def __init__(self, args, name, split):
        self.name, folder = name, args.data / name
        self.texts = {d["_id"]: (d.get("title", "") + " " + d["text"]).strip() for d in lines(folder / "corpus.jsonl")}
        self.queries = {q["_id"]: q["text"] for q in lines(folder / "queries.jsonl")}
        self.qrels = read_qrels(folder / "qrels" / f"{split}.tsv")
        run = folder / "bm25.run"
        if not run.exists():
            run, index = args.out / f"{name}.run", args.out / f"{name}.bm25"
            if not run.exists():
                call(args.erank, "index", "--corpus", folder / "corpus.jsonl", "--out", index, "--overwrite")
                call(args.erank, "retrieve", "--index", index, "--queries", folder / "queries.jsonl", "--top", 100,
                     "--out", run)
        self.run = {}
        for qid, _, docid, *_ in map(str.split, run.read_text(encoding="utf-8").splitlines()):
            self.run.setdefault(qid, []).append(docid)

    def candidates(self, qid, docids):
        return {"qid": f"{self.name}-{qid}", "query": self.queries[qid],
                "hits": [{"docid": f"{self.name}-{d}", "text": self.texts[d]} for d in docids]}


def training_list(collection, qid, least, positives, draw):
    """20 candidates in BM25's order, or None: up to `positives` relevant ones, the best graded first, the others half
    of BM25's first 20 and half of its first 100."""
    grades, ranked = collection.qrels[qid], collection.run.get(qid, [])
    relevant = [d for d, g in grades.items() if g >= least and d in collection.texts]
    draw.shuffle(relevant)
    relevant = sorted(relevant, key=lambda d: -grades[d])[:positives]
    others = [d for d in ranked if grades.get(d, 0) < least]
    if not relevant or len(others) < 50:
        return None
    missing = 20 - len(relevant)
    hard = draw.sample(others[:20], missing // 2)
    chosen = {*relevant, *hard, *draw.sample([d for d in others if d not in hard], missing - len(hard))}
    order = [d for d in ranked if d in chosen]
    return order + sorted(chosen - set(order))


def write_training(args):
    draw, candidates, qrels, pairs = random.Random(args.seed), [], [], []
    for name, (least, lists) in SOURCES.items():
        collection, number = Collection(args, name, "train"), args.queries // len(SOURCES)
        qids = sorted(q for q, grades in collection.qrels.items() if len(grades) > 4)
        draw.shuffle(qids)
        for n, qid in ((n, qid) for n in range(lists) for qid in qids):
            docids = training_list(collection, qid, least, args.positives, draw) if number else None
            if docids is None:
                continue
            number -= 1
            grades = {d: g if (g := collection.qrels[qid].get(d, 0)) >= least else 0 for d in docids}
            one = collection.candidates(qid, docids)
            one["qid"] += f"-{n + 1}"
            candidates.append(one)
            qrels += [f"{one['qid']} 0 {name}-{d} {g}\n" for d, g in grades.items()]
            for hit, docid in zip(one["hits"], docids):
                mean = 8 if grades[docid] else 3
                weights = [2 ** (-((k - mean) / 1.5) ** 2) for k in range(11)]
                pairs.append({"qid": one["qid"], "docid": hit["docid"], "query": one["query"], "text": hit["text"],
                              "distribution": [w / sum(weights) for w in weights]})
    draw.shuffle(candidates)
    write_lines(args.out / "train.jsonl", candidates)
    write_lines(args.out / "pairs.jsonl", pairs)
    (args.out / "train.qrels").write_text("".join(qrels), encoding="utf-8")


def write_lists(args, stem, number, depth, without=()):
    """STEM.jsonl and STEM.qrels: of dl19 and nfcorpus dev `number` queries each with BM25's best `depth`."""
    candidates, qrels = [], []
    for name in ("dl19", "nfcorpus"):
        collection = Collection(args, name, "dev")
        qids = sorted(q for q, grades in collection.qrels.items() if max(grades.values()) > 0
                      and len(collection.run.get(q, [])) >= 24 and f"{name}-{q}" not in without)
        for qid in random.Random(args.seed).sample(qids, min(number, len(qids))):
            candidates.append(collection.candidates(qid, collection.run[qid][:depth]))
            qrels += [f"{name}-{qid} 0 {name}-{d} {g}\n" for d, g in collection.qrels[qid].items()]
    write_lines(args.out / f"{stem}.jsonl", candidates)
    (args.out / f"{stem}.qrels").write_text("".join(qrels), encoding="utf-8")


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def train(args, name):
    out = args.out / name
    if (out / "adapter_model.safetensors").exists():
        return
    way = WAYS[name]
    data = ["--data", args.out / "pairs.jsonl", "--batch-size", 20 * args.lists, "--group-size", 20, "--max-steps", args.steps]
    if way[0] == "grpo":
        data = ["--candidates", args.out / "train.jsonl", "--qrels", args.out / "train.qrels", "--mini-batch",
                20 * args.lists, "--queries-per-iteration", args.lists, "--iterations", args.steps]
        if "--learning-rate" not in way:
            data += ["--learning-rate", args.rate, "--kl-coef", args.kl, "--schedule", "cosine", "--warmup-ratio", 0.1]
    call(args.erank, "train", way[0], *way[1:], "--model", MODEL, *data, "--out", out, "--resume", "--validation",
         args.out / "validation.jsonl", "--validation-qrels", args.out / "validation.qrels", "--validate-steps",
         max(1, args.steps // 3), "--checkpoint-steps", 10)


def ndcg(args, model, stem):
    """{qid: nDCG@10} of a model on STEM."""
    run = args.out / f"{stem}-{pathlib.Path(model).name}.run"
    if not run.exists():
        call(args.erank, "rerank", "--model", model, "--candidates", args.out / f"{stem}.jsonl", "--direct", "--long-docs",
             "cut", "--score", "expected", "--precision", "bf16", "--format", "trec", "--out", run, "--resume")
    measured = subprocess.run([args.erank, "eval", "-q", "--json", "-m", "nDCG@10", args.out / f"{stem}.qrels", run],
                              stdout=subprocess.PIPE, check=True).stdout
    return json.loads(measured)["nDCG@10"]["queries"]


def interval(differences, draw):
    means = sorted(sum(draw.choices(differences, k=len(differences))) / len(differences) for _ in range(10000))
    return means[250], means[9749]


def measure(args):
    before = ndcg(args, MODEL, "measured")
    print(f"{'nDCG@10 x 100':<14}{'dl19':>8}{'nfcorpus dev':>14}{'difference of the mean':>34}")
    for name in ["", *args.only]:
        values = ndcg(args, args.out / name, "measured") if name else before
        sets = {s: [q for q in values if q.startswith(s)] for s in ("dl19-", "nfcorpus-")}
        means = [100 * sum(values[q] for q in qids) / len(qids) for qids in sets.values()]
        # Each set counts a half, as if both had as many queries.
        weights = {q: 50 * len(values) / len(qids) for qids in sets.values() for q in qids}
        differences = [weights[q] * (values[q] - before[q]) for q in values]
        low, high = interval(differences, random.Random(1))
        change = f"{sum(differences) / len(differences):+.2f} ({low:+.2f} to {high:+.2f})" if name else ""
        print(f"{name or 'before':<14}{means[0]:>8.2f}{means[1]:>14.2f}{change:>34}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lists", type=int, default=16)
    parser.add_argument("--queries", type=int, default=1600)
    parser.add_argument("--positives", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.00001)
    parser.add_argument("--kl", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--erank", default="build/erank")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "validation.qrels").exists():
        write_training(args)
        write_lists(args, "validation", 24, 24)
    for name in args.only:
        train(args, name)
    if args.measure:
        write_lists(args, "measured", 100, 100, {q["qid"] for q in lines(args.out / "validation.jsonl")})
        measure(args)


main()
