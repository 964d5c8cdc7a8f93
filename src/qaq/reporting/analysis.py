"""From per-problem outcomes to arms with intervals and paired tests between them.

Every rate is recomputed from per-problem rows; scores that a stage printed about itself are not
used. An arm's table is (tasks x seeds); `qaq.evidence.runs` says how both are treated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qaq.evidence import claims
from qaq.evidence.claims import Finding, Made
from qaq.evidence.estimate import Estimate, mean, wilson
from qaq.evidence.runs import Arm, Difference
from qaq.host.errors import DataError
from qaq.reporting.schema import (
    AnswerCounts,
    Comparison,
    Metric,
    SeedResult,
    SuiteResult,
)

ALL = "all"
UNTUNED = "untuned"


@dataclass(frozen=True)
class Grid:
    """One arm on one suite (or on all): rows are tasks, columns seeds.

    Attributes:
        tasks: names in sorted order.
        seeds: of the columns.
        samples: programs judged per task and seed.
        base, plus: number of samples that passed, int64.
        bits: bits per byte of the canonical solution; NaN where not measured.
        suites: the suite of each task.
    """

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    samples: int
    base: NDArray[np.int64]
    plus: NDArray[np.int64]
    bits: NDArray[np.float64]
    suites: NDArray[np.object_]

    def take(self, seeds: Sequence[int]) -> "Grid":
        """Only some seeds, of those that are there."""
        columns = [self.seeds.index(s) for s in seeds if s in self.seeds]
        return replace(
            self,
            seeds=tuple(self.seeds[c] for c in columns),
            base=self.base[:, columns],
            plus=self.plus[:, columns],
            bits=self.bits[:, columns],
        )

    def rates(self, metric: Metric) -> NDArray[np.float64]:
        """The metric per task and seed."""
        if metric == "bits_per_byte":
            return self.bits
        return getattr(self, metric) / self.samples  # type: ignore[no-any-return]


Grids = Mapping[str, Mapping[str, Grid]]  # by arm and suite


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
        suites=np.full(len(counts), str(rows["benchmark"].iloc[0]), dtype=object),
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
    suites = np.concatenate([g.suites for g in parts.values()])
    return Grid(tasks, tuple(seeds), samples.pop(), suites=suites, **stacked)


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
    """Two arms to be compared, and under which heading."""

    family: str
    metric: Metric
    suite: str
    arm: str
    baseline: str


def arms_on(found: Grids, metric: Metric, suite: str) -> dict[str, Arm]:
    """Every arm that was judged on a suite, as the tests take it."""
    return {
        name: Arm(
            values=one.rates(metric),
            suites=one.suites,
            samples=None if metric == "bits_per_byte" else one.samples,
            trained=name.rsplit(":", maxsplit=1)[-1] != UNTUNED,
        )
        for name, by_suite in found.items()
        if (one := by_suite.get(suite)) is not None and np.isfinite(one.rates(metric)).any()
    }


def differences(pairs: Sequence[Pair], found: Grids) -> list[tuple[Pair, Made]]:
    """The difference of every pair that has outcomes."""
    made = []
    for measure in dict.fromkeys((p.metric, p.suite) for p in pairs):
        asked = {(p.arm, p.baseline): p for p in pairs if (p.metric, p.suite) == measure}
        arms = arms_on(found, *measure)
        made += [(asked[one[:2]], one) for one in claims.differences(arms, list(asked))]
    return made


def tested(pairs: Sequence[Pair], found: Grids) -> list[Comparison]:
    """Test the pairs as one family."""
    made = differences(pairs, found)
    return [
        _comparison(pair, one.difference, (one.low, one.high), one.p_holm, one.finding, one.reason)
        for (pair, _), one in zip(
            made, claims.decide([m for _, m in made], declared=len(pairs)), strict=True
        )
    ]


def described(pairs: Sequence[Pair], found: Grids) -> list[Comparison]:
    """The same without a claim: each with its own 95% interval."""
    return [
        _comparison(pair, one, one.interval(claims.ALPHA) or (None, None), None, "descriptive", "")
        for pair, (*_, one) in differences(pairs, found)
    ]


def _comparison(
    pair: Pair,
    one: Difference,
    limits: tuple[float | None, float | None],
    p_holm: float | None,
    finding: Finding,
    reason: str,
) -> Comparison:
    return Comparison(
        family=pair.family,
        metric=pair.metric,
        suite=pair.suite,
        arm=pair.arm,
        baseline=pair.baseline,
        tasks=one.tasks,
        seeds=one.runs,
        difference=one.value,
        low=limits[0],
        high=limits[1],
        # Fewer bits per byte are better.
        ahead=one.behind if pair.metric == "bits_per_byte" else one.ahead,
        behind=one.ahead if pair.metric == "bits_per_byte" else one.behind,
        p_value=one.p_value,
        p_holm=p_holm,
        finding=finding,
        reason=reason,
    )
