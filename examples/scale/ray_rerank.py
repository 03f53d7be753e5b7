#!/usr/bin/env python3
"""Reranks candidates with Ray Data: a pool of actors, each with one erank process that it keeps.

    python examples/scale/ray_rerank.py --candidates candidates.jsonl --out results --workers 4 -- --model my-model

Candidates are JSON lines {qid, query, hits: [{docid, text, score}]}, as `erank retrieve --format jsonl` writes them; a
file, a folder or a glob. What comes after -- is for `erank rerank`. An erank process that dies is started again by its
actor; a lost actor or node, by Ray. Either way only what was not answered is computed anew.
"""
import argparse
import os
import sys

import ray
from erank_worker import Worker


class Rerank:
    def __init__(self, args):
        self.worker = Worker(args, program=os.environ.get("ERANK", "erank"))

    def __call__(self, batch):
        queries = [
            {"qid": qid, "query": query, "hits": list(hits)}
            for qid, query, hits in zip(batch["qid"].tolist(), batch["query"].tolist(), batch["hits"])
        ]
        lines = [line for results in self.worker.rerank(queries) for line in results]
        return {key: [line[key] for line in lines] for key in ("qid", "docid", "rank", "score")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", required=True)
    parser.add_argument("--out", required=True, help="folder for JSON lines {qid, docid, rank, score}")
    parser.add_argument("--workers", type=int, default=1, help="erank processes in all")
    parser.add_argument("--cpus", type=int, default=1, help="processors of each")
    parser.add_argument("--batch", type=int, default=16, help="queries that an actor is given at once")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, rerank = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]

    options = ["--threads", str(args.cpus), *rerank]
    (
        # Reading and writing claim no processor: the actors may have all of them.
        ray.data.read_json(args.candidates, lines=True, ray_remote_args={"num_cpus": 0})
        .map_batches(
            Rerank,
            fn_constructor_args=(options,),
            batch_size=args.batch,
            batch_format="numpy",
            num_cpus=args.cpus,
            compute=ray.data.ActorPoolStrategy(size=args.workers),
        )
        .write_json(args.out, ray_remote_args={"num_cpus": 0}, double_precision=15)
    )


if __name__ == "__main__":
    main()
