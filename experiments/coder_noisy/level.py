"""How often the registered test finds something where no rule does anything, if arms vary as here.

    python experiments/coder_noisy/level.py results/coder_noisy

Simulates the means of three runs of six equal arms, each with its own standard deviation between
runs as measured, and tests the six comparisons as the report does: the variance pooled over all
arms, Holm's correction (something is found where the smallest p value is below 0.05 / 6). Prints
the share of experiments that find something; tasks are left out. Made after the results.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

ARMS = ("undamaged", "random", "rmi_band_50_75", "ifd", "diff_high", "diff_high_ifd")
COMPARISONS = ((0, 1), (2, 1), (3, 1), (4, 1), (5, 1), (2, 3))
RUNS, EXPERIMENTS = 3, 100_000

rows = pd.read_parquet(Path(sys.argv[1]) / "per_problem.parquet")
rows = rows[rows["arm"].isin(ARMS)]
rates = (rows["plus_passed"] & rows["base_passed"]).groupby([rows["arm"], rows["seed"]]).mean()
deviations = rates.groupby("arm").std()[list(ARMS)].to_numpy()
for name, each in (("as measured", deviations), ("equal", np.ones(6))):
    draws = np.random.default_rng(0).normal(size=(EXPERIMENTS, len(ARMS), RUNS))
    runs = draws * each[:, None]
    means, pooled = runs.mean(axis=2), runs.var(axis=2, ddof=1).mean(axis=1)
    error = np.sqrt(pooled * 2 / RUNS)
    t = np.stack([(means[:, a] - means[:, b]) / error for a, b in COMPARISONS], axis=1)
    p = 2 * stats.t.sf(np.abs(t), len(ARMS) * (RUNS - 1))
    print(f"{name}: {(p.min(axis=1) < 0.05 / len(COMPARISONS)).mean():.1%}")
