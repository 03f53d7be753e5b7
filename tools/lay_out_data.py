#!/usr/bin/env python3
"""Lays collections out as models/erank-135m/train.sh and tools/measure_model.py read them (docs/formats.md, "Data folder").

tools/lay_out_data.py SOURCE OUT [--queries N] [--seed S]

SOURCE holds the collections in the forms in which they are published, plain or .xz:
  beir/nfcorpus, beir/scifact       corpus.jsonl, queries.jsonl, qrels/*.tsv
  msmarco-small                     corpus.jsonl, queries.jsonl, qrels.tsv
  msmarco-dl/dl19, msmarco-dl/dl21  bm25_top100_with_text.jsonl, pool_passages.jsonl, topics.tsv, qrels.txt
  glasgow/cranfield, npl, cacm      corpus.jsonl, queries.jsonl, qrels.txt
  birco/clinical-trial.dev          corpus.jsonl, queries.jsonl, qrels.tsv
OUT gets a folder for each: corpus.jsonl, queries.jsonl, qrels/{train,dev,test}.tsv, and bm25.run for dl19, whose
candidates come from a corpus that is not here; validation.jsonl beside it has the best 32 of 16 of its queries, with
their texts, to choose a checkpoint by. msmarco-small and dl21 become one set, marco: both are passages of MS
MARCO, and the first one's single answers have grade 3 there. Of the queries to report by, N (100) of each set are drawn
by the seed (1); those to choose by are all there.
"""
import argparse
import csv
import json
import lzma
import pathlib
import random
import sys


def open_text(path):
    packed = path.with_name(path.name + ".xz")
    if packed.exists():
        return lzma.open(packed, "rt", encoding="utf-8", newline="\n")
    if path.exists():
        return open(path, encoding="utf-8", newline="\n")
    sys.exit(f"lay_out_data: neither {path} nor {packed} is there")


def read_jsonl(path):
    with open_text(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def read_qrels(path):
    """[(qid, docid, grade)] of the TREC form or of three columns below a heading."""
    with open_text(path) as file:
        rows = [line.split() for line in file if line.strip()]
    if rows[0][-1] == "score":
        return [(q, d, int(g)) for q, d, g in rows[1:]]
    return [(q, d, int(g)) for q, _, d, g in rows]


def documents_of(rows):
    return {r["_id"]: {"_id": r["_id"], "title": r.get("title", ""), "text": r["text"]} for r in rows}


def write(folder, documents, queries, qrels):
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for document in documents.values():
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        for qid, text in queries.items():
            file.write(json.dumps({"_id": qid, "text": text}, ensure_ascii=False) + "\n")
    for split, rows in qrels.items():
        with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            file.writelines(f"{q}\t{d}\t{g}\n" for q, d, g in rows)
    counts = ", ".join(f"{split} {len({q for q, _, _ in rows})}" for split, rows in qrels.items())
    print(f"{folder.name}: {len(documents)} documents, {len(queries)} queries, judged: {counts}")


def drawn(qrels, number, seed):
    """The judgements of `number` queries, drawn among those with a relevant document."""
    qids = sorted({q for q, _, g in qrels if g > 0})
    chosen = set(random.Random(seed).sample(qids, min(number, len(qids))))
    return [row for row in qrels if row[0] in chosen]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    def beir(folder, splits, draw=()):
        source = args.source / folder
        queries = {r["_id"]: r["text"] for r in read_jsonl(source / "queries.jsonl")}
        qrels = {split: read_qrels(source / path) for split, path in splits.items()}
        for split in draw:
            qrels[split] = drawn(qrels[split], args.queries, args.seed)
        write(args.out / source.name, documents_of(read_jsonl(source / "corpus.jsonl")), queries, qrels)

    def deep_learning(name):
        source = args.source / "msmarco-dl" / name
        documents = documents_of(read_jsonl(source / "pool_passages.jsonl"))
        hits = read_jsonl(source / "bm25_top100_with_text.jsonl")
        for row in hits:
            for hit in row["hits"]:
                documents.setdefault(hit["docid"], {"_id": hit["docid"], "title": "", "text": hit["text"]})
        with open_text(source / "topics.tsv") as file:
            queries = dict(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        return documents, queries, read_qrels(source / "qrels.txt"), hits

    def dl19():
        documents, queries, qrels, hits = deep_learning("dl19")
        write(args.out / "dl19", documents, queries, {"dev": qrels})
        with open(args.out / "dl19/bm25.run", "w", encoding="utf-8") as file:
            for row in hits:
                for rank, hit in enumerate(row["hits"], 1):
                    file.write(f"{row['qid']} Q0 {hit['docid']} {rank} {hit['score']} bm25\n")
        judged = [row for row in hits if row["qid"] in {q for q, _, _ in qrels}]
        with open(args.out / "dl19/validation.jsonl", "w", encoding="utf-8") as file:
            for row in random.Random(args.seed).sample(judged, 16):
                hits = [{key: hit[key] for key in ("docid", "score", "text")} for hit in row["hits"][:32]]
                file.write(json.dumps({"qid": row["qid"], "query": row["query"], "hits": hits}) + "\n")

    def marco():
        documents, queries, qrels, _ = deep_learning("dl21")
        small = args.source / "msmarco-small"
        documents |= documents_of(read_jsonl(small / "corpus.jsonl"))
        queries |= {r["_id"]: r["text"] for r in read_jsonl(small / "queries.jsonl")}
        qrels += [(q, d, 3) for q, d, _ in read_qrels(small / "qrels.tsv")]
        write(args.out / "marco", documents, queries, {"train": qrels})

    beir("beir/nfcorpus", {s: f"qrels/{s}.tsv" for s in ("train", "dev", "test")}, draw=["test"])
    beir("beir/scifact", {"train": "qrels/train.tsv"})
    marco()
    dl19()
    beir("glasgow/cranfield", {"test": "qrels.txt"}, draw=["test"])
    beir("glasgow/npl", {"test": "qrels.txt"}, draw=["test"])
    beir("glasgow/cacm", {"test": "qrels.txt"}, draw=["test"])
    beir("birco/clinical-trial.dev", {"test": "qrels.tsv"}, draw=["test"])


main()
