#!/usr/bin/env python3
"""Measures erank and its peers on the same prompts, taking turns in one run on this machine (docs/performance.md).

bench/peers.py [--erank PATH] [--data DIR] [--only PART...] [--shape SHAPE...] [--peers NAME...] [--repeats N]
               [--out FILE.json] [--update-docs]

Parts: prefill  prompts of 512 tokens, tokens a second
       decode   32 new tokens after a prompt of 16, for 1, 8 and 64 sequences at once, tokens a second
       direct   --pairs query and passage pairs of TREC DL 2019, the answer read at once, pairs a second; peak memory
       think    64 prompts of 330 tokens, 150 of them common, 64 new tokens each, all at once, pairs a second
       start    the program's start, the model's load and the first answer, seconds

The peers are llama.cpp (BF16, Q8_0, Q4_0), transformers (sdpa, eager) and OpenVINO (int8), as tools/peers installs
them; one that is missing, or fails, is named with the reason and the rest runs. --data (else $ERANK_SHARED_DATA) is
the folder that tools/lay_out_data.py reads; without it `direct` is left out. Tables go to stdout, progress to stderr,
everything that was measured to --out. --update-docs writes the tables between the marks of docs/performance.md.
"""
import argparse
import http.client
import json
import lzma
import os
import pathlib
import random
import sys
import tempfile
import time

from peers_programs import (ROOT, THINK_OWN, THINK_PREFIX, Erank, Installed, Llama, Model, OpenVino, Transformers,
                            Unavailable, call, multiplies_bf16, say)
from peers_tables import (FIGURES, RATES, agreement, aligned, best_of, details, facts, facts_line, markdown, summary,
                          update_docs)

PARTS = ("prefill", "decode", "direct", "think", "start")
SHAPES = ("smollm2-135m", "qwen3-0.6b")
ALMOST = 0.93  # a setting that reaches this share of the best peer's is repeated too, if it is the second
HOPELESS = 0.5  # below this share of the best peer in prefill and in decode 64, direct and think are left out


class Bench(Installed):
    def __init__(self, args, work):
        super().__init__(args.erank)
        self.args, self.work = args, work
        self.threads = args.threads or len(os.sched_getaffinity(0))
        self.multiplies_bf16 = multiplies_bf16()
        quick = args.quick
        # erank bench has its own 32 and 64 new tokens; --quick shortens those of the peers alone.
        self.prefill_tokens, self.decode_tokens, self.think_tokens = (64, 4, 4) if quick else (512, 32, 64)
        self.prefill_prompts, self.think_pairs = (2, 4) if quick else (8, 64)
        self.slots = [1, 4] if quick else [1, 4, 8]
        self.num_pairs = min(args.pairs, 6) if quick else args.pairs
        self.per_query = min(args.per_query, 3) if quick else args.per_query
        self.trial_pairs = 4 if quick else 40  # to find the best setting; the peers in Python do no more
        self.results, self.notes, self.answers, self.gemm = {}, [], {}, {}
        self.help = {verb: call([self.erank, verb, "--help"])[0] for verb in ("bench", "rerank")}

    def bench_takes(self, word):
        return word in self.help["bench"]

    def precisions(self):
        own = "bf16" if self.multiplies_bf16 else "fp32"
        return [own] + ["int8"] * all("int8" in text for text in self.help.values())

    def num_pairs_of(self, shape):
        return self.num_pairs if shape == "smollm2-135m" else max(2, self.num_pairs // 4)

    def pairs(self, shape):
        """[{qid, query, hits}]: the best --per-query passages of BM25 of as many queries as make --pairs."""
        data = self.args.data
        if data is None:
            raise Unavailable("no collection: give --data DIR or set ERANK_SHARED_DATA")
        path = pathlib.Path(data) / "msmarco-dl/dl19/bm25_top100_with_text.jsonl"
        packed = path.with_name(path.name + ".xz")
        if not path.exists() and not packed.exists():
            raise Unavailable(f"no collection: neither {path} nor {packed} is there")
        rows = []
        with (open(path, encoding="utf-8", newline="\n") if path.exists() else
              lzma.open(packed, "rt", encoding="utf-8", newline="\n")) as file:
            for line in file:
                left = min(self.per_query, self.num_pairs_of(shape) - sum(len(row["hits"]) for row in rows))
                if left <= 0:
                    break
                row = json.loads(line)
                hits = [{key: hit[key] for key in ("docid", "score", "text")} for hit in row["hits"][:left]]
                rows.append({"qid": row["qid"], "query": row["query"], "hits": hits})
        return rows

    def write_candidates(self, name, rows):
        path = self.work / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def think_prompts(self):
        draw = random.Random(1)
        ids = lambda n: [draw.randrange(1000, 40000) for _ in range(n)]  # noqa: E731  (no special token)
        prefix = ids(THINK_PREFIX)
        return [prefix + ids(THINK_OWN) for _ in range(self.think_pairs)]

    def contestants(self, shape):
        model = Model(self, shape)
        found = [Erank(self, model, precision) for precision in self.precisions()]
        for name in self.args.peers:
            try:
                if name == "llama.cpp":
                    self.llama("llama-bench")
                    found += [Llama(self, model, kind) for kind in ("BF16", "Q8_0", "Q4_0")]
                elif name == "transformers":
                    self.python(name)
                    found += [Transformers(self, model, attention) for attention in ("sdpa", "eager")]
                else:
                    self.python(name)
                    found.append(OpenVino(self, model))
            except Unavailable as reason:
                self.note(f"{name} was not measured: {reason}")
        return found

    def note(self, text):
        """Says `text` once, and again below the tables."""
        if text not in self.notes:
            self.notes.append(text)
            say(text)

    def repeats(self, shape, part):
        """One less of the long parts, and one less of a shape after the first."""
        less = (part in ("direct", "think")) + (shape != self.args.shape[0])
        return max(1, self.args.repeats - less)

    def settings(self, shape, part, contestant):
        """What to try: everything, but of a shape after the first only what was best of the first."""
        settings = contestant.settings(part)
        first = self.results.get(self.args.shape[0], {}).get(contestant.name, {})
        if shape == self.args.shape[0]:
            return settings
        if part == "think":  # the longest part: only of those who were best
            kept = {(name, setting.split(",")[0]) for name, setting in self.best_settings(self.args.shape[0], part)}
            return [setting for setting in settings if not kept or (contestant.name, setting.split(",")[0]) in kept]
        best = {row[1] for figure in RATES if FIGURES[figure][0] == part and (row := best_of(first, figure))}
        return [setting for setting in settings if setting in best] or settings

    def estimate(self, shape, part, contestants):
        """Seconds of a part on 2 cores that multiply bf16, for the line that says how long all takes."""
        once = {"prefill": 5, "decode": 10, "direct": 25 * self.num_pairs / 200, "think": 20, "start": 2}[part]
        trial = {"prefill": 5, "decode": 10, "direct": 10, "think": 25, "start": 0}[part]
        slower = 1 if shape == "smollm2-135m" else 1 if part == "direct" else 3.5
        own = sum(len(c.settings(part)) for c in contestants if not c.is_peer)
        if not own:
            return 0
        peers = [c for c in contestants if c.is_peer]
        trials = sum(len(c.settings(part)) for c in peers)
        if shape != self.args.shape[0]:
            trials = min(trials, 3 if part == "think" else len(peers))
        if part in ("direct", "think"):
            trials *= 0.6  # those that are not hopeless
        return 5 * trials if self.args.quick else slower * (trials * trial + self.repeats(shape, part) * (own + 2) * once)

    def run(self):
        plan = [(shape, part, contestants) for shape in self.args.shape for contestants in [self.contestants(shape)]
                for part in PARTS if part in self.args.only]
        total = sum(self.estimate(*row) for row in plan)
        say(f"about {total / 60 + 1:.0f} minutes on 2 idle cores that multiply bf16; this machine's load is "
            f"{os.getloadavg()[0]:.1f}")
        self.begin = time.perf_counter()
        for row in plan:
            self.run_part(*row)

    def run_part(self, shape, part, contestants):
        if part == "direct":
            try:
                self.pairs(shape)
            except Unavailable as reason:
                return self.note(f"direct was not measured: {reason}")
        own = [(c, setting) for c in contestants if not c.is_peer for setting in c.settings(part)]
        asked = [c for c in contestants if c.is_peer]
        if part in ("direct", "think"):
            asked = [c for c in asked if not self.hopeless(shape, c)]
        peers = [(c, setting) for c in asked for setting in self.settings(shape, part, c)]
        for contestant, setting in peers:
            self.step(shape, part, contestant, setting, "trial")
        kept = self.best_settings(shape, part)
        again = [(c, setting) for c, setting in peers if (c.name, setting) in kept]
        for c, setting in again:
            for figure in [f for f in self.values(shape, c.name, setting) if FIGURES[f][0] == part]:
                del self.values(shape, c.name, setting)[figure]
        for repeat in range(self.repeats(shape, part)):
            for contestant, setting in (own + again)[::-1 if repeat % 2 else 1]:
                self.step(shape, part, contestant, setting, f"{repeat + 1} of {self.repeats(shape, part)}")

    def step(self, shape, part, contestant, setting, turn):
        what = f"{shape}, {part}, {contestant.name}" + (f", {setting}" if setting else "")
        say(f"{time.perf_counter() - self.begin:5.0f} s  {what} ({turn})")
        try:
            found = contestant.measure(part, setting, turn == "trial")
        except (Unavailable, KeyError, ValueError, OSError, http.client.HTTPException) as reason:
            why = (str(reason) or repr(reason)).replace(str(self.cache), "the cache folder")
            return self.note(f"{shape}, {part}, {contestant.name}: {why}")
        for figure, value in found.items():
            self.values(shape, contestant.name, setting).setdefault(figure, []).append(value)

    def best_setting(self, contestant, figure):
        found = best_of(self.results.get(contestant.model.shape, {}).get(contestant.name, {}), figure)
        return found[1] if found else None

    def peers_values(self, shape, figure):
        """[(value, name, setting)] of the peers, best first."""
        return sorted(((values[figure][0], name, setting) for name, settings in self.results.get(shape, {}).items()
                       if not name.startswith("erank")
                       for setting, values in settings.items() if values.get(figure)), reverse=True)

    def best_settings(self, shape, part):
        kept = set()
        for figure in RATES:
            if FIGURES[figure][0] == part:
                found = self.peers_values(shape, figure)
                kept.update(row[1:] for row in found[:2] if row[0] >= ALMOST * found[0][0])
        return kept

    def hopeless(self, shape, contestant):
        shares = []
        for figure in ("prefill", "decode_64"):
            found = self.peers_values(shape, figure)
            mine = [row[0] for row in found if row[1] == contestant.name]
            if not mine:
                return False
            shares.append(mine[0] / found[0][0])
        if max(shares) >= HOPELESS:
            return False
        self.note(f"{shape}: {contestant.name} reached {shares[0]:.2f} of the best peer in prefill and "
                  f"{shares[1]:.2f} in decode 64, so its direct and think were not measured")
        return True

    def values(self, shape, name, setting):
        return self.results.setdefault(shape, {}).setdefault(name, {}).setdefault(setting, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--erank", type=pathlib.Path, default=ROOT / "build/erank")
    parser.add_argument("--data", default=os.environ.get("ERANK_SHARED_DATA"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--peers", nargs="*", choices=["llama.cpp", "transformers", "openvino"],
                        default=["llama.cpp", "transformers", "openvino"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="of direct (200)")
    parser.add_argument("--per-query", type=int, default=50, help="passages of a query in direct (50)")
    parser.add_argument("--threads", type=int, default=0, help="compute threads of everybody (one a processor)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("peers.json"))
    parser.add_argument("--quick", action="store_true", help="tiny amounts, to see that all works: figures mean nothing")
    parser.add_argument("--update-docs", nargs="?", type=pathlib.Path, metavar="FILE",
                        const=ROOT / "docs/performance.md")
    args = parser.parse_args()
    if not args.erank.exists():
        sys.exit(f"peers: {args.erank} is not there; run make build, or give --erank PATH")
    if args.update_docs:
        update_docs(args.update_docs, None)
    if args.quick:
        args.repeats = 1
    with tempfile.TemporaryDirectory(prefix="erank-peers-") as work:
        bench = Bench(args, pathlib.Path(work))
        bench.load_before = round(os.getloadavg()[0], 2)
        begin = time.perf_counter()
        try:
            bench.run()
        except KeyboardInterrupt:
            bench.note("interrupted: what follows was measured before")
        except Unavailable as reason:
            sys.exit(f"peers: {reason}")
        what = facts(bench, time.perf_counter() - begin)
    args.out.write_text(json.dumps({"facts": what, "notes": bench.notes, "agreement": agreement(bench),
                                    "results": bench.results}, indent=1) + "\n")
    print(facts_line(what))
    pieces = [facts_line(what) + "."]
    for shape in bench.results:
        rows = summary(bench.results, shape)
        print(f"\n{shape}\n{aligned(rows)}\n\n{details(bench.results, shape)}")
        pieces += [f"`{shape}`:", markdown(rows)]
        starts = [f"{name} {best_of(settings, 'start')[0]:.2f} s"
                  for name, settings in bench.results[shape].items() if best_of(settings, "start")]
        if starts:
            print("\nstart: " + ", ".join(starts))
            pieces.append("Start, the model's load and the first answer: " + ", ".join(starts) + ".")
    for line in agreement(bench):
        print(line)
    for note in bench.notes:
        print(f"note: {note}")
    if bench.notes:
        pieces.append("Not measured:\n" + "\n".join(f"- {note}" for note in bench.notes))
    if args.update_docs:
        update_docs(args.update_docs, "\n\n".join(pieces))
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
