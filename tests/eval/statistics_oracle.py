"""SciPy's values for the paired tests and intervals: JSON on stdin, a list of objects on stdout."""
import json
import sys

import numpy as np
from scipy import stats

out = []
for case in json.load(sys.stdin):
    a, b = np.array(case["a"]), np.array(case["b"])
    d = b - a
    exact = len(d) <= 12
    test = stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf if exact else 100_000,
        rng=np.random.default_rng(1),
        vectorized=True,
    )
    interval = stats.bootstrap(
        (d,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    out.append(
        {
            "t": stats.ttest_rel(b, a).pvalue,
            "exact": exact,
            "randomization": test.pvalue,
            "low": interval.low,
            "high": interval.high,
        }
    )
tails = [[t, n, 2 * stats.t.sf(abs(t), n)] for t in (0, 0.01, 0.3, 1, 2.5, 9, 40) for n in (1, 2, 3.5, 10, 49, 1000)]
json.dump({"cases": out, "tails": tails}, sys.stdout)
