#!/usr/bin/env python3
"""Writes the training pairs of models/erank-135m: queries, candidates, scores by teachers, reasoning by rule.

tools/label_pairs.py DATA OUT [--teachers minilm nomic] [--scale F] [--seed S]

DATA is a folder of tools/lay_out_data.py; what it needs of the train splits alone is read. OUT gets a file for each stage
of the training, order.jsonl, thoughts.jsonl and scores.jsonl: the same pairs in the lines that `erank train sft --data`
reads (docs/formats.md). The recipe, with its figures in docs/training.md:

  queries     those of the train splits; titles of training documents, sentences of them, and sentences without their
              stop words and some of the others (keywords)
  documents   of BM25's first 10 ranks, 11-100, 101-1000, and random ones: KINDS says how many; of a query of the train
              splits judged ones first
  score       the mean of the teachers' cosines (all-MiniLM-L6-v2, nomic-embed-text-v1.5) and the set's weight of BM25's
              score, that of the query's best document being 1; each first divided by its deviation. Put on the scale by
              lines through three means: of documents that BM25 does not find at 0, of dl21's grade 0 at 5, of its grade
              3 at 8.5
  judged      half the judgement's own score, half the teachers'
  taught      of a query's documents groups of 5 whose scores are spread most evenly
  form        the queries and the texts of a group are as written, or in lower case, or bare words (FORMS): collections
              are written in all of these. All-caps text is lower-cased by the model (erank.json)
  text        its first 100 words: a model that reads 96 tokens sees no more of it
  place       so much of a score is what the document's place among these 5 is worth (STAGES, PLACES). With 1 every group
              has the same five scores: then nothing can be learned but what tells its documents apart, while with scores
              as they come a model is busy for long with how many bad documents a step happens to hold
  soft target a normal distribution around the score, of standard deviation 1
  thought     for some of the pairs (STAGES): what the query asks, what of it stands in the passage, what is missing, the
              verdict
"""
import argparse
import functools
import hashlib
import json
import pathlib
import random
import re
import subprocess
import sys

import numpy

import fetch_teachers
import teachers
from rule_thoughts import STOP_WORDS, thought_of

# How many queries of each kind. bm25: its weight beside the teachers. judged: the score of each grade.
SETS = {
    "marco": {"queries": 2220, "titles": 0, "sentences": 2500, "keywords": 2000, "bm25": 0.2,
              "judged": {0: 1, 1: 4, 2: 7, 3: 9.5}},
    "nfcorpus": {"queries": 2590, "titles": 1800, "sentences": 2500, "keywords": 2500, "bm25": 0.35,
                 "judged": {0: 1, 1: 7.5, 2: 9}},
    "scifact": {"queries": 809, "titles": 2500, "sentences": 3000, "keywords": 3500, "bm25": 0.4,
                "judged": {0: 1, 1: 9}},
}
# Of a query: at most so many judged documents, so many of BM25's ranks 1-10, 11-100, 101-1000, at random; and so many
# groups are taught.
KINDS = {
    "queries": ((12, 8, 15, 3, 2), 4),
    "titles": ((0, 8, 10, 1, 1), 2),
    "sentences": ((0, 5, 6, 1, 1), 1),
    "keywords": ((0, 5, 6, 1, 1), 1),
}
RANKS = ((0, 10), (10, 100), (100, 1000))
GRADED = "marco"  # grades 0 to 3: what the scale is laid on
ANCHOR_SCORES = (0, 5, 8.5)
PLACES = (9.5, 6.5, 4, 2, 0.5)  # what a place among the taught documents of a query is worth
GROUP = len(PLACES)
STAGES = {"order": (1, 0), "thoughts": (0.5, 0.5), "scores": (0, 0.15)}  # place's part of a score, pairs with a thought
# How often the queries of a group, and its texts, are as written, in lower case, bare words.
FORMS = {"query": (0.55, 0.3, 0.15), "text": (0.6, 0.15, 0.25)}
MAX_WORDS = 100


def read_jsonl(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(path):
    qrels = {}
    with open(path, encoding="utf-8") as file:
        for qid, docid, grade in list(map(str.split, file))[1:]:
            qrels.setdefault(qid, {})[docid] = int(grade)
    return qrels


def text_of(document):
    return (document["title"] + " " + document["text"]).strip()


def sentences_of(text):
    return [s for s in re.split(r"(?<=[.?!])\s+", text) if 6 <= len(s.split()) <= 25]


def keywords_of(sentence, dice):
    words = [w for w in re.findall(r"[^\W_]+", sentence) if w.lower() not in STOP_WORDS]
    count = min(len(words), dice.randint(3, 9))
    return " ".join(words[i] for i in sorted(dice.sample(range(len(words)), count)))


def choose_queries(folder, recipe, documents, qrels, scale, dice):
    """{qid: (kind, text)} and {qid: the document it was made of}."""
    queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl") if q["_id"] in qrels or folder.name == GRADED}
    graded = [q for q in queries if is_graded(folder.name, qrels.get(q, {}))]
    rest = sorted(set(queries) - set(graded))
    count = max(0, round(recipe["queries"] * scale) - len(graded))
    chosen = {q: ("queries", queries[q]) for q in graded + dice.sample(rest, min(count, len(rest)))}
    origin = {}
    for kind in ("titles", "sentences", "keywords"):
        number, made = round(recipe[kind] * scale), 0
        shuffled = dice.sample(sorted(documents), len(documents))
        for i in range(3 * len(shuffled)):  # a document may give up to three
            docid = shuffled[i % len(shuffled)]
            texts = [documents[docid]["title"]] if kind == "titles" else sentences_of(documents[docid]["text"])
            if made >= number or (kind == "titles" and i >= len(shuffled)):
                break
            if not texts or not texts[0]:
                continue
            text = dice.choice(texts)
            if kind == "keywords":
                text = keywords_of(text, dice)
            if not text:
                continue
            qid = f"{kind}-{docid}-{i // len(shuffled)}"
            chosen[qid], origin[qid] = (kind, text), docid
            made += 1
    return chosen, origin


def is_graded(name, judged):
    return name == GRADED and len(judged) > 20 and max(judged.values()) > 0


def retrieve(args, folder, queries):
    """{qid: {docid: BM25's score}}, up to 1,000 a query, best first."""
    work = folder / "label"
    work.mkdir(exist_ok=True)
    with open(work / "queries.jsonl", "w", encoding="utf-8") as file:
        for qid, (_, text) in queries.items():
            file.write(json.dumps({"_id": qid, "text": text}) + "\n")
    for command in ([args.erank, "index", "--corpus", folder / "corpus.jsonl", "--out", work / "corpus.bm25"],
                    [args.erank, "retrieve", "--index", work / "corpus.bm25", "--queries", work / "queries.jsonl",
                     "--top", "1000", "--out", work / "bm25.run"]):
        subprocess.run([*map(str, command), "--overwrite"], check=True)
    run = {}
    with open(work / "bm25.run", encoding="utf-8") as file:
        for line in file:
            qid, _, docid, _, score, _ = line.split()
            run.setdefault(qid, {})[docid] = float(score)
    return run


def choose_documents(ranked, judged, everything, counts, dice):
    """counts: as in KINDS. What the ranks do not have is made up at random."""
    chosen = dict.fromkeys(dice.sample(sorted(judged), min(len(judged), counts[0])))
    for (begin, end), count in zip(RANKS, counts[1:]):
        pool = [d for d in ranked[begin:end] if d not in chosen]
        chosen.update(dict.fromkeys(dice.sample(pool, min(len(pool), count))))
    number = sum(counts[1:])
    while len(chosen) < min(number, len(everything)):
        chosen[dice.choice(everything)] = None
    return list(chosen)


def cached(args, name, texts, queries):
    """{text: what the teacher makes of it}; kept beside the pairs, so that labelling again is quick."""
    texts = sorted(set(texts))
    key = hashlib.sha256("\0".join([name, str(queries), *texts]).encode()).hexdigest()[:16]
    path = args.out / f"{name}-{key}.npy"
    if not path.exists():
        numpy.save(path, teachers.embed(name, args.folder, texts, queries))
    return dict(zip(texts, numpy.load(path)))


def spread_evenly(pairs, number):
    """`number` pairs nearest to values that stand at equal distances from the least score to the greatest."""
    rest = sorted(pairs, key=lambda p: p["score"])
    kept = []
    for value in numpy.linspace(rest[-1]["score"], rest[0]["score"], number):
        kept.append(min(rest, key=lambda p: abs(p["score"] - value)))
        rest.remove(kept[-1])
    return kept


@functools.cache
def distribution_around(score):
    p = numpy.exp(-0.5 * (numpy.arange(11) - score) ** 2)
    p[p / p.sum() < 1e-3] = 0
    return [round(float(x), 4) for x in p / p.sum()]


def bare(text):
    return " ".join(re.findall(r"[^\W\d_]+", text.lower())) or text


def in_a_form(kind, dice):
    return dice.choices((str, str.lower, bare), FORMS[kind])[0]


def take_scores(pairs, of_query, of_text, args):
    """Writes pair["score"]."""
    rows = [numpy.array([of_query[n][p["query"]] @ of_text[n][p["whole"]] for p in pairs]) for n in args.teachers]
    rows.append(numpy.array([p["bm25"] for p in pairs]))
    weights = [1 / len(args.teachers)] * len(args.teachers) + [numpy.array([SETS[p["set"]]["bm25"] for p in pairs])]
    latent = sum(w * (x - x.mean()) / x.std() for w, x in zip(weights, rows))

    def mean_of(kind):
        return float(numpy.mean([x for x, p in zip(latent, pairs) if kind(p)]))
    anchors = [mean_of(lambda p: p["bm25"] == 0 and p["judged"] is None), mean_of(lambda p: p["grade"] == 0),
               mean_of(lambda p: p["grade"] == 3)]
    slopes = [(at - before) / (x - y) for x, y, at, before in
              zip(anchors[1:], anchors, ANCHOR_SCORES[1:], ANCHOR_SCORES)]
    scores = numpy.where(latent < anchors[1], ANCHOR_SCORES[1] + slopes[0] * (latent - anchors[1]),
                         ANCHOR_SCORES[1] + slopes[1] * (latent - anchors[1])).clip(0, 10)
    print(f"teachers' value of a random document, of grade 0, of grade 3: {numpy.round(anchors, 3).tolist()}, "
          f"put to {ANCHOR_SCORES}")
    for pair, score in zip(pairs, scores):
        pair["score"] = float(score if pair["judged"] is None else (score + pair["judged"]) / 2)


def write_stage(stage, taught, args):
    """taught: of a group its pairs by falling score, one group behind another."""
    place, thoughts = STAGES[stage]
    dice = random.Random(args.seed)
    path = args.out / f"{stage}.jsonl"
    counts = [0] * 11
    with open(path.with_suffix(".part"), "w", encoding="utf-8") as file:
        for i, pair in enumerate(taught):
            score = place * PLACES[i % GROUP] + (1 - place) * pair["score"]
            integer = int(score + 0.5)
            counts[integer] += 1
            line = pair | {"score": integer, "distribution": distribution_around(score)}
            if dice.random() < thoughts:
                line["thought"] = thought_of(pair["query"], pair["text"], integer)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    path.with_suffix(".part").rename(path)
    print(f"{path}: {len(taught)} pairs, of the scores 0 to 10: {counts}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--erank", default="build/erank")
    parser.add_argument("--folder", type=pathlib.Path, default=fetch_teachers.default_folder(),
                        help="of tools/fetch_teachers.py")
    parser.add_argument("--teachers", nargs="+", choices=teachers.TEACHERS, default=["minilm", "nomic"])
    parser.add_argument("--scale", type=float, default=1, help="times as many queries")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    dice = random.Random(args.seed)

    pairs, whole_texts = [], set()
    for name, recipe in SETS.items():
        folder = args.data / name
        documents = {d["_id"]: d for d in read_jsonl(folder / "corpus.jsonl")}
        whole = {docid: text_of(d) for docid, d in documents.items()}
        whole_texts.update(whole.values())
        everything = sorted(documents)
        qrels = read_qrels(folder / "qrels/train.tsv")
        queries, origin = choose_queries(folder, recipe, documents, qrels, args.scale, dice)
        run = retrieve(args, folder, queries)
        before = len(pairs)
        for qid, (kind, query) in queries.items():
            hits = run.get(qid, {})
            ranked = [d for d in hits if d != origin.get(qid) or dice.random() < 0.5]
            judged = {d: recipe["judged"][max(0, g)] for d, g in qrels.get(qid, {}).items() if d in documents}
            graded = is_graded(name, qrels.get(qid, {}))
            best = max(hits.values(), default=1)
            counts, groups = KINDS[kind]
            if graded:
                counts, groups = (24, *counts[1:]), 2 * groups
            for docid in choose_documents(ranked, judged, everything, counts, dice):
                pairs.append({"set": name, "qid": f"{name}-{qid}", "docid": docid, "query": query, "whole": whole[docid],
                              "bm25": hits.get(docid, 0) / best, "judged": judged.get(docid), "groups": groups,
                              "grade": qrels[qid].get(docid) if graded else None})
        print(f"{name}: {len(queries)} queries, {len(pairs) - before} pairs", flush=True)

    of_query = {name: cached(args, name, [p["query"] for p in pairs], True) for name in args.teachers}
    of_text = {name: cached(args, name, whole_texts, False) for name in args.teachers}
    take_scores(pairs, of_query, of_text, args)

    by_query = {}
    for pair in pairs:
        by_query.setdefault(pair["qid"], []).append(pair)
    taught = []
    for few in by_query.values():
        groups = min(few[0]["groups"], len(few) // GROUP)
        kept = spread_evenly(few, groups * GROUP)
        for i in range(groups):
            query_form, text_form = in_a_form("query", dice), in_a_form("text", dice)
            for pair in kept[i::groups]:
                # Scores in steps of 0.05: few different distributions, and files that pack well.
                taught.append({"qid": f"{pair['qid']}.{i}", "docid": pair["docid"], "query": query_form(pair["query"]),
                               "text": text_form(" ".join(pair["whole"].split(" ")[:MAX_WORDS])),
                               "score": round(pair["score"] * 20) / 20})
    for stage in STAGES:
        write_stage(stage, taught, args)


if __name__ == "__main__":
    sys.exit(main())
