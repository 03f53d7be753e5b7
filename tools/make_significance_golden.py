#!/usr/bin/env python3
"""Makes tests/golden/significance.json: paired tests by ranx, for tests/eval/statistics_test.cpp.

  python3 tools/make_significance_golden.py     in an environment with ranx 0.3.21 and scipy
"""
import json
import pathlib

import numpy as np
from ranx.statistical_tests import fisher_randomization_test, paired_student_t_test

DRAWS = 200_000

random = np.random.default_rng(20)
cases = []
for n, gain in ((20, 0.0), (20, 0.08), (50, 0.05), (300, 0.012)):
    first = np.round(random.uniform(size=n), 4)
    second = np.round(np.clip(first + random.normal(gain, 0.15, size=n), 0, 1), 4)
    fisher, _ = fisher_randomization_test(first, second, n_permutations=DRAWS, max_p=0.01)
    student, _ = paired_student_t_test(first, second)
    cases.append(
        {"first": first.tolist(), "second": second.tolist(), "fisher": float(fisher), "student": float(student)}
    )
path = pathlib.Path(__file__).parent.parent / "tests/golden/significance.json"
path.write_text(json.dumps({"ranx": "0.3.21", "draws": DRAWS, "cases": cases}) + "\n")
