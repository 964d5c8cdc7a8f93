"""The statistics of the report: intervals, paired tests, correction, power. Pure functions.

The unit of chance is the task: an arm's result on one task is the share of its seeds (and samples)
that passed, so several seeds are one result and never several independent ones. Two arms are
compared on the same tasks.

- The interval of one arm is Wilson's over its tasks (`wilson`).
- The test of a difference is exact: every task's difference keeps or flips its sign (`sign_flip`).
  With one seed that is McNemar's exact test; with several it is the same idea on the means.
- The interval of a difference is a paired bootstrap over tasks, with seeds resampled inside each
  arm (`paired_bootstrap`).
- A family of tests is corrected by Holm's method (`holm`).
- What could have been seen at all is stated by `smallest_difference`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """A closed interval at the stated confidence."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside."""
        return self.low <= value <= self.high


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided exact sign-flip (randomisation) test that the sum of differences is 0.

    Under the null hypothesis the two arms are exchangeable on every task, so each difference is as
    likely as its negative. The distribution of the sum over all 2^n sign patterns is computed
    exactly by convolution. For differences in {-1, 0, 1} this is McNemar's exact test.

    Args:
        differences: one integer per task (passes of one arm minus those of the other, over equally
            many seeds and samples).
    """
    values = np.asarray(differences)
    if values.dtype.kind not in "iu":
        raise TypeError(f"differences are {values.dtype}; expected integers (counts, not shares)")
    observed = abs(int(values.sum()))
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    span = int((sizes * counts).sum())  # the sum lies in [-span, span]
    law = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        law = np.convolve(law, step)
    sums = np.arange(-span, span + 1)
    return float(min(1.0, law[np.abs(sums) >= observed].sum()))


def sign_flip_sampled(differences: ArrayLike, draws: int = 9999, seed: int = 0) -> float:
    """The sign-flip test for real-valued differences, over `draws` random sign patterns.

    The observed pattern counts as one of the draws, so the p value is never 0 and the test is
    valid at any number of draws (Phipson and Smyth 2010).
    """
    values = np.asarray(differences, dtype=float)
    if not np.any(values):
        return 1.0
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, size=(draws, values.size), dtype=np.int8) * 2.0 - 1.0
    slack = 1e-12 * np.abs(values).sum()
    as_large = int((np.abs(signs @ values) >= abs(values.sum()) - slack).sum())
    return (1 + as_large) / (1 + draws)


def paired_t(differences: ArrayLike) -> float:
    """Two-sided paired t test that the mean difference is 0 (Student 1908).

    Where all differences are equal there is no variance to divide by, and their signs are tested.
    """
    values = np.asarray(differences, dtype=float)
    if not values.any():
        return 1.0
    if np.ptp(values) == 0:
        return float(2.0 ** (1 - len(values)))
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def paired_bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Percentile interval of mean(first) - mean(second), tasks paired, seeds inside each arm.

    Every resample draws tasks with replacement (the same ones for both arms) and, for each arm on
    its own, as many of its seeds as it has. A seed is one training run, so one draw of it serves
    all tasks. Drawing s of s seeds understates their variance by (s-1)/s, much for three seeds, so
    their deviations are stretched by sqrt(s/(s-1)) (Rao and Wu 1988). With one seed the training's
    own luck is not in the interval: nothing measured it.

    Args:
        first, second: shape (tasks, seeds of that arm), the same tasks in the same order.
        resamples: number of bootstrap resamples.
        confidence: two-sided coverage.
        seed: of the resampling.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[0] != second.shape[0]:
        raise ValueError(f"shapes {first.shape} and {second.shape}: expected (tasks, seeds) each")
    tasks = _weights(first.shape[0], resamples, seed)
    means = [
        _seed_means(tasks @ arm, _weights(arm.shape[1], resamples, seed + 1 + place))
        for place, arm in enumerate((first, second))
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    return Interval(float(low), float(high))


def _seed_means(by_seed: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over resampled seeds, both arguments of shape (resamples, seeds)."""
    seeds = by_seed.shape[1]
    centre = by_seed.mean(axis=1)
    stretch = math.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
    return np.asarray(centre + stretch * ((by_seed * weights).sum(axis=1) - centre))


@lru_cache(maxsize=16)
def _weights(n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Bootstrap weights, shape (resamples, n): how often each item was drawn, over n."""
    rng = np.random.default_rng([seed, n])
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction (1979): adjusted p values in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (p.size - np.arange(p.size))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if p.size else scaled
    return adjusted


def power(n: int, difference: float, discordance: float, alpha: float = 0.05) -> float:
    """Power of the exact McNemar test, computed exactly.

    Args:
        n: tasks.
        difference: true difference of the two pass rates, in [0, discordance].
        discordance: share of tasks that exactly one of the two arms solves.
        alpha: level of the test (divide by the number of comparisons for Holm's hardest step).
    """
    if not 0 <= difference <= discordance <= 1:
        raise ValueError(f"difference {difference}, discordance {discordance}: 0 <= d <= c <= 1")
    if discordance == 0:
        return 0.0
    ahead = (discordance + difference) / (2 * discordance)
    m = np.arange(1, n + 1)  # number of discordant tasks
    # The largest k such that k wins among m discordant tasks are significantly few; -1 if none.
    k = stats.binom.ppf(alpha / 2, m, 0.5)
    k = np.where(2 * stats.binom.cdf(k, m, 0.5) <= alpha, k, k - 1)
    reject = stats.binom.cdf(k, m, ahead) + stats.binom.sf(m - k - 1, m, ahead)
    return float((stats.binom.pmf(m, n, discordance) * reject).sum())


def smallest_difference(
    n: int,
    discordance: float,
    seeds: int = 1,
    seed_discordance: float = 0.0,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> float | None:
    """Smallest true difference of pass rates that is found with probability `wanted`.

    One seed: exact (`power`). Several seeds: the variance of a task's difference is
    (discordance - seed_discordance) + seed_discordance / seeds, where `seed_discordance` is the
    share of tasks on which two seeds of one arm disagree: that part averages out, the rest is a
    real difference between arms on the task and does not. The mean of several seeds is therefore
    treated as one seed of that smaller discordance; the tests check this against simulation.

    Returns:
        The difference in [0, 1], to 1e-4, or None where not even the largest possible one is found.
    """
    within = min(seed_discordance, discordance)
    spread = (discordance - within) + within / seeds
    if power(n, spread, spread, alpha) < wanted:
        return None
    low, high = 0.0, spread
    while high - low > 1e-4:
        middle = (low + high) / 2
        if power(n, middle, spread, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high
