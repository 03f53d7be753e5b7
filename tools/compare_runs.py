#!/usr/bin/env python3
"""How far two rankings of the same documents are apart: Kendall's tau (the mean over queries with two
documents or more; pairs that are tied in one run count 0) and the difference of scores.

    tools/compare_runs.py A.trec B.trec
"""
import argparse
import itertools


def read_run(path):
    scores = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            qid, _, docid, _, score, _ = line.split()
            scores.setdefault(qid, {})[docid] = float(score)
    return scores


def sign(x):
    return (x > 0) - (x < 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, metavar="RUN", help="TREC run")
    names = parser.parse_args().runs
    a, b = map(read_run, names)
    if {q: set(docs) for q, docs in a.items()} != {q: set(docs) for q, docs in b.items()}:
        parser.error(f"{names[0]} and {names[1]} rank other queries or documents; make both from one run")
    taus, differences = [], []
    for qid, docs in a.items():
        pairs = list(itertools.combinations(docs, 2))
        agreed = sum(sign(docs[x] - docs[y]) * sign(b[qid][x] - b[qid][y]) for x, y in pairs)
        if pairs:
            taus.append(agreed / len(pairs))
        differences += [abs(score - b[qid][docid]) for docid, score in docs.items()]
    if not taus:
        parser.error(f"{names[0]} has no query with two documents")
    print(f"tau {sum(taus) / len(taus):.4f} over {len(taus)} queries; scores differ by "
          f"{sum(differences) / len(differences):.4f} on average, {max(differences):.4f} at most")


if __name__ == "__main__":
    main()
