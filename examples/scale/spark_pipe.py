#!/usr/bin/env python3
"""Reranks candidates with Spark: each partition's lines go through a pipe to an erank process of its own.

    spark-submit examples/scale/spark_pipe.py candidates.jsonl results --partitions 100 -- --model my-model

Candidates are JSON lines {qid, query, hits: [{docid, text, score}]}; a file, a folder or a glob that Spark can read.
What comes after -- is for `erank rerank`. The results are its JSON lines. A line that erank cannot read fails the
task (checkCode), and with it the job, after Spark's usual number of tries; the message is in the executor's log.
"""
import argparse
import os
import shlex
import sys

from pyspark.sql import SparkSession


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates")
    parser.add_argument("out", help="folder that Spark makes")
    parser.add_argument("--partitions", type=int, default=1, help="parts at least; a packed file is one")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, rerank = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]

    program = os.environ.get("ERANK", "erank")
    command = [program, "rerank", "--candidates", "-", "--out", "-", "--format", "jsonl", "--quiet", *rerank]
    spark = SparkSession.builder.appName("erank").getOrCreate()
    # pipe() gives the process no environment but this: erank needs PATH, and for the model the folders' names.
    names = ("PATH", "HOME", "XDG_CACHE_HOME", "ERANK_CACHE")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    (
        spark.sparkContext.textFile(args.candidates, args.partitions)
        .pipe(shlex.join(command), env=environment, checkCode=True)
        .saveAsTextFile(args.out)
    )
    spark.stop()


if __name__ == "__main__":
    main()
