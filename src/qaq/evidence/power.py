"""What a comparison can show: stated before the run, and again from what was measured.

The power is that of the product's own test (`qaq.evidence.claims`): a t test with the variance of
tasks and of runs, and beside it the exact test over tasks, of which the stricter decides. A true
difference d adds to the tasks on which two arms disagree: their share is min(1, background + d).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic.dataclasses import dataclass
from scipy import stats

from qaq.evidence.claims import ALPHA
from qaq.evidence.estimate import STRICT, FloatArray
from qaq.evidence.runs import Arm, luck

ASSUMED_DISCORDANCE = 0.10  # share of tasks on which two arms disagree where neither is better
ASSUMED_RUN_SD = 0.005  # SD of pass@1 between runs of one arm; the 270M model has 0.002
WANTED = 0.8


@dataclass(frozen=True)
class Design:
    """What is known, or assumed, of a comparison of two arms.

    Attributes:
        tasks: in the comparison.
        seeds: training runs of each arm.
        comparisons: in the family; the level is that of Holm's hardest step.
        background: share of tasks on which a run of one arm and a run of the other disagree
            though neither arm is better.
        seed_discordance: share on which two runs of one arm disagree; it averages out over seeds.
        run_sd: standard deviation of pass@1 between runs of one arm, without tasks' noise.
        df: degrees of freedom of `run_sd`; 0: no arm has two runs, and the test is over tasks.
    """

    tasks: int
    seeds: int
    comparisons: int
    background: float
    seed_discordance: float
    run_sd: float
    df: int

    @property
    def level(self) -> float:
        """Two-sided level of one test."""
        return ALPHA / self.comparisons

    def error(self, difference: float) -> tuple[float, float]:
        """Standard error of the estimated difference, and its degrees of freedom."""
        spread = self._spread(difference) - difference**2
        of_tasks = (max(spread, 0.0) + 2 / self.tasks) / self.tasks
        # What runs add to the tasks' part cannot be more than all of it: where every task differs
        # alike, chance has no part there.
        noise = min(self.seed_discordance / self.seeds / self.tasks, of_tasks)
        of_runs = 2 / self.seeds * self.run_sd**2 if self.df else 0.0
        squares = (max(spread, 1e-12) / self.tasks) ** 2 / max(self.tasks - 1, 1)
        if self.df:
            squares += (of_runs + noise) ** 2 / self.df
        total = of_tasks + of_runs
        return math.sqrt(total), total**2 / squares

    def _spread(self, difference: float) -> float:
        """Mean square of a task's difference between the arms' means over their seeds."""
        within = min(self.seed_discordance, self.background)
        return min(1.0, self.background - within + within / self.seeds + difference)

    def power(self, difference: float) -> float:
        """Chance that a true difference of pass@1 is found."""
        error, df = self.error(difference)
        limit, ahead = float(stats.t.isf(self.level / 2, df)), difference / error
        # Far in the tail scipy's series fails, and the answer is 1.
        by_t = 1.0 if ahead > limit + 10 else float(stats.nct.sf(limit, df, ahead))
        return min(by_t, exact_power(self.tasks, difference, self._spread(difference), self.level))

    def smallest(self) -> float | None:
        """The smallest true difference found with 80% probability, to 1e-4, or None."""
        if self.power(1.0) < WANTED:
            return None
        low, high = 0.0, 1.0
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (middle, high) if self.power(middle) < WANTED else (low, middle)
        return high

    def margin(self) -> float:
        """The smallest margin up to which an arm that is truly as good is shown so in 80%."""
        error, df = self.error(0.0)
        return error * float(stats.t.isf(self.level / 2, df) + stats.t.isf(1 - WANTED, df))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Power:
    """What a family of comparisons can show.

    `difference` is the smallest true difference of pass@1 found with probability `wanted`, null if
    none is; `margin` the smallest up to which an arm that is truly as good is shown to be.
    `between_rules` is false where no arm has two runs: a difference is then one of models.
    """

    tasks: int
    seeds: int
    comparisons: int
    discordance: float
    assumed: bool  # true: stated before the run; false: from the arms measured
    difference: float | None
    margin: float
    between_rules: bool
    wanted: float = WANTED


def planned(tasks: int, runs: Mapping[str, int], compared: Sequence[tuple[str, str]]) -> Power:
    """What so many tasks, runs of each trained arm and comparisons can show, before the run.

    The weakest of the comparisons counts; the luck of training is learned from all arms. Assumes
    that two arms disagree on one task in ten, all of it a difference between the arms, so that
    seeds do not help there: the careful assumption.
    """
    least = min((runs[name] for pair in compared for name in pair if name in runs), default=1)
    repeats = sum(n - 1 for n in runs.values())
    design = Design(tasks, least, len(compared), ASSUMED_DISCORDANCE, 0.0, ASSUMED_RUN_SD, repeats)
    return stated(design, assumed=True)


def stated(design: Design, *, assumed: bool) -> Power:
    """The power of a design."""
    return Power(
        tasks=design.tasks,
        seeds=design.seeds,
        comparisons=design.comparisons,
        discordance=design.background,
        assumed=assumed,
        difference=design.smallest(),
        margin=min(1.0, design.margin()),
        between_rules=design.df > 0,
    )


def measured(
    arms: Mapping[str, Arm], contrasts: Sequence[tuple[str, str]], comparisons: int
) -> Power | None:
    """The same from the arms that were judged; None where none of the contrasts was."""
    pairs = [(arms[a], arms[b]) for a, b in contrasts if a in arms and b in arms]
    if not pairs:
        return None
    pooled = luck(arms.values())
    trained = [arm for arm in arms.values() if arm.trained]
    repeats = [_disagreement(arm.values, arm.values) for arm in trained if arm.runs > 1]
    within = float(np.mean(repeats)) if repeats else 0.0
    between = [
        max(0.0, _disagreement(a.values, b.values) - abs(float(a.values.mean() - b.values.mean())))
        for a, b in pairs
    ]
    design = Design(
        tasks=len(pairs[0][0].values),
        seeds=min(min(a.runs, b.runs) for a, b in pairs),
        comparisons=comparisons,
        background=max(within, float(np.median(between))),
        seed_discordance=within,
        run_sd=math.sqrt(max(0.0, pooled.variance - pooled.noise)) if pooled else 0.0,
        df=pooled.df if pooled else 0,
    )
    return stated(design, assumed=False)


def _disagreement(a: FloatArray, b: FloatArray) -> float:
    """Share of tasks on which two runs disagree, over all pairs of different runs."""
    same = a is b
    shares = [
        float((a[:, i] != b[:, j]).mean())
        for i in range(a.shape[1])
        for j in range(b.shape[1])
        if not same or i != j
    ]
    return float(np.mean(shares))


def statement(power: Power, held: bool = True) -> str:
    """What so many tasks and seeds can show, in sentences; `held`: arms are held to a margin."""
    if power.difference is None:
        first = "At this size no difference of pass@1 would be found with 80% probability."
    else:
        first = (
            f"A difference below {power.difference * 100:.1f} points would probably "
            f"{'be' if power.assumed else 'have been'} missed ({power.wanted:.0%} power, "
            f"{power.comparisons} comparisons)."
        )
    if not power.between_rules:
        return (
            f"{first} With one run of each arm this is about these models alone: nothing can be "
            "found between rules."
        )
    if not held:
        return first
    return (
        f"{first} An arm that is as good is shown to lose less than "
        f"{power.margin * 100:.1f} points."
    )


def exact_power(n: int, difference: float, discordance: float, alpha: float = ALPHA) -> float:
    """Power of the exact McNemar test, computed exactly.

    Args:
        n: tasks.
        difference: true difference of the two pass rates, in [0, discordance].
        discordance: share of tasks that exactly one of the two arms solves.
        alpha: two-sided level of the test.
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
