"""Evaluates cases with ir_measures: JSON on stdin, [{measure: {qid: value}}] on stdout."""
import json
import sys

import ir_measures

out = []
for case in json.load(sys.stdin):
    values = {}
    for name in case["measures"]:
        measure = ir_measures.parse_measure(name)
        values[name] = {m.query_id: m.value for m in ir_measures.iter_calc([measure], case["qrels"], case["run"])}
    out.append(values)
json.dump(out, sys.stdout)
