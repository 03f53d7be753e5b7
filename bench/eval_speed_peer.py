"""Reads qrels and a run as pytrec_eval does, evaluates them, and prints one line of JSON."""
import json
import sys
import time

import pytrec_eval

qrels_path, run_path, measures = sys.argv[1:]
begin = time.perf_counter()
with open(qrels_path) as file:
    qrels = pytrec_eval.parse_qrel(file)
with open(run_path) as file:
    run = pytrec_eval.parse_run(file)
read = time.perf_counter()
names = pytrec_eval.supported_nicknames.get(measures) or {measures}
values = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
end = time.perf_counter()
print(
    json.dumps(
        {
            "tool": "pytrec_eval",
            "measures": measures,
            "run_lines": sum(len(hits) for hits in run.values()),
            "read_s": round(read - begin, 3),
            "evaluate_s": round(end - read, 3),
            "total_s": round(end - begin, 3),
        }
    )
)
