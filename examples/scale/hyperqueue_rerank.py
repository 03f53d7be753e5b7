#!/usr/bin/env python3
"""Reranks in parts as tasks of HyperQueue, and joins them by a task that waits for all.

    hq server start & hq worker start --cpus 16 &       # on the machines of an allocation, or by `hq alloc add`
    python examples/scale/hyperqueue_rerank.py 100 erank.trec -- --beir my-beir --run bm25.run --format trec
    python examples/scale/hyperqueue_rerank.py 4 erank.trec --local -- ...      # without a server: on this machine

What comes after -- is for `erank rerank`; paths must be the same on every machine. A task whose worker is lost is
started again, and goes on from the part's journal where that is on a disk that the new worker has.
"""
import argparse
import os
import sys

from hyperqueue import Client, Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.ffi.protocol import ResourceRequest


def job_of(args, rerank):
    program, out = os.environ.get("ERANK", "erank"), os.path.abspath(args.out)
    job, parts, tasks = Job(max_fails=0), [], []
    for i in range(1, args.parts + 1):
        parts.append(f"{out}.part{i}")
        command = [program, "rerank", *rerank, "--threads", str(args.cpus)]
        command += ["--shard", f"{i}/{args.parts}", "--out", parts[-1], "--resume", "--quiet"]
        log = f"{parts[-1]}.log"
        resources = ResourceRequest(cpus=args.cpus)
        tasks.append(job.program(command, cwd=os.getcwd(), stdout=log, stderr=log, resources=resources))
    merge = [program, "merge", *parts, "--out", out]
    job.program(merge, cwd=os.getcwd(), stdout=f"{out}.merge.log", stderr=f"{out}.merge.log", deps=tasks)
    return job


def run(client, job):
    client.wait_for_jobs([client.submit(job)])  # raises when a task has failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=int)
    parser.add_argument("out")
    parser.add_argument("--cpus", type=int, default=1, help="processors of a part")
    parser.add_argument("--local", action="store_true", help="a server and a worker of this process")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, rerank = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    if not args.local:
        return run(Client(), job_of(args, rerank))
    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=os.cpu_count()))
        run(cluster.client(), job_of(args, rerank))


if __name__ == "__main__":
    main()
