"""How far a score tells damaged rows from clean ones, and how far two scores rank alike.

Pure functions over arrays of one pool, all in the same order of rows. NaN = the row has no score;
it takes no part, and the estimate's `n` says how many did. docs/statistics.md has the formulas.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import integrate, optimize, stats
from scipy.special import expit, log_ndtr, logit, ndtri, owens_t

from qaq.evidence.estimate import CONFIDENCE, Estimate, FloatArray, Mask

PAPER_RMI_IFD = 0.252  # claim 2 of the paper: how far RMI and IFD rank alike
LEAST_ROWS = 4  # the interval of a correlation divides by n - 3
IntArray = npt.NDArray[np.int64]


def area(score: FloatArray, bad: Mask, clean: Mask) -> Estimate | None:
    """AUROC: the chance that a bad row scores above a clean one; `n` counts the bad ones.

    1/2 = the score is blind, near 1 = bad rows lie at the high end, near 0 = at the low end. None
    where a side has no scored row.
    """
    known = ~np.isnan(score)
    up, down = score[bad & known], score[clean & known]
    if not len(up) or not len(down):
        return None
    low, high = auroc_interval(up, down)
    return Estimate(value=auroc(up, down), low=low, high=high, n=len(up))


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """The chance that a positive's score exceeds a negative's; ties count half."""
    up, down = _histograms(positive, negative)
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))


def auroc_interval(positive: FloatArray, negative: FloatArray) -> tuple[float, float]:
    """Student's interval on the logit scale, with DeLong's variance (1988) or a normal model's.

    DeLong's variance rests on how the rows of the smaller group are placed in the other; of few
    rows it is often too small, so that the larger of it and the variance of two unit normals of
    the same area counts. The quantile has as many degrees of freedom as the smaller group.

    Where the groups do not overlap that variance is 0. The end that data bound is then the area at
    which two normals of equal variance would not overlap with the probability left over: 5 rows
    all above 40 others give [0.90, 1], and never [1, 1].
    """
    value, tail = auroc(positive, negative), (1 - CONFIDENCE) / 2
    m, n = len(positive), len(negative)
    if value in (0.0, 1.0):
        bound = _least_area(m, n, tail)
        return (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
    if min(m, n) < 2:
        return 0.0, 1.0
    up, down = _histograms(positive, negative)
    # Placements: the share of the other group that a row of each distinct value is above.
    above = (np.cumsum(down) - down / 2) / n
    below = 1 - (np.cumsum(up) - up / 2) / m
    variance = sum(
        float((count * (place - value) ** 2).sum()) / (size - 1) / size
        for count, place, size in ((up, above, m), (down, below, n))
    )
    variance = max(variance, _normal_variance(value, m, n))
    error = math.sqrt(variance) / (value * (1 - value))
    half = float(stats.t.ppf(1 - tail, min(m, n) - 1)) * error
    return float(expit(logit(value) - half)), float(expit(logit(value) + half))


def _normal_variance(area: float, m: int, n: int) -> float:
    """Variance of the AUROC of samples of m and n from two unit normals of that area."""
    shift = float(ndtri(area))
    # Chance that one row is above two of the other group: two normals with correlation 1/2.
    both = area - 2 * float(owens_t(shift, math.sqrt(1 / 3)))
    return (area * (1 - area) + (m + n - 2) * (both - area**2)) / (m * n)


def _least_area(m: int, n: int, tail: float) -> float:
    """The area of two unit normals whose samples of m and n do not overlap with chance `tail`."""

    def excess(shift: float) -> float:
        def density(x: float) -> float:  # the largest of n lies at x and all m are above it
            largest = math.log(n) + (n - 1) * log_ndtr(x) + stats.norm.logpdf(x)
            return math.exp(largest + m * log_ndtr(shift - x))

        return float(integrate.quad(density, -9, 9 + max(shift, 0), limit=200)[0]) - tail

    return float(stats.norm.cdf(optimize.brentq(excess, -9, 18) / math.sqrt(2)))


def roc(positive: FloatArray, negative: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The curve behind `auroc`: false and true positive rate as the bar falls, from 0 to 1.

    Equal scores make one step, so ties are a slanted line and the area is `auroc`.
    """
    up, down = _histograms(positive, negative)
    true, false = np.cumsum(up[::-1]) / up.sum(), np.cumsum(down[::-1]) / down.sum()
    return np.r_[0.0, false], np.r_[0.0, true]


def _histograms(positive: FloatArray, negative: FloatArray) -> tuple[IntArray, IntArray]:
    """How many of each side have each distinct value, in ascending order."""
    m = len(positive)
    if not m or not len(negative):
        raise ValueError(f"{m} positives, {len(negative)} negatives: need one of each")
    values, places = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    size = len(values)
    return np.bincount(places[:m], minlength=size), np.bincount(places[m:], minlength=size)


def spearman(first: FloatArray, second: FloatArray, *given: FloatArray) -> Estimate | None:
    """Spearman's rank correlation over the rows that have all values; partial where some are given.

    The interval is Bonett and Wright's (2000) on Fisher's scale; a partial correlation has as many
    degrees of freedom less as variables are given (Kendall and Stuart). The partial one is the
    correlation of what is left of each side's ranks after a linear fit on the given ranks.

    Returns:
        None with fewer than four rows (and one more per given variable) or a side that is constant.
    """
    columns = [np.asarray(c, dtype=float) for c in (first, second, *given)]
    known = np.isfinite(np.array(columns)).all(axis=0)
    ranks = [stats.rankdata(c[known]) for c in columns]
    n, free = int(known.sum()), int(known.sum()) - len(given)
    if free < LEAST_ROWS:
        return None
    design = np.column_stack([np.ones(n), *ranks[2:]])
    x, y = (r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2])
    scale = math.sqrt(float(x @ x) * float(y @ y))
    if scale <= 1e-9 * n**3:
        return None
    rho = max(-1.0, min(1.0, float(x @ y) / scale))
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    half = z * math.sqrt((1 + rho * rho / 2) / (free - 3))
    centre = math.atanh(max(-1 + 1e-15, min(1 - 1e-15, rho)))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    return Estimate(value=rho, low=min(low, rho), high=max(high, rho), n=n)
