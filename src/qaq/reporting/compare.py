"""Compares any two results, task by task: `qaq compare A B`.

Each side is a report of this project (its folder, `results.json` or `per_problem.parquet`), a
folder of outcomes, or a result file of EvalPlus (`*_eval_results.json`). Only tasks that both sides
judged take part; the tests and intervals are those of the report, corrected over all comparisons of
pass@1. Bits per byte are shown and decide nothing.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from qaq.evidence.claims import RULE
from qaq.host.errors import DataError
from qaq.page.tables import Cell, Column, Table, plain_percent, text, to_text
from qaq.reporting.analysis import ALL, UNTUNED, Grid, Pair, described, grids, tested
from qaq.reporting.schema import Comparison, Metric
from qaq.reporting.tables.arms import METRICS, difference_cell, finding_cells, suite_title
from qaq.store.tables import PER_PROBLEM, read_json, read_table

COLUMNS = ["arm", "seed", "benchmark", "task_id", "sample", "base_passed", "plus_passed"]
BITS = "solution_bits_per_byte"
SUITES = {"HumanEval": "humaneval", "Mbpp": "mbpp"}  # by the part of a task id before the slash


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
    """

    first: str
    second: str
    tasks: dict[str, int]
    only_one: int
    lines: tuple[Line, ...]

    @property
    def tree(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        tree: dict[str, Any] = TypeAdapter(Compared).dump_python(self, mode="json")
        return tree

    @property
    def text(self) -> str:
        """Everything as a table for the terminal, and what it means."""
        return _text(self)


def compare(a: Path, b: Path, arm_a: str | None = None, arm_b: str | None = None) -> Compared:
    """Compare two results on the tasks that both judged.

    Args:
        a, b: reports, outcome folders or EvalPlus result files.
        arm_a, arm_b: which arm of a report; by default those that both sides have, or, where one
            side is a single result, each arm with that one.

    Raises:
        DataError: a path is none of these, an arm is not there, or no task is common to both.
    """
    first, second = _chosen(load(a), arm_a, a), _chosen(load(b), arm_b, b)
    ids = [_ids(side) for side in (first, second)]
    common = ids[0] & ids[1]
    if not common:
        raise DataError(f"{a} and {b} have no task in common; compare results of one benchmark")
    sides = {"a": _common(first, common), "b": _common(second, common)}
    found = {
        f"{side}:{arm}": one for side, rows in sides.items() for arm, one in grids(rows).items()
    }
    pairs = list(_pairs(found, [m for m in METRICS if _measured(sides.values(), m)]))
    tests = tested([p for p in pairs if p.metric != "bits_per_byte"], found)
    tests += described([p for p in pairs if p.metric == "bits_per_byte"], found)
    if not tests:
        raise DataError(f"{a} and {b} have different numbers of samples per task; judge them alike")
    counts = pd.Series([suite for suite, _ in common]).value_counts()
    return Compared(
        first=str(a),
        second=str(b),
        tasks={str(k): int(v) for k, v in sorted(counts.items())},
        only_one=len(ids[0] ^ ids[1]),
        lines=tuple(_line(test, found) for test in tests),
    )


def load(path: Path) -> pd.DataFrame:
    """The per-problem rows of a result: `arm`, `seed` and what was judged.

    Raises:
        DataError: the path is none of the forms that can be read.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name not in ("results.json", "per_problem.parquet"):
        return _evalplus(path)
    file = folder / "per_problem.parquet"
    if not file.is_file():
        raise DataError(
            f"{path}: no result there; expected a report, a folder of outcomes or a file of "
            "EvalPlus (*_eval_results.json)"
        )
    rows: pd.DataFrame = read_table(file, PER_PROBLEM).to_pandas()
    named = pd.read_parquet(file)
    rows["arm"] = named.get("arm", folder.name)
    rows["seed"] = named.get("seed", 0)
    return rows[[*COLUMNS, BITS]]


def _evalplus(path: Path) -> pd.DataFrame:
    try:
        judged = read_json(path)["eval"]
        rows = [
            {
                "arm": path.name.removesuffix("_eval_results.json"),
                "seed": 0,
                "benchmark": SUITES.get(task.split("/", maxsplit=1)[0], "other"),
                "task_id": task,
                "sample": sample,
                "base_passed": one["base_status"] == "pass",
                "plus_passed": _status(one.get("plus_status")),
                BITS: float("nan"),
            }
            for task, samples in judged.items()
            for sample, one in enumerate(samples)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path}: not a result file of EvalPlus; expected JSON with an `eval` of tasks"
        ) from None
    if not rows:
        raise DataError(f"{path}: it holds no judged task")
    return pd.DataFrame(rows)


def _status(status: str | None) -> bool | None:
    """Whether the plus tests passed; null where only the base tests ran."""
    return None if status is None else status == "pass"


def _chosen(rows: pd.DataFrame, arm: str | None, path: Path) -> pd.DataFrame:
    names = sorted(rows["arm"].unique())
    if arm is None:
        return rows
    if arm not in names:
        raise DataError(f"{path}: there is no arm {arm}; it has {', '.join(names)}")
    return rows[rows["arm"] == arm]


def _ids(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(rows["benchmark"], rows["task_id"], strict=True))


def _common(rows: pd.DataFrame, ids: set[tuple[str, str]]) -> pd.DataFrame:
    keys = zip(rows["benchmark"], rows["task_id"], strict=True)
    kept = rows[[key in ids for key in keys]].copy()
    # A measure that one side lacks is not compared, so its place may be filled.
    kept["plus_passed"] = kept["plus_passed"].where(kept["plus_passed"].notna(), False).astype(bool)
    return kept.assign(plus_known=rows["plus_passed"].notna())


def _measured(sides: Any, metric: Metric) -> bool:
    """Whether both sides have the measure."""
    column = {"plus": "plus_known", "bits_per_byte": BITS}.get(metric)
    if column is None:
        return True
    return all(bool((s[column] if metric == "plus" else s[column].notna()).all()) for s in sides)


def _pairs(found: Mapping[str, Mapping[str, Grid]], metrics: list[Metric]) -> Iterator[Pair]:
    """Arms of the same name, or all with the only one of a side; suites and all tasks together."""
    names: dict[Literal["a", "b"], list[str]] = {
        "a": [n[2:] for n in found if n.startswith("a:")],
        "b": [n[2:] for n in found if n.startswith("b:")],
    }
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


def _line(test: Comparison, found: Mapping[str, Mapping[str, Grid]]) -> Line:
    values = [
        float(np.nanmean(found[name][test.suite].rates(test.metric)))
        for name in (test.arm, test.baseline)
    ]
    return Line(values[0], values[1], test)


def _text(compared: Compared) -> str:
    table = Table(
        name="compared",
        title="",
        note="",
        columns=(
            Column("tasks of", kind="text"),
            Column("measure", kind="text"),
            Column("A", kind="text"),
            Column("B", kind="text"),
            Column("A"),
            Column("B"),
            Column("A − B"),
            Column("ahead / behind"),
            Column("p"),
            Column("p corrected"),
            Column("finding", kind="text"),
            Column("because", kind="text"),
        ),
        rows=tuple(_cells(line) for line in compared.lines),
    )
    tasks = ", ".join(f"{n} tasks of {suite_title(s)}" for s, n in compared.tasks.items())
    left_out = f"; {compared.only_one} that only one side judged are left out"
    claimed = [line.test for line in compared.lines if line.test.p_holm is not None]
    found = sum(test.finding != "not told apart" for test in claimed)
    verdict = f"{found} of {len(claimed)} comparisons find a difference"
    return "\n".join(
        [
            f"A  {compared.first}",
            f"B  {compared.second}",
            f"{tasks}{left_out if compared.only_one else ''}",
            "",
            to_text(table),
            "",
            f"{verdict if found else 'A and B cannot be told apart'}; the finding is A's.",
            *textwrap.wrap(RULE, 100),
        ]
    )


def _cells(line: Line) -> tuple[Cell, ...]:
    test = line.test
    bits = test.metric == "bits_per_byte"
    values = [
        Cell(f"{v:.4f}", value=v) if bits else plain_percent(v) for v in (line.first, line.second)
    ]
    return (
        text(suite_title(test.suite)),
        text(METRICS[test.metric] + ("" if bits else ", %")),
        text(test.arm[2:]),
        text(test.baseline[2:]),
        *values,
        difference_cell(test),
        text(f"{test.ahead} / {test.behind}"),
        *finding_cells(test),
    )
