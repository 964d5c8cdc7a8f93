"""How far two orders of the same rows differ: Spearman's rank correlation with its interval."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.stats import spearmanr

from qaq.host.errors import DataError
from qaq.scoring.metrics import METRICS, FloatArray

NORMAL_95 = 1.959964
MIN_ROWS = 4


@dataclass(frozen=True)
class Agreement:
    """`spearman` over `rows` rows that both sides could score, and its 95% interval."""

    rows: int
    spearman: float
    low: float
    high: float


def agreement(metric_one: str, one: pa.Table, metric_two: str, two: pa.Table) -> Agreement:
    """Compare two metrics of score tables, row for row by `row_id`.

    The interval is Fisher's, with the standard error sqrt((1 + r²/2) / (n - 3)) of Bonett and
    Wright (2000) for rank correlations.

    Raises:
        DataError: fewer than four rows have both values, or all values of a side are equal.
    """
    left, right = values(metric_one, one), values(metric_two, two)
    shared = [i for i in left if i in right and math.isfinite(left[i] + right[i])]
    x = np.array([left[i] for i in shared])
    y = np.array([right[i] for i in shared])
    if len(shared) < MIN_ROWS or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise DataError(
            f"{metric_one} and {metric_two} have {len(shared)} rows in common; an order needs at "
            f"least {MIN_ROWS} rows and more than one value on each side"
        )
    r = float(spearmanr(x, y).statistic)
    z = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, r)))
    width = NORMAL_95 * math.sqrt((1 + r * r / 2) / (len(shared) - 3))
    return Agreement(len(shared), r, math.tanh(z - width), math.tanh(z + width))


def values(metric: str, table: pa.Table) -> dict[str, float]:
    """A metric's value by row id; rows without a score are NaN."""
    columns = {
        name: table[name].to_numpy(zero_copy_only=False)
        for name in table.column_names
        if name.startswith(("nll_", "tokens_"))
    }
    found: FloatArray = METRICS[metric](columns)
    return dict(zip(table["row_id"].to_pylist(), found.tolist(), strict=True))
