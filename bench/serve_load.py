#!/usr/bin/env python3
"""Loads `erank serve` from a second process: throughput, latency, overload, and memory over time.

bench/serve_load.py [--erank PATH] [--model DIR] [--documents N] [--requests N] [--clients N,N,...] [--think]
                    [--only load|overload|soak|peers] [--overload-seconds S] [--soak-minutes M] [--out FILE.json]
                    [--update-docs]

Requests are queries of examples/demo, each with --documents passages drawn from its corpus (seeded, so that no pair
comes twice), and ask for events, so that the time to the first document is seen too. The server keeps no results.

load      the same pairs by `erank rerank` in one go, then by so many clients that ask one request after another:
          pairs/s, the share of the offline rate, p50/p95/p99 of a request and of its first document.
overload  a server that takes two requests' pairs at once, asked eight times as often as it can answer, whatever it
          answers: what it takes, how long those wait against a request alone, how fast the rest is refused.
soak      with --soak-minutes: eight clients, of whose requests a tenth is given up in the middle and a tenth is
          broken; resident memory as it goes.

peers     with --only peers: the same requests to erank serve (direct answers), to llama-server's /rerank and to a server
          of TEI's shape made of transformers (bench/serve_transformers.py), one after another, each with random bf16
          weights of the shape of Qwen3-0.6B, which is that of Qwen3-Reranker-0.6B: pairs/s, p50/p95/p99 of a request, and
          how many tokens a pair has by each server's own count. tools/peers installs them; one that is missing is named.

A table goes to stdout, all that was measured to --out; --update-docs writes the table to docs/performance.md.
"""
import argparse
import collections
import http.client
import itertools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from peers_programs import ROOT, Installed, Model, Unavailable, call, is_healthy, multiplies_bf16
from peers_tables import aligned, machine_facts, markdown, update_docs

MARK, PEERS_MARK = "<!-- serve table -->", "<!-- serve peers table -->"


def say(text):
    print(f"serve_load: {text}", file=sys.stderr, flush=True)


def calls(count, documents, seed):
    """Bodies of `count` requests as objects; no pair of query and passage comes twice."""
    demo = ROOT / "examples/demo"
    read = lambda name: [json.loads(line) for line in (demo / name).read_text().splitlines()]  # noqa: E731
    queries, corpus = read("queries.jsonl"), read("corpus.jsonl")
    out = []
    for number in range(count):
        draw = random.Random(seed * 1000003 + number)
        picked = draw.sample(corpus, documents)
        # The number keeps a query that comes again from being the same one.
        query = f"{queries[number % len(queries)]['text']} ({seed}-{number})"
        out.append({"query": query, "documents": [f"{d.get('title', '')} {d['text']}".strip() for d in picked]})
    return out


class Server:
    def __init__(self, args, *options):
        self.log = tempfile.TemporaryFile("w+")
        command = [args.erank, "serve", "--port", "0", "--cache-bytes", "0", *args.model, *map(str, options)]
        self.process = subprocess.Popen(command, stderr=self.log)
        for _ in range(6000):
            self.log.seek(0)
            text = self.log.read()
            found = re.search(r"127\.0\.0\.1:(\d+)\n", text)
            if found or self.process.poll() is not None:
                break
            time.sleep(0.05)
        if not found:
            raise SystemExit(f"serve_load: the server does not start: {text.strip()}")
        self.port, self.line = int(found[1]), text.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait() != 0:
            raise SystemExit("serve_load: the server did not end in order")

    def resident_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6

    def metric(self, name):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


Answer = collections.namedtuple("Answer", "status seconds first results")


def ask(connection, body, mode, give_up=False):
    """One request as a stream. `first`: until its first result."""
    begin = time.perf_counter()
    connection.request("POST", "/v1/rerank", json.dumps({**body, **mode, "stream": True}),
                       {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        reply.read()
        return Answer(reply.status, time.perf_counter() - begin, None, 0)
    first, results, ranked = None, 0, False
    for line in reply:
        if line.startswith(b"event: result"):
            results += 1
            first = first or time.perf_counter() - begin
            if give_up:
                connection.close()
                return Answer(499, time.perf_counter() - begin, first, results)
        ranked = ranked or line.startswith(b"event: ranking")
    if not ranked:
        raise SystemExit(f"serve_load: a stream ended without a ranking: {body['query']}")
    return Answer(200, time.perf_counter() - begin, first, results)


def in_threads(clients, work):
    """Seconds until `work` has ended in all of so many threads."""
    threads = [threading.Thread(target=work) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def in_turn(server, bodies, clients, mode):
    """`clients` threads, each with a connection, ask for the bodies one after another: answers, seconds."""
    left, answers, lock = iter(bodies), [], threading.Lock()

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            answer = ask(connection, body, mode)
            with lock:
                answers.append(answer)

    seconds = in_threads(clients, work)
    if any(a.status != 200 for a in answers) or len(answers) != len(bodies):
        raise SystemExit("serve_load: not every request was answered")
    return answers, seconds


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def offline_rate(args, bodies):
    """Pairs/s of `erank rerank`, loading left out."""
    def seconds(some):
        lines = [json.dumps({"qid": str(i), "query": b["query"],
                             "hits": [{"docid": str(k), "text": t} for k, t in enumerate(b["documents"])]})
                 for i, b in enumerate(some)]
        mode = ["--think"] if args.think else ["--direct"]
        with tempfile.TemporaryDirectory() as folder:
            given = pathlib.Path(folder, "candidates.jsonl")
            given.write_text("\n".join(lines) + "\n")
            return call([args.erank, "rerank", *args.model, *mode, "--candidates", given, "--out",
                         pathlib.Path(folder, "out.jsonl")])[1]
    one = [{**bodies[0], "documents": bodies[0]["documents"][:1]}]
    pairs = sum(len(b["documents"]) for b in bodies)
    return (pairs - 1) / (seconds(bodies) - seconds(one))


def measure_load(args, mode):
    rows = []
    say(f"{args.requests * args.documents} pairs by erank rerank")
    offline = offline_rate(args, calls(args.requests, args.documents, 1))
    rows.append({"what": "erank rerank", "pairs_per_s": offline})
    with Server(args, "--max-queued-pairs", 1 << 20) as server:
        say(server.line)
        in_turn(server, calls(2, args.documents, 2), 1, mode)
        for number, clients in enumerate(args.clients):
            count = args.requests if clients > 1 else max(args.requests // 4, 8)
            say(f"{clients} clients, {count} requests of {args.documents} documents")
            answers, seconds = in_turn(server, calls(count, args.documents, 3 + number), clients, mode)
            row = {"what": f"{clients} client{'s' if clients > 1 else ''}", "clients": clients,
                   "pairs_per_s": sum(a.results for a in answers) / seconds}
            row["of_offline"] = row["pairs_per_s"] / offline
            for name, values in (("request", [a.seconds for a in answers]), ("first", [a.first for a in answers])):
                for q in (50, 95, 99):
                    row[f"{name}_p{q}"] = quantile(values, q / 100)
            rows.append(row)
    return rows


def measure_overload(args, mode):
    """Open loop: a request goes out when it is due, whatever became of those before."""
    with Server(args, "--max-queued-pairs", 2 * args.documents) as server:
        answers, seconds = in_turn(server, calls(12, args.documents, 90), 1, mode)
        alone = quantile([a.seconds for a in answers], 0.99)
        capacity = len(answers) / seconds
        rate = 8 * capacity
        bodies = calls(int(rate * args.overload_seconds), args.documents, 91)
        say(f"overload: {rate:.1f} requests/s for {args.overload_seconds:.0f} s")
        taken, lock = [], threading.Lock()

        def one(body):
            try:
                answer = ask(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600), body, mode)
            except OSError:
                answer = Answer(0, 0, None, 0)
            with lock:
                taken.append(answer)

        threads, begin = [], time.perf_counter()
        for number, body in enumerate(bodies):
            time.sleep(max(0, begin + number / rate - time.perf_counter()))
            threads.append(threading.Thread(target=one, args=(body,)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        by_status = collections.Counter(a.status for a in taken)
        accepted = [a.seconds for a in taken if a.status == 200]
        refused = [a.seconds for a in taken if a.status == 429]
        return {"alone_p99": alone, "capacity": capacity, "offered": rate, "accepted": len(accepted) / seconds,
                "accepted_p50": quantile(accepted, 0.5), "accepted_p99": quantile(accepted, 0.99),
                "refused_p99": quantile(refused, 0.99), "by_status": dict(by_status)}


def measure_soak(args, mode):
    """[(minute, resident MB, requests)] each ten seconds."""
    rows, stop, counts = [], threading.Event(), collections.Counter()
    with Server(args) as server:
        numbers = itertools.count()

        def work(seed):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
            draw = random.Random(seed)
            while not stop.is_set():
                kind = draw.random()
                body = calls(1, draw.randint(1, args.documents), 1000 + next(numbers))[0]
                if kind < 0.1:
                    body["documents"] = 7
                answer = ask(connection, body, mode, give_up=kind > 0.9)
                counts[answer.status] += 1

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        begin = time.perf_counter()
        while time.perf_counter() - begin < args.soak_minutes * 60:
            time.sleep(10)
            rows.append(((time.perf_counter() - begin) / 60, server.resident_mb(), sum(counts.values())))
            say(f"soak: {rows[-1][0]:.1f} min, {rows[-1][1]:.0f} MB, {rows[-1][2]} requests")
        stop.set()
        for thread in threads:
            thread.join()
        waiting = server.metric("erank_queued_pairs")
    return {"rows": rows, "by_status": dict(counts), "queued_at_end": waiting}


# --- beside others ----------------------------------------------------------------------------------------------------
class ErankPeer:
    name, texts = "erank serve", "documents"

    def __init__(self, args, model, threads):
        own = argparse.Namespace(erank=args.erank, model=["--model", str(model.hugging_face())])
        self.server = Server(own, "--threads", threads, "--precision", "bf16" if multiplies_bf16() else "fp32",
                             "--max-queued-pairs", 1 << 20)
        self.port, self.more = self.server.port, {"mode": "direct"}

    def read(self, reply, text):
        return len(text["results"]), text["usage"]["prompt_tokens"]

    def close(self):
        self.server.__exit__()


class OtherPeer:
    """A server of another program, which says that it is ready in its own way."""
    more = {}

    def start(self, command, is_ready):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)
        for _ in range(6000):
            self.log.seek(0)
            text = self.log.read()
            if self.process.poll() is not None:
                raise Unavailable(f"{self.name} does not start: {' / '.join(text.strip().splitlines()[-3:])[-400:]}")
            if is_ready(text):
                return
            time.sleep(0.05)
        raise Unavailable(f"{self.name} does not start within five minutes")

    def close(self):
        self.process.terminate()
        self.process.wait()


class LlamaPeer(OtherPeer):
    name, texts = "llama-server /rerank", "documents"

    def __init__(self, installed, model, threads):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        slots, context = 8, 512
        self.start([installed.llama("llama-server"), "-m", model.gguf("rank"), "--rerank", "--host", "127.0.0.1",
                    "--port", self.port, "-np", slots, "-c", slots * context, "-b", 2048, "-ub", 2048, "-t", threads,
                    "-tb", threads, "-fa", "on", "--cache-ram", 0, "--no-webui"], lambda _: is_healthy(self.port))

    def read(self, reply, text):
        return len(text["results"]), text["usage"]["prompt_tokens"]


class TransformersPeer(OtherPeer):
    name, texts = "transformers, TEI's shape", "texts"

    def __init__(self, installed, model, threads):
        self.start([installed.python("transformers"), ROOT / "bench/serve_transformers.py", model.hugging_face(),
                    "bf16" if multiplies_bf16() else "fp32", threads], self.said_port)

    def said_port(self, text):
        found = re.search(r"^(\d+)$", text, re.M)
        self.port = found and int(found[1])
        return self.port

    def read(self, reply, text):
        return len(text), int(reply.headers["x-compute-tokens"])


def measure_peers(args):
    installed = Installed(args.erank)
    model, threads = Model(installed, "qwen3-0.6b"), len(os.sched_getaffinity(0))
    rows, notes = [], []
    for kind in (ErankPeer, LlamaPeer, TransformersPeer):
        try:
            peer = kind(args if kind is ErankPeer else installed, model, threads)
        except Unavailable as reason:
            say(f"{kind.name} was not measured: {reason}")
            notes.append(f"{kind.name} was not measured: {reason}".replace(str(installed.cache), "the cache folder"))
            continue
        try:
            for number, clients in enumerate(args.clients):
                count = args.requests if clients > 1 else max(args.requests // 4, 2)
                say(f"{kind.name}: {clients} clients, {count} requests of {args.documents} documents")
                rows.append({"what": kind.name, "clients": clients, **load_peer(peer, args, clients, count, 200 + number)})
        finally:
            peer.close()
    return {"rows": rows, "notes": notes}


def load_peer(peer, args, clients, count, seed):
    left, lock, times, tokens, faults = iter(calls(count, args.documents, seed)), threading.Lock(), [], [], []

    def work():
        connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=600)
        while not faults:
            with lock:
                body = next(left, None)
            if body is None:
                return
            call = {"query": body["query"], peer.texts: body["documents"], **peer.more}
            begin = time.perf_counter()
            connection.request("POST", "/rerank", json.dumps(call), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
            seconds = time.perf_counter() - begin
            results, read = peer.read(reply, json.loads(text)) if reply.status == 200 else (0, 0)
            with lock:
                times.append(seconds)
                tokens.append(read)
                if results != args.documents:
                    faults.append(f"{reply.status} with {results} results: {text[:200]!r}")

    seconds = in_threads(clients, work)
    if faults or len(times) != count:
        raise SystemExit(f"serve_load: {peer.name} did not answer every request: {faults[:1]}")
    return {"pairs_per_s": count * args.documents / seconds, "tokens_per_pair": sum(tokens) / (count * args.documents),
            **{f"request_p{q}": quantile(times, q / 100) for q in (50, 95, 99)}}


def number(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def tables(found):
    out = []
    if "load" in found:
        rows = [["", "pairs/s", "of offline", "request p50", "p95", "p99", "first document p50", "p95", "p99"]]
        for r in found["load"]:
            rows.append([r["what"], number(r["pairs_per_s"], 1), number(r.get("of_offline"))] +
                        [number(r.get(f"{name}_p{q}")) for name in ("request", "first") for q in (50, 95, 99)])
        out.append(rows)
    if "overload" in found:
        o = found["overload"]
        out.append([["overload", "requests/s", "p50", "p99"],
                    ["one after another", number(o["capacity"]), "", number(o["alone_p99"])],
                    ["offered", number(o["offered"]), "", ""],
                    ["accepted", number(o["accepted"]), number(o["accepted_p50"]), number(o["accepted_p99"])],
                    ["refused (429)", "", "", number(o["refused_p99"], 3)]])
    if "peers" in found:
        out.append([["server", "clients", "pairs/s", "tokens/pair", "request p50", "p95", "p99"]] +
                   [[r["what"], str(r["clients"]), number(r["pairs_per_s"]), number(r["tokens_per_pair"], 0)] +
                    [number(r[f"request_p{q}"]) for q in (50, 95, 99)] for r in found["peers"]["rows"]])
    if "soak" in found:
        rows = found["soak"]["rows"]
        chosen = [rows[i * (len(rows) - 1) // 4] for i in range(5)] if len(rows) > 4 else rows
        out.append([["soak, minutes", "resident MB", "requests"]] +
                   [[number(m, 1), number(mb, 0), str(n)] for m, mb, n in chosen])
    return out


def main():
    parser = argparse.ArgumentParser(usage=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erank", default=str(ROOT / "build/erank"))
    parser.add_argument("--model", default="")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--think", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--overload-seconds", type=float, default=30)
    parser.add_argument("--soak-minutes", type=float, default=0)
    parser.add_argument("--out")
    parser.add_argument("--update-docs", action="store_true")
    args = parser.parse_args()
    args.model = ["--model", args.model] if args.model else []
    args.clients = [int(n) for n in args.clients.split(",")]
    mode = {"mode": "think" if args.think else "direct"}
    found = {"machine": machine_facts()}
    if args.only in ("", "load"):
        found["load"] = measure_load(args, mode)
    if args.only in ("", "overload"):
        found["overload"] = measure_overload(args, mode)
    if args.only == "peers":
        found["peers"] = measure_peers(args)
    if args.soak_minutes > 0:
        found["soak"] = measure_soak(args, mode)
    facts = found["machine"]
    print(f"{facts['command']}: {facts['processor']}, {os.cpu_count()} threads, {facts['memory_gb']} GB; {facts['date']}, "
          f"commit {facts['commit']}")
    for rows in tables(found):
        print("\n" + aligned(rows))
    notes = found.get("peers", {}).get("notes", [])
    for note in notes:
        print(note)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    if args.update_docs:
        line = f"`{facts['command']}`: {facts['processor']}, {os.cpu_count()} threads, {facts['date']}."
        text = "\n\n".join([line] + [markdown(rows) for rows in tables(found)] + notes)
        update_docs(ROOT / "docs/performance.md", f"\n{text}\n", PEERS_MARK if args.only == "peers" else MARK)


if __name__ == "__main__":
    main()
