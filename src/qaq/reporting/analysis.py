"""From per-problem outcomes to arms with intervals and paired tests between them.

Every rate is recomputed from per-problem rows; scores that a stage printed about itself are not
used. An arm's table is (tasks x seeds); `qaq.evidence.statistics` says how seeds are treated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qaq.evidence import statistics
from qaq.evidence.estimate import Estimate, mean, wilson
from qaq.host.errors import DataError
from qaq.reporting.schema import (
    AnswerCounts,
    Comparison,
    Finding,
    Metric,
    SeedResult,
    SuiteResult,
)

ALPHA = 0.05
ALL = "all"
PASSED = {"base": "base_passed", "plus": "plus_passed"}


@dataclass(frozen=True)
class Grid:
    """One arm on one suite (or on all): rows are tasks, columns seeds.

    Attributes:
        tasks: names in sorted order.
        seeds: of the columns.
        samples: programs judged per task and seed.
        base, plus: number of samples that passed, int64.
        bits: bits per byte of the canonical solution; NaN where not measured.
    """

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    samples: int
    base: NDArray[np.int64]
    plus: NDArray[np.int64]
    bits: NDArray[np.float64]

    def rates(self, metric: Metric) -> NDArray[np.float64]:
        """The metric per task and seed."""
        if metric == "bits_per_byte":
            return self.bits
        return getattr(self, metric) / self.samples  # type: ignore[no-any-return]


def grid(outcomes: pd.DataFrame, where: str) -> Grid:
    """Arrange the outcome rows of one arm and suite; `where` names them in an error.

    Raises:
        DataError: the seeds were judged on different tasks or numbers of samples.
    """
    rows = outcomes.assign(
        base=outcomes["base_passed"].astype("int64"),
        # EvalPlus counts "plus" only on top of base.
        plus=(outcomes["plus_passed"] & outcomes["base_passed"]).astype("int64"),
    )
    counts = rows.groupby(["task_id", "seed"]).size().unstack()
    if counts.isna().any(axis=None) or counts.to_numpy().min() != counts.to_numpy().max():
        raise DataError(f"{where}: its seeds were judged on different tasks or numbers of samples")
    tables = {
        name: rows.pivot_table(index="task_id", columns="seed", values=name, aggfunc="sum")
        for name in ("base", "plus")
    }
    bits = rows.groupby(["task_id", "seed"])["solution_bits_per_byte"].mean().unstack()
    return Grid(
        tasks=tuple(counts.index),
        seeds=tuple(int(s) for s in counts.columns),
        samples=int(counts.to_numpy().min()),
        base=tables["base"].to_numpy(dtype=np.int64),
        plus=tables["plus"].to_numpy(dtype=np.int64),
        bits=bits.to_numpy(dtype=float),
    )


def grids(outcomes: pd.DataFrame) -> dict[str, dict[str, Grid]]:
    """Grids by arm and suite, with "all" (every suite, the seeds they share) beside them.

    Raises:
        DataError: two arms were judged on different tasks of one suite.
    """
    found: dict[str, dict[str, Grid]] = {}
    suites = sorted(outcomes["benchmark"].unique())
    for suite in suites:
        tasks: dict[tuple[str, ...], str] = {}
        for arm, rows in outcomes[outcomes["benchmark"] == suite].groupby("arm"):
            one = grid(rows, f"{arm} on {suite}")
            found.setdefault(str(arm), {})[suite] = one
            tasks.setdefault(one.tasks, str(arm))
        if len(tasks) > 1:
            names = " and ".join(tasks.values())
            raise DataError(f"{suite}: {names} were judged on different tasks; judge them alike")
    for by_suite in found.values():
        if len(by_suite) == len(suites):
            by_suite[ALL] = _join(by_suite)
    return found


def _join(by_suite: dict[str, Grid]) -> Grid:
    """The tasks of all suites below each other, over the seeds that every suite has."""
    parts = dict(sorted(by_suite.items()))
    seeds = sorted(set.intersection(*(set(g.seeds) for g in parts.values())))
    columns = {name: [g.seeds.index(s) for s in seeds] for name, g in parts.items()}
    # With several samples, all suites have the same number: one evaluation config serves all.
    samples = {g.samples for g in parts.values()}
    if len(samples) > 1:
        raise DataError(f"suites have {sorted(samples)} samples per task; expected one number")
    stacked = {
        field: np.concatenate([getattr(g, field)[:, columns[n]] for n, g in parts.items()])
        for field in ("base", "plus", "bits")
    }
    tasks = tuple(f"{name}:{task}" for name, g in parts.items() for task in g.tasks)
    return Grid(tasks=tasks, seeds=tuple(seeds), samples=samples.pop(), **stacked)


def suite_result(
    suite: str, one: Grid, rows: pd.DataFrame, answers: pd.DataFrame | None = None
) -> SuiteResult:
    """One arm on one suite, as it appears in the results; `answers` as in `Collected`."""
    failures = rows["failure"].dropna().value_counts()
    return SuiteResult(
        suite=suite,
        tasks=len(one.tasks),
        samples=one.samples,
        base=_proportion(one.rates("base")),
        plus=_proportion(one.rates("plus")),
        bits_per_byte=mean(one.bits.mean(axis=1)),
        failures={str(k): int(v) for k, v in sorted(failures.items())},
        suspects=int(rows["suspect"].fillna(False).sum()),
        seeds=tuple(
            SeedResult(
                seed=seed,
                base=float(one.rates("base")[:, place].mean()),
                plus=float(one.rates("plus")[:, place].mean()),
                bits_per_byte=_finite_mean(one.bits[:, place]),
            )
            for place, seed in enumerate(one.seeds)
        ),
        answers=None if answers is None or answers.empty else _answer_counts(answers),
        benchmark_md5=None if answers is None else _one_md5(answers),
    )


def _one_md5(answers: pd.DataFrame) -> str | None:
    """The MD5 of the suite's file, where it is known and one."""
    found = set(answers["benchmark_md5"].dropna())
    return str(found.pop()) if len(found) == 1 else None


def _answer_counts(answers: pd.DataFrame) -> AnswerCounts:
    counted = answers["no_code"].notna().all()
    return AnswerCounts(
        at_limit=int(answers["at_limit"].sum()),
        no_code=int(answers["no_code"].sum()) if counted else None,
        cut=int(answers["cut"].sum()),
    )


def _proportion(rates: NDArray[np.float64]) -> Estimate:
    """Wilson's interval over tasks; a task's result is the share of its seeds that passed."""
    by_task = rates.mean(axis=1)
    low, high = wilson(min(float(by_task.sum()), by_task.size), by_task.size)
    return Estimate(value=float(by_task.mean()), low=low, high=high, n=by_task.size)


def _finite_mean(values: NDArray[np.float64]) -> float | None:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else None


@dataclass(frozen=True)
class Pair:
    """Two arms to be compared, and the family in which the test is corrected."""

    family: str
    metric: Metric
    suite: str
    arm: str
    baseline: str


def compare_pairs(pairs: Sequence[Pair], found: dict[str, dict[str, Grid]]) -> list[Comparison]:
    """Test every pair that has outcomes, and correct within each family."""
    raw = [
        result
        for pair in pairs
        if pair.suite in found.get(pair.arm, {}) and pair.suite in found.get(pair.baseline, {})
        if (result := _compare(pair, found[pair.arm][pair.suite], found[pair.baseline][pair.suite]))
    ]
    by_family: dict[str, list[_Raw]] = {}
    for one in raw:
        by_family.setdefault(one.pair.family, []).append(one)
    return [
        _finish(one, float(p))
        for members in by_family.values()
        for one, p in zip(members, statistics.holm([m.p_value for m in members]), strict=True)
    ]


@dataclass(frozen=True)
class _Raw:
    pair: Pair
    tasks: int
    seeds: int
    difference: float
    interval: statistics.Interval
    ahead: int
    behind: int
    p_value: float


def _compare(pair: Pair, first: Grid, second: Grid) -> _Raw | None:
    """One uncorrected comparison, over equally many seeds of both arms; None without data.

    Equal numbers, because the exact test needs the two arms to be exchangeable on a task, and the
    mean of three seeds is not exchangeable with one. Different numbers of samples (results of
    somebody else's) are compared by a paired t test of the rates, whose mean is the same for any
    number.
    """
    seeds = min(len(first.seeds), len(second.seeds))
    a, b = (g.rates(pair.metric)[:, :seeds] for g in (first, second))
    known = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    if seeds == 0 or not known.any():
        return None
    a, b = a[known], b[known]
    by_task = (a - b).mean(axis=1)
    if pair.metric == "bits_per_byte":
        p_value = statistics.sign_flip_sampled(by_task)
        ahead, behind = int((by_task < 0).sum()), int((by_task > 0).sum())
    elif first.samples != second.samples:
        p_value = statistics.paired_t(by_task)
        ahead, behind = int((by_task > 0).sum()), int((by_task < 0).sum())
    else:
        mine, theirs = (getattr(g, pair.metric)[:, :seeds].sum(axis=1) for g in (first, second))
        counts = mine - theirs
        p_value = statistics.sign_flip(counts)
        ahead, behind = int((counts > 0).sum()), int((counts < 0).sum())
    return _Raw(
        pair=pair,
        tasks=int(known.sum()),
        seeds=seeds,
        difference=float(by_task.mean()),
        interval=statistics.paired_bootstrap(a, b),
        ahead=ahead,
        behind=behind,
        p_value=p_value,
    )


def _finish(raw: _Raw, p_holm: float) -> Comparison:
    return Comparison(
        family=raw.pair.family,
        metric=raw.pair.metric,
        suite=raw.pair.suite,
        arm=raw.pair.arm,
        baseline=raw.pair.baseline,
        tasks=raw.tasks,
        seeds=raw.seeds,
        difference=raw.difference,
        low=raw.interval.low,
        high=raw.interval.high,
        ahead=raw.ahead,
        behind=raw.behind,
        p_value=raw.p_value,
        p_holm=p_holm,
        finding=finding(raw.pair.metric, raw.difference, raw.interval, p_holm),
    )


def finding(
    metric: Metric, difference: float, interval: statistics.Interval, p_holm: float
) -> Finding:
    """The only place where "better" is decided.

    It takes both: the corrected test over tasks, and an interval that also holds the luck of the
    training seeds and must exclude 0. Fewer bits per byte are better, more passes are better.
    """
    if p_holm >= ALPHA or interval.holds(0.0) or difference == 0:
        return "not told apart"
    gain = -difference if metric == "bits_per_byte" else difference
    return "better" if gain > 0 else "worse"
