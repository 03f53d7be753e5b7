#!/usr/bin/env python3
"""Checks the demo collection in examples/demo and prints a summary.

Run by hand after editing the collection: tools/check_demo.py [FOLDER]
Exit code 0 when every check holds, 1 otherwise (each problem on its own line on stderr).
Needs nothing but the standard library.
"""

import collections
import itertools
import json
import pathlib
import re
import sys
import unicodedata

MIN_PASSAGES = 220
MIN_TOPICS = 22
MIN_QUERIES = 30
PASSAGE_WORDS = (40, 90)
SHINGLE_WORDS = 3
MAX_JACCARD = 0.10  # unrelated passages of one topic share well under 5 % of their shingles
MIN_RELEVANT = 2  # passages per query with grade 2 or 3
GRADES = (0, 1, 2, 3)
ID = re.compile(r"^[a-z]+-q?[0-9]+$")


def read_jsonl(path, fields, problems):
    """The file's records by id; every record must hold exactly `fields`, all non-empty strings."""
    records = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = f"{path.name}:{number}"
        record = json.loads(line)
        if sorted(record) != sorted(fields):
            problems.append(f"{where}: fields {sorted(record)}, expected {sorted(fields)}")
            continue
        for name in fields:
            check_text(f"{where} {name}", record[name], problems)
        if not ID.match(record["_id"]):
            problems.append(f"{where}: id '{record['_id']}' is not topic-number")
        if record["_id"] in records:
            problems.append(f"{where}: id '{record['_id']}' appears twice")
        records[record["_id"]] = record
    return records


def check_text(where, text, problems):
    if not isinstance(text, str) or not text.strip():
        problems.append(f"{where}: empty or not a string")
        return
    if text != unicodedata.normalize("NFC", text):
        problems.append(f"{where}: not in Unicode normal form C")
    if text != text.strip() or "  " in text:
        problems.append(f"{where}: stray spaces")
    for char in sorted(set(text)):
        if unicodedata.category(char)[0] == "C" or char == "\ufffd":
            problems.append(f"{where}: character U+{ord(char):04X} does not belong in prose")


def read_qrels(path, queries, passages, problems):
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines[0].split("\t") != ["query-id", "corpus-id", "score"]:
        problems.append(f"{path.name}:1: header is '{lines[0]}'")
    judged = collections.defaultdict(dict)
    for number, line in enumerate(lines[1:], 2):
        where = f"{path.name}:{number}"
        cells = line.split("\t")
        if len(cells) != 3 or cells[2] not in map(str, GRADES):
            problems.append(f"{where}: expected query, passage and a grade of {GRADES}: '{line}'")
            continue
        query, passage, grade = cells[0], cells[1], int(cells[2])
        if query not in queries:
            problems.append(f"{where}: no query '{query}'")
        if passage not in passages:
            problems.append(f"{where}: no passage '{passage}'")
        if passage in judged[query]:
            problems.append(f"{where}: '{query}' and '{passage}' are judged twice")
        judged[query][passage] = grade
    for query in queries:
        relevant = sum(grade >= 2 for grade in judged[query].values())
        if relevant < MIN_RELEVANT:
            problems.append(f"{path.name}: query '{query}' has {relevant} passages of grade 2 or 3")
        if 3 not in judged[query].values():
            problems.append(f"{path.name}: query '{query}' has no passage of grade 3")
        if 0 not in judged[query].values():
            problems.append(f"{path.name}: query '{query}' has no judged near-miss")
    return judged


def shingles(text):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)}


def closest_pair(passages, problems):
    sets = {key: shingles(record["text"]) for key, record in passages.items()}
    closest = (0.0, "", "")
    for a, b in itertools.combinations(sets, 2):
        shared = len(sets[a] & sets[b])
        jaccard = shared / (len(sets[a]) + len(sets[b]) - shared)
        closest = max(closest, (jaccard, a, b))
        if jaccard > MAX_JACCARD:
            problems.append(f"corpus.jsonl: '{a}' and '{b}' share {jaccard:.0%} of their shingles")
    return closest


def main():
    default = pathlib.Path(__file__).resolve().parent.parent / "examples" / "demo"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    problems = []
    passages = read_jsonl(folder / "corpus.jsonl", ("_id", "title", "text"), problems)
    queries = read_jsonl(folder / "queries.jsonl", ("_id", "text"), problems)
    judged = read_qrels(folder / "qrels" / "test.tsv", queries, passages, problems)

    topics = collections.Counter(key.split("-")[0] for key in passages)
    words = [len(record["text"].split()) for record in passages.values()]
    for what, count, least in (
        ("passages", len(passages), MIN_PASSAGES),
        ("topics", len(topics), MIN_TOPICS),
        ("queries", len(queries), MIN_QUERIES),
    ):
        if count < least:
            problems.append(f"{count} {what}, expected at least {least}")
    for key, count in zip(passages, words):
        if not PASSAGE_WORDS[0] <= count <= PASSAGE_WORDS[1]:
            problems.append(f"corpus.jsonl: '{key}' has {count} words, expected {PASSAGE_WORDS}")
    for field in ("title", "text"):
        repeated = collections.Counter(record[field].lower() for record in passages.values())
        problems += [f"corpus.jsonl: {field} repeated: {t}" for t, n in repeated.items() if n > 1]
    jaccard, first, second = closest_pair(passages, problems)

    grades = collections.Counter(g for row in judged.values() for g in row.values())
    query_words = [len(record["text"].split()) for record in queries.values()]
    print(f"passages  {len(passages)} on {len(topics)} topics, {min(words)} to {max(words)} words,"
          f" mean {sum(words) / len(words):.1f}")
    print(f"queries   {len(queries)}, {min(query_words)} to {max(query_words)} words,"
          f" mean {sum(query_words) / len(query_words):.1f}")
    print("judgements " + ", ".join(f"grade {g}: {grades[g]}" for g in sorted(grades, reverse=True)))
    print(f"closest   {first} and {second} share {jaccard:.1%} of their {SHINGLE_WORDS}-word shingles")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
