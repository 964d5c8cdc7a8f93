"""The difference of two arms when tasks and training runs are both drawn by chance.

An arm is a rule, its adapters are draws: another seed gives another adapter. A difference between
two arms therefore carries two parts of chance, and `difference` adds their variances:

- tasks: each task's difference of the arms' means, its variance taken inside each suite;
- runs: the variance between the runs of one arm, pooled over all arms that have several
  (`luck`), over the number of runs of each side. What run-by-task noise adds to it is already in
  the tasks' part and is taken out.

Degrees of freedom are Welch's and Satterthwaite's. docs/statistics.md has the formulas.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from qaq.evidence.estimate import FloatArray


@dataclass(frozen=True)
class Arm:
    """What one way of choosing did on one set of tasks.

    Attributes:
        values: the outcome, shape (tasks, runs); NaN where a task was not measured.
        suites: the suite of each task, shape (tasks,).
        samples: programs judged per task and run, where the outcome is the share of them that
            passed; None for any other outcome.
        trained: whether another training run would give another model; the untuned model is one.
    """

    values: FloatArray
    suites: npt.NDArray[np.object_]
    samples: int | None = None
    trained: bool = True

    @property
    def runs(self) -> int:
        """Number of training runs."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Luck:
    """The variance between runs of one arm, of a run's mean over tasks.

    `noise` is what run-by-task noise contributes to `variance`, which has `df` degrees of freedom.
    """

    variance: float
    noise: float
    df: int


def luck(arms: Iterable[Arm]) -> Luck | None:
    """Pooled over the trained arms with several runs; None where there is none."""
    between = noise = 0.0
    df = 0
    seen: list[FloatArray] = []
    for arm in arms:
        values = arm.values[np.isfinite(arm.values).all(axis=1)]
        # Two arms that kept the same rows are the same adapters, which may count only once.
        if any(np.array_equal(values, other) for other in seen):
            continue
        seen.append(values)
        tasks, runs = values.shape
        if not arm.trained or runs < 2 or tasks < 2:
            continue
        means = values.mean(axis=0)
        rest = values - values.mean(axis=1, keepdims=True) - means + values.mean()
        between += float(((means - means.mean()) ** 2).sum())
        noise += float((rest**2).sum()) / (tasks * (tasks - 1))
        df += runs - 1
    return None if not df else Luck(between / df, noise / df, df)


@dataclass(frozen=True)
class Difference:
    """First minus second.

    Attributes:
        value: mean over tasks.
        error, df: standard error and its degrees of freedom.
        tasks: that both have.
        runs: of the first and of the second.
        ahead, behind: tasks on which the first has the larger, the smaller value.
        counted: whether the luck of training is in the error; without it the difference is one
            between these very models.
        exact: p value of the exact sign-flip test over tasks; None where the outcome is no count,
            or of different numbers of samples.
    """

    value: float
    error: float
    df: float
    tasks: int
    runs: tuple[int, int]
    ahead: int
    behind: int
    counted: bool
    exact: float | None

    @property
    def empty(self) -> bool:
        """Whether the two agree on every task, so that there is nothing to test."""
        return self.ahead == self.behind == 0

    @property
    def p_value(self) -> float:
        """Two-sided: the larger p value of the t test and of the exact test over tasks.

        The t test counts the luck of training; the exact test holds where so few tasks differ that
        a normal law does not.
        """
        if self.empty:
            return 1.0
        p = 2 * float(stats.t.sf(abs(self.value) / self.error, self.df)) if self.error else 0.0
        return min(1.0, max(p, self.exact or 0.0))

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Two-sided Student's interval of coverage 1 - alpha; None where no task differs."""
        if self.empty:
            return None
        half = float(stats.t.isf(alpha / 2, self.df)) * self.error
        return self.value - half, self.value + half

    def above(self, bound: float) -> tuple[float, float]:
        """One-sided p values: that the true difference is at most `bound`, at least `bound`."""
        if not self.error:
            return (0.0, 1.0) if self.value > bound else (1.0, 0.0)
        t = (self.value - bound) / self.error
        return float(stats.t.sf(t, self.df)), float(stats.t.cdf(t, self.df))


def difference(first: Arm, second: Arm, pooled: Luck | None) -> Difference | None:
    """Compare two arms on the tasks that both have; None where there is none.

    Args:
        first, second: the same tasks in the same order, all runs of each.
        pooled: the variance between runs, of all arms of the experiment.
    """
    if not first.runs or not second.runs:
        return None
    known = np.isfinite(first.values).all(axis=1) & np.isfinite(second.values).all(axis=1)
    n = int(known.sum())
    if not n:
        return None
    a, b = first.values[known], second.values[known]
    by_task = a.mean(axis=1) - b.mean(axis=1)
    parts = _task_parts(by_task, first.suites[known])
    if first.samples is not None and second.samples is not None:
        # As if one more task had gone each way (Agresti and Min 2005): with few tasks that differ
        # their own variance is too small.
        parts.append((2 / n**2, math.inf))
    spread = sum(arm.trained / arm.runs for arm in (first, second))
    variance = sum(v for v, _ in parts)
    parts = [(v, df) for v, df in parts if math.isfinite(df)]
    if spread and pooled is not None:
        variance += spread * max(0.0, pooled.variance - pooled.noise)
        parts.append((spread * max(pooled.variance, pooled.noise), pooled.df))
    squares = sum(v * v / df for v, df in parts)
    samples = first.samples if first.samples == second.samples else None
    counts = _counts(a, b, samples)
    return Difference(
        value=float(by_task.mean()),
        error=math.sqrt(variance),
        df=variance * variance / squares if squares else max(n - 1.0, 1.0),
        tasks=n,
        runs=(first.runs, second.runs),
        ahead=int((by_task > 1e-12).sum()),
        behind=int((by_task < -1e-12).sum()),
        counted=not spread or pooled is not None,
        exact=None if counts is None else sign_flip(counts),
    )


def _task_parts(by_task: FloatArray, suites: npt.NDArray[np.object_]) -> list[tuple[float, float]]:
    """Variance of the mean of `by_task` and its degrees of freedom, for each suite."""
    n = len(by_task)
    groups = [by_task[suites == suite] for suite in np.unique(suites)]
    if min(map(len, groups)) < 2:
        groups = [by_task]
    return [(len(g) * float(g.var(ddof=1)) / n**2, len(g) - 1.0) for g in groups if len(g) > 1]


def _counts(a: FloatArray, b: FloatArray, samples: int | None) -> npt.NDArray[np.int64] | None:
    """Passes of the first minus the second by task, over a common number of runs."""
    if samples is None:
        return None
    common = math.lcm(a.shape[1], b.shape[1])
    sums = [np.rint(v.sum(axis=1) * samples) * (common // v.shape[1]) for v in (a, b)]
    return np.asarray(sums[0] - sums[1], dtype=np.int64)


def sign_flip(differences: npt.ArrayLike) -> float:
    """Two-sided exact sign-flip (randomisation) test that the sum of differences is 0.

    Under the null hypothesis the two arms are exchangeable on every task, so each difference is as
    likely as its negative. The distribution of the sum over all 2^n sign patterns is computed
    exactly by convolution. For differences in {-1, 0, 1} this is McNemar's exact test.

    Args:
        differences: one integer per task (passes of one arm minus those of the other).
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


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down correction (1979): adjusted p values in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (p.size - np.arange(p.size))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if p.size else scaled
    return adjusted
