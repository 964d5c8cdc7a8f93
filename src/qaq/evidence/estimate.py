"""An estimate with its interval, and the intervals of shares and means. Pure functions.

- A share: Wilson's score interval (`share`, `wilson`).
- The difference of two independent shares: Newcombe's hybrid score interval (`share_difference`),
  and Fisher's exact test (`shares_differ`).
- A mean: Student's interval (`mean`).
"""

import math

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy import stats

CONFIDENCE = 0.95
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Estimate:
    """A value with its 95% interval; `n` is what it is a mean over (tasks, or rows)."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927), of coverage 95%.

    Args:
        successes: number of successes; a sum of per-task shares when there are several seeds. The
            shares lie in [0, 1], so their variance is at most p(1-p) and the interval is then
            conservative.
        n: number of tasks, not of tasks times seeds.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n >= 1")
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The share is inside by definition; rounding must not leave it out (at 0 and n above all).
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def share(count: float, rows: float) -> Estimate | None:
    """A share with Wilson's interval; None of no rows. Both may be means over draws or seeds."""
    n = round(rows)
    if n < 1:
        return None
    value = min(count / rows, 1.0)
    low, high = wilson(value * n, n)
    return Estimate(value=value, low=low, high=high, n=n)


def share_difference(first: Estimate, second: Estimate) -> Estimate:
    """First minus second, of shares of different rows: Newcombe's interval (1998, method 10)."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    n = min(first.n, second.n)
    return Estimate(value=value, low=max(-1.0, value - below), high=min(1.0, value + above), n=n)


def shares_differ(first: Estimate, second: Estimate) -> float:
    """Two-sided p of Fisher's exact test that two shares of different rows are one."""
    hits = [round(part.value * part.n) for part in (first, second)]
    table = [hits, [first.n - hits[0], second.n - hits[1]]]
    return float(stats.fisher_exact(table).pvalue)


def mean(values: npt.ArrayLike) -> Estimate | None:
    """Mean of the finite values with Student's interval; None of fewer than two."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if known.size < 2:
        return None
    error = known.std(ddof=1) / math.sqrt(known.size)
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, known.size - 1) * error)
    value = float(known.mean())
    return Estimate(value=value, low=value - half, high=value + half, n=known.size)
