"""What a study found: sentences, tables of values with intervals, drawings; and its `results.json`.

The tables are the numbers: `results.json` holds every cell's bare value and interval, typed and
versioned, and the page, the terminal and the files show the same cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from qaq.evidence import statistics
from qaq.evidence.separation import auroc, auroc_interval
from qaq.reporting.page import Section
from qaq.reporting.schema import Estimate, Provenance
from qaq.reporting.tables.cells import Table, headings
from qaq.selection.ranks import FloatArray, Mask, lowest
from qaq.store.tables import write_json

PROVENANCE = Section("provenance", "Provenance", ("provenance",))
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Findings:
    """What one kind of study says.

    `terminal` names the tables that a terminal shows; `hidden` ones are only written to files.
    """

    sentences: tuple[str, ...]
    sections: tuple[Section, ...]
    tables: tuple[Table, ...]
    figures: Mapping[str, tuple[Figure, str]]
    terminal: tuple[str, ...] = ()
    hidden: tuple[Table, ...] = ()
    facts: tuple[tuple[str, str], ...] = field(default=())


@checked(frozen=True, kw_only=True, config=STRICT)
class StoredCell:
    """A cell's value and, where there is one, its 95% interval."""

    value: float | int | str | None
    low: float | None = None
    high: float | None = None


@checked(frozen=True, kw_only=True, config=STRICT)
class StoredTable:
    """A table of the page as values."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[StoredCell, ...], ...]


@checked(frozen=True, kw_only=True, config=STRICT)
class StudyResults:
    """The form of a study's `results.json`."""

    schema_version: Literal[1] = 1
    experiment: str
    kind: str
    subject: dict[str, str]
    verdict: tuple[str, ...]
    tables: tuple[StoredTable, ...]
    notes: tuple[str, ...]
    provenance: tuple[Provenance, ...]
    packages: dict[str, str]
    hardware: tuple[str, ...]


def stored(table: Table) -> StoredTable:
    """The values of a table."""
    return StoredTable(
        name=table.name,
        title=table.title,
        note=table.note,
        columns=tuple(headings(table)),
        rows=tuple(
            tuple(StoredCell(value=c.value, low=c.low, high=c.high) for c in row)
            for row in table.rows
        ),
    )


def save(results: StudyResults, path: Path) -> None:
    """Write `results.json` after a round trip through the schema."""
    adapter = TypeAdapter(StudyResults)
    tree = adapter.dump_python(results, mode="json")
    adapter.validate_python(tree)
    write_json(path, tree)


def share(count: float, rows: float) -> Estimate | None:
    """A share of rows with Wilson's interval; None of no rows. Both may be means over draws."""
    n = round(rows)
    if n < 1:
        return None
    interval = statistics.wilson(min(count / rows, 1.0) * n, n)
    return Estimate(value=count / rows, low=interval.low, high=interval.high, n=n)


def shared(first: Mask, second: Mask) -> Estimate | None:
    """Which share of the first subset is in the second too."""
    return share(int((first & second).sum()), int(first.sum()))


def spearman(first: FloatArray, second: FloatArray) -> Estimate | None:
    """Rank correlation over the rows that have both; None where it cannot be told."""
    both = ~np.isnan(first) & ~np.isnan(second)
    x, y = first[both], second[both]
    if len(x) < 10 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    rho, interval = statistics.spearman(x, y)
    return Estimate(value=rho, low=interval.low, high=interval.high, n=len(x))


def area(score: FloatArray, bad: Mask, clean: Mask) -> Estimate | None:
    """AUROC with its bootstrap interval: the chance that a bad row scores above a clean one."""
    known = ~np.isnan(score)
    up, down = score[bad & known], score[clean & known]
    if not len(up) or not len(down):
        return None
    low, high = auroc_interval(up, down)
    return Estimate(value=auroc(up, down), low=low, high=high, n=len(up))


def top(score: FloatArray, ratio: float) -> Mask:
    """The share of the scored rows with the highest scores; of equals the first."""
    return lowest(-score, round(ratio * int((~np.isnan(score)).sum())))


def said(estimate: Estimate | None, digits: int = 2) -> str:
    """An estimate in a sentence."""
    if estimate is None:
        return "not measurable"
    values = (f"{v:.{digits}f}" for v in (estimate.value, estimate.low, estimate.high))
    return "{} [{} to {}]".format(*values).replace("-", "−")


def said_percent(estimate: Estimate | None) -> str:
    """A share in a sentence."""
    if estimate is None:
        return "not measurable"
    return f"{estimate.value:.0%} [{estimate.low:.0%} to {estimate.high:.0%}]"


def listed(names: list[str]) -> str:
    """Names as a sentence has them."""
    if len(names) < 2:
        return "".join(names) or "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"
