"""Evaluates cases with pytrec_eval: JSON on stdin, {case: {qid: {measure: value}}} on stdout."""
import json
import sys

import pytrec_eval

cases = json.load(sys.stdin)
out = []
for case in cases:
    evaluator = pytrec_eval.RelevanceEvaluator(
        case["qrels"],
        set(case["measures"]),
        relevance_level=case["relevance_level"],
        judged_docs_only_flag=case["judged_only"],
    )
    values = evaluator.evaluate(case["run"])
    # JSON has no NaN: what trec_eval gets by 0/0 becomes null.
    out.append({q: {m: v if v == v else None for m, v in row.items()} for q, row in values.items()})
json.dump(out, sys.stdout)
