"""Compares any two results, task by task: `qaq compare A B`.

Each side is a result in any form of `qaq.reporting.result_files`. Only tasks that both sides judged
take part, and only results on the same benchmark file; the tests and intervals are those of the
report, corrected over all comparisons of pass@1. Bits per byte are shown and decide nothing. Where
the sides have different numbers of samples a task, rates per task are compared.
"""

import difflib
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from qaq.evidence.claims import RULE
from qaq.host.errors import DataError
from qaq.page.tables import Cell, Column, listing, plain_percent, text, to_text, worded
from qaq.reporting.analysis import ALL, UNTUNED, Grids, Pair, described, grids, tested
from qaq.reporting.result_files import BITS, OTHER, PROMPT, Result, load
from qaq.reporting.schema import Comparison, Metric
from qaq.reporting.tables.arms import METRICS, difference_cell, finding_cells, suite_title


@dataclass(frozen=True)
class Line:
    """One comparison, with the two values it compares."""

    first: float
    second: float
    test: Comparison


@dataclass(frozen=True)
class Compared:
    """Two results side by side.

    Attributes:
        first, second: what was compared, as given.
        tasks: number of tasks of each benchmark that both sides judged.
        only_one: number of tasks that only one side judged.
        lines: one per pair of arms, benchmark and measure.
        notes: what limits the comparison.
    """

    first: str
    second: str
    tasks: dict[str, int]
    only_one: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def tree(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        tree: dict[str, Any] = TypeAdapter(Compared).dump_python(self, mode="json")
        return tree

    @property
    def text(self) -> str:
        """Everything as a table for the terminal, and what it means."""
        return _text(self)


def compare(
    a: Path,
    b: Path,
    arm_a: str | None = None,
    arm_b: str | None = None,
    different_benchmarks: bool = False,
) -> Compared:
    """Compare two results on the tasks that both judged.

    Args:
        a, b: reports, outcome folders or EvalPlus result files.
        arm_a, arm_b: which arm of a report; by default those that both sides have, or, where one
            side is a single result, each arm with that one.
        different_benchmarks: compare although the benchmark's file was another one.

    Raises:
        DataError: a path is none of these, an arm is not there, no task is common to both, or the
            two were judged on different files of one benchmark.
    """
    one, two = load(a), load(b)
    results = _named(one, two), _named(two, one)
    notes = _benchmark_notes(results, (a, b), different_benchmarks)
    arms = {"a": _asked(results[0].rows, arm_a, a), "b": _asked(results[1].rows, arm_b, b)}
    ids = [
        _ids(result.rows[result.rows["arm"].isin(names)])
        for result, names in zip(results, arms.values(), strict=True)
    ]
    common = ids[0] & ids[1]
    if not common:
        raise DataError(f"{a} and {b} have no task in common; compare results of one benchmark")
    sides = {side: _common(r.rows, common) for side, r in zip(arms, results, strict=True)}
    # The luck of training is learned from all arms, whichever are asked for.
    found = {
        f"{side}:{arm}": grid for side, rows in sides.items() for arm, grid in grids(rows).items()
    }
    asked = {side: rows[rows["arm"].isin(arms[side])] for side, rows in sides.items()}
    pairs = list(_pairs(arms, found, [m for m in METRICS if _measured(asked.values(), m)]))
    tests = tested([p for p in pairs if p.metric != "bits_per_byte"], found)
    tests += described([p for p in pairs if p.metric == "bits_per_byte"], found)
    if not tests:
        had = [
            " and ".join(METRICS[m] for m in METRICS if _measured([s], m)) for s in asked.values()
        ]
        raise DataError(
            f"no measure in common: {a} has {had[0] or 'none'}, {b} has {had[1] or 'none'}; "
            "expected verdicts by the same tests; judge both alike"
        )
    counts = pd.Series([suite for suite, _ in common]).value_counts()
    return Compared(
        first=str(a),
        second=str(b),
        tasks={str(k): int(v) for k, v in sorted(counts.items())},
        only_one=len(ids[0] ^ ids[1]),
        lines=tuple(_line(test, found) for test in tests),
        notes=(*notes, *_prompt_notes(asked.values()), *_sample_notes(*asked.values())),
    )


def _named(one: Result, other: Result) -> Result:
    """The result with the other's suite for the tasks of unknown suite whose ids the other has."""
    tasks = other.rows.loc[other.rows["benchmark"] != OTHER, ["benchmark", "task_id"]]
    known = tasks.drop_duplicates().drop_duplicates("task_id", keep=False)
    suites = one.rows["task_id"].map(known.set_index("task_id")["benchmark"])
    found = suites.where(one.rows["benchmark"] == OTHER)
    named = one.rows.assign(benchmark=found.where(found.notna(), one.rows["benchmark"]))
    md5 = one.hashes.get(OTHER)
    hashes = {} if md5 is None else dict.fromkeys(found.dropna().unique(), md5)
    return replace(one, rows=named, hashes=one.hashes | hashes)


def _benchmark_notes(
    results: tuple[Result, Result], paths: tuple[Path, Path], allowed: bool
) -> list[str]:
    """What is to be said about the benchmark's files; refuses different ones if not allowed."""
    one, other = (result.hashes for result in results)
    notes = []
    if all(result.unnamed for result in results):
        said = f"{paths[0]} and {paths[1]} do not say of which task and language of HumanEvalPack "
        said += "they are"
        if not allowed:
            raise DataError(f"{said}; add --different-benchmarks if they are of one")
        notes.append(said)
    for suite in sorted(one.keys() & other.keys()):
        if one[suite] != other[suite]:
            said = f"{suite_title(suite)} was judged on different files (MD5 {one[suite]} and "
            said += f"{other[suite]}), so its tests may differ"
            if not allowed:
                raise DataError(f"{said}; judge both on one, or add --different-benchmarks")
            notes.append(said)
    both = set(results[0].rows["benchmark"]) & set(results[1].rows["benchmark"])
    if unknown := sorted(both - (one.keys() & other.keys())):
        titles = ", ".join(map(suite_title, unknown))
        notes.append(f"not every side says on which file of {titles} it was judged")
    return notes


def _prompt_notes(sides: Collection[pd.DataFrame]) -> list[str]:
    if any(side[PROMPT].isna().any() for side in sides):
        return ["not every side says with which prompts it was asked"]
    together = pd.concat([side[["benchmark", "task_id", PROMPT]] for side in sides])
    prompts = together.groupby(["benchmark", "task_id"])[PROMPT].nunique()
    if not (prompts > 1).any():
        return []
    return [
        f"{int((prompts > 1).sum())} of the {len(prompts)} tasks were put to the two sides with "
        "different prompts; their differences are not due to the models or the data alone"
    ]


def _sample_notes(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    counts = [int(side["sample"].max()) + 1 for side in (first, second)]
    if counts[0] == counts[1]:
        return []
    return [
        f"A has {counts[0]} samples a task and B {counts[1]}: compared are the shares that passed, "
        "task by task, by the t test alone, without the exact one"
    ]


def _asked(rows: pd.DataFrame, arm: str | None, path: Path) -> list[str]:
    """The names of the arms that are compared."""
    names = sorted(rows["arm"].unique())
    if arm is None:
        return names
    fits = [arm] if arm in names else [name for name in names if name.startswith(arm)]
    if len(fits) != 1:
        close = difflib.get_close_matches(arm, names, n=1)
        meant = f"did you mean {close[0]}? It" if close and not fits else "it"
        fault = f"several arms begin with {arm}" if fits else f"there is no arm {arm}"
        raise DataError(f"{path}: {fault}; {meant} has {', '.join(names)}")
    return fits


def _ids(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(rows["benchmark"], rows["task_id"], strict=True))


def _common(rows: pd.DataFrame, ids: set[tuple[str, str]]) -> pd.DataFrame:
    keys = zip(rows["benchmark"], rows["task_id"], strict=True)
    kept = rows[[key in ids for key in keys]].copy()
    known = {f"{m}_known": kept[f"{m}_passed"].notna() for m in ("base", "plus")}
    # A measure that one side lacks is not compared, so its place may be filled: base with plus,
    # since plus counts only on top of base.
    for column, filling in (("plus_passed", False), ("base_passed", kept["plus_passed"])):
        kept[column] = kept[column].where(kept[column].notna(), filling).astype(bool)
    return kept.assign(**known)


def _measured(sides: Any, metric: Metric) -> bool:
    """Whether both sides have the measure."""
    if metric == "bits_per_byte":
        return all(bool(side[BITS].notna().all()) for side in sides)
    return all(bool(side[f"{metric}_known"].all()) for side in sides)


def _pairs(
    arms: Mapping[str, Sequence[str]],
    found: Grids,
    metrics: list[Metric],
) -> Iterator[Pair]:
    """Arms of the same name, or all with the only one of a side; suites and all tasks together."""
    names = {s: [name for name in arms[s] if f"{s}:{name}" in found] for s in ("a", "b")}
    if len(names["a"]) == 1 or len(names["b"]) == 1:
        chosen = [(x, y) for x in names["a"] for y in names["b"]]
    else:
        chosen = [(x, x) for x in names["a"] if x in names["b"] and x != UNTUNED]
    if not chosen:
        raise DataError(
            f"no arm is in both: {', '.join(names['a'])} and {', '.join(names['b'])}; name two arms"
        )
    for x, y in chosen:
        suites = [s for s in found[f"a:{x}"] if s in found[f"b:{y}"]]
        for suite in suites if len(suites) > 2 else [s for s in suites if s != ALL]:
            for metric in metrics:
                yield Pair("compared", metric, suite, f"a:{x}", f"b:{y}")


def _line(test: Comparison, found: Grids) -> Line:
    values = [
        float(np.nanmean(found[name][test.suite].rates(test.metric)))
        for name in (test.arm, test.baseline)
    ]
    return Line(values[0], values[1], test)


def _text(compared: Compared) -> str:
    table = listing(
        "compared",
        "",
        "",
        compared.lines,
        worded("tasks of", lambda x: suite_title(x.test.suite)),
        worded("measure", lambda x: METRICS[x.test.metric] + ("" if _of_bits(x) else ", %")),
        worded("A", lambda x: x.test.arm[2:]),
        worded("B", lambda x: x.test.baseline[2:]),
        (Column("A"), lambda x: _value(x.first, x)),
        (Column("B"), lambda x: _value(x.second, x)),
        (Column("A − B"), lambda x: difference_cell(x.test)),
        (Column("ahead / behind"), lambda x: text(f"{x.test.ahead} / {x.test.behind}")),
        (Column("p"), lambda x: finding_cells(x.test)[0]),
        (Column("p corrected"), lambda x: finding_cells(x.test)[1]),
        (Column("finding", kind="text"), lambda x: finding_cells(x.test)[2]),
        (Column("because", kind="text"), lambda x: finding_cells(x.test)[3]),
    )
    tasks = ", ".join(f"{n} tasks of {suite_title(s)}" for s, n in compared.tasks.items())
    left_out = f"; {compared.only_one} that only one side judged are left out"
    claimed = [line.test for line in compared.lines if line.test.p_holm is not None]
    found = sum(test.finding != "no difference shown" for test in claimed)
    verdict = "no difference between A and B is shown"
    if found:
        verdict = f"{found} of {len(claimed)} comparisons find a difference"
    return "\n".join(
        [
            f"A  {compared.first}",
            f"B  {compared.second}",
            f"{tasks}{left_out if compared.only_one else ''}",
            *compared.notes,
            "",
            to_text(table),
            "",
            f"{verdict}; the finding is A's.",
            *textwrap.wrap(RULE, 100),
        ]
    )


def _of_bits(line: Line) -> bool:
    return line.test.metric == "bits_per_byte"


def _value(value: float, line: Line) -> Cell:
    return Cell(f"{value:.4f}", value=value) if _of_bits(line) else plain_percent(value)
