#!/usr/bin/env python3
"""Compares erank's first stage with Anserini's on the same collections in one run (docs/performance.md).

bench/bm25_peer.py [--erank PATH] [--data DIR] [--collections NAME...] [--repeats N] [--threads N] [--update-docs]

Of every collection both programs index the corpus (title + " " + text) and retrieve the best 100 documents of every
query. Every query must have the same documents in the same order, with scores within 1e-4; else the first differences
are named and the exit code is 1. Then the table: seconds to index, and queries a second, of the whole command from
start to end, each the median of N (3) runs in turns. --data (else $ERANK_SHARED_DATA) has the collections in the form that
tools/lay_out_data.py reads; Anserini is fetched by `tools/peers anserini`. --update-docs writes the table between the
marks of docs/performance.md.
"""
import argparse
import json
import lzma
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

from peers_programs import ROOT, Unavailable, cache_folder, call
from peers_tables import machine_facts, markdown, update_docs

COLLECTIONS = ("beir/nfcorpus", "beir/scifact", "glasgow/cranfield", "glasgow/npl", "msmarco-small")
TOP, TOLERANCE = 100, 1e-4
MARK = "<!-- bm25 table -->"


def say(text):
    print(f"bm25_peer: {text}", file=sys.stderr, flush=True)


class Erank:
    name = "erank"

    def __init__(self, program, threads):
        self.program, self.threads = program, threads

    def write(self, folder, documents, queries):
        self.corpus, self.queries = folder / "corpus.jsonl", folder / "queries.jsonl"
        self.index_path, self.run = folder / "corpus.bm25", folder / "erank.run"
        for path, rows in (self.corpus, documents), (self.queries, queries):
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def index(self):
        return call([self.program, "index", "--corpus", self.corpus, "--out", self.index_path, "--overwrite",
                     "--threads", self.threads])[1]

    def search(self):
        return call([self.program, "retrieve", "--index", self.index_path, "--queries", self.queries, "--top", TOP,
                     "--out", self.run, "--overwrite", "--threads", self.threads])[1]


class Anserini:
    name = "Anserini"

    def __init__(self, threads):
        folders = sorted((cache_folder() / "peers").glob("anserini-*/complete"))
        if not folders:
            raise Unavailable("Anserini is not there; `tools/peers anserini` fetches it")
        self.folder, self.threads = folders[-1].parent, threads
        self.version = self.folder.name.split("-", 1)[1]

    def java(self, name, *arguments):
        return call([self.folder / "java/bin/java", "-cp", next(self.folder.glob("*.jar")), name, *arguments])[1]

    def write(self, folder, documents, queries):
        self.corpus, self.topics = folder / "json", folder / "topics.tsv"
        self.index_path, self.run = folder / "lucene", folder / "anserini.run"
        self.corpus.mkdir()
        with open(self.corpus / "corpus.jsonl", "w", encoding="utf-8") as file:
            for row in documents:
                contents = " ".join(filter(None, (row.get("title"), row["text"])))
                file.write(json.dumps({"id": row["_id"], "contents": contents}) + "\n")
        with open(self.topics, "w", encoding="utf-8") as file:
            file.writelines(f"{row['_id']}\t{' '.join(row['text'].split())}\n" for row in queries)

    def index(self):
        shutil.rmtree(self.index_path, ignore_errors=True)
        return self.java("io.anserini.index.IndexCollection", "-collection", "JsonCollection", "-input", self.corpus,
                         "-index", self.index_path, "-generator", "DefaultLuceneDocumentGenerator",
                         "-threads", self.threads)

    def search(self):
        return self.java("io.anserini.search.SearchCollection", "-index", self.index_path, "-topics", self.topics,
                         "-topicReader", "TsvString", "-output", self.run, "-bm25", "-hits", TOP,
                         "-threads", self.threads)


def read_jsonl(path):
    packed = path.with_name(path.name + ".xz")
    with lzma.open(packed, "rt", encoding="utf-8", newline="\n") if packed.exists() else \
            open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def read_run(path):
    run = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            qid, _, docid, _, score, _ = line.split()
            run.setdefault(qid, []).append((docid, float(score)))
    return run


def differences(mine, theirs, queries):
    """A line for each query whose hits differ."""
    found = []
    for qid in (row["_id"] for row in queries):
        a, b = mine.get(qid, []), theirs.get(qid, [])
        for rank in range(max(len(a), len(b))):
            if rank >= min(len(a), len(b)) or a[rank][0] != b[rank][0] or abs(a[rank][1] - b[rank][1]) > TOLERANCE:
                found.append(f"query {qid}, rank {rank + 1}: erank {a[rank] if rank < len(a) else 'has none'}, "
                             f"Anserini {b[rank] if rank < len(b) else 'has none'}")
                break
    return found


def measures(erank, data, name, run):
    """nDCG@10 and R@100 of erank's run where the data has a test split."""
    for place in "qrels/test.tsv", "qrels.txt", "qrels.tsv":
        if (data / name / place).exists():
            out = call([erank, "eval", "-c", "-m", "nDCG@10", "-m", f"R@{TOP}", data / name / place, run])[0]
            values = dict(line.split("\tall\t") for line in out.splitlines())
            return [f"{float(values[key]):.4f}" for key in sorted(values, reverse=True)]
    return ["", ""]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--erank", type=pathlib.Path, default=ROOT / "build/erank")
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("ERANK_SHARED_DATA"))
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--update-docs", action="store_true")
    args = parser.parse_args()
    if not args.data:
        sys.exit("bm25_peer: give --data DIR or set ERANK_SHARED_DATA: the folder of the collections")
    docs = ROOT / "docs/performance.md"
    if args.update_docs:
        update_docs(docs, None, MARK)
    try:
        programs = [Erank(args.erank.resolve(), args.threads), Anserini(args.threads)]
    except Unavailable as reason:
        sys.exit(f"bm25_peer: {reason}")
    rows = [["collection", "documents", "queries", "equal top 100", "nDCG@10", "R@100", "index, s", "Anserini",
             "queries/s", "Anserini"]]
    bad = 0
    for name in args.collections:
        documents, queries = (read_jsonl(pathlib.Path(args.data) / name / f) for f in ("corpus.jsonl", "queries.jsonl"))
        times = {(p.name, what): [] for p in programs for what in ("index", "search")}
        with tempfile.TemporaryDirectory() as work:
            for program in programs:
                program.write(pathlib.Path(work), documents, queries)
            for _ in range(args.repeats):
                for what in "index", "search":
                    for program in programs:
                        times[program.name, what].append(getattr(program, what)())
            found = differences(*(read_run(p.run) for p in programs), queries)
            quality = measures(args.erank, pathlib.Path(args.data), name, programs[0].run)
        for line in found[:5]:
            say(f"{name}: {line}")
        bad += len(found)
        mine, theirs = ({what: statistics.median(times[p.name, what]) for what in ("index", "search")} for p in programs)
        rows.append([name.split("/")[-1], f"{len(documents):,}", f"{len(queries):,}",
                     f"{len(queries) - len(found):,} of {len(queries):,}", *quality,
                     f"{mine['index']:.2f}", f"{theirs['index']:.2f}",
                     f"{len(queries) / mine['search']:,.0f}", f"{len(queries) / theirs['search']:,.0f}"])
        say(" ".join(rows[-1]))
    facts = machine_facts()
    text = (f"`bench/bm25_peer.py --repeats {args.repeats}`: Anserini {programs[1].version}, {facts['processor']}, "
            f"{args.threads} threads, {facts['memory_gb']} GB; {facts['date']}, commit {facts['commit']}\n\n{markdown(rows)}")
    print(text)
    if args.update_docs and not bad:
        update_docs(docs, text, MARK)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
