"""What a study found: sentences, tables of values with intervals, drawings; and its `results.json`.

The tables are the numbers: `results.json` holds every cell's bare value and interval, typed and
versioned, and the page, the terminal and the files show the same cells.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from pydantic.dataclasses import dataclass as checked

from qaq.evidence.estimate import STRICT, Estimate
from qaq.page.page import Section
from qaq.page.provenance import Provenance
from qaq.page.tables import Table, headings
from qaq.selection.config import Selector
from qaq.selection.decision import TooFewRows
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, Mask, lowest
from qaq.selection.rules import select

DRAWS = 50  # halves of the pool from which two rules choose again
PROVENANCE = Section("provenance", "Provenance", ("provenance",), folded=True)


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


Choice = Callable[[Mask], Mask]  # which of some rows are kept; both over all rows


def chosen(pool: Pool, rule: Selector, ratio: float) -> Choice:
    """A rule that can choose again from a part of the pool; nothing where it keeps too few rows."""

    def choose(rows: Mask) -> Mask:
        kept = np.zeros(len(rows), np.bool_)
        with suppress(TooFewRows):
            kept[rows] = select(rule, pool.take(rows), ratio=ratio).kept
        return kept

    return choose


def overlap(first: Choice, second: Choice, rows: Mask, draws: int = DRAWS) -> Estimate | None:
    """Which share of the first choice is in the second too, both made of the same rows.

    Kept rows are not independent: a rule's ranks and cut depend on the whole pool. The interval
    therefore chooses again from random halves of the rows; the spread of a half's share around
    the whole's is that of a bootstrap of all rows (Politis, Romano and Wolf 1999). Rows of which
    a rule with a fixed threshold keeps nothing have no share: None if it is all of them, and if no
    half has one, the interval is all of [0, 1]. Where both keep the same rows nothing is estimated,
    and low = high = 1.
    """

    def part(among: Mask) -> float:
        kept, other = first(among), second(among)
        both = kept.any() and other.any()
        return float((kept & other).sum() / kept.sum()) if both else np.nan

    kept, other = first(rows), second(rows)
    n = int(kept.sum())
    value = part(rows)
    if np.isnan(value):
        return None
    if np.array_equal(kept, other):
        return Estimate(value=1.0, low=1.0, high=1.0, n=n)
    rng, members = np.random.default_rng(0), np.flatnonzero(rows)
    halves: list[float] = []
    for _ in range(draws):
        half = np.zeros(len(rows), np.bool_)
        half[rng.choice(members, len(members) // 2, replace=False)] = True
        halves.append(part(half))
    if np.isnan(halves).all():
        return Estimate(value=value, low=0.0, high=1.0, n=n)
    spread = 1.96 * float(np.sqrt(np.nanmean((np.array(halves) - value) ** 2)))
    return Estimate(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread), n=n)


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
