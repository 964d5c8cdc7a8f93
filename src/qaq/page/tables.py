"""The tables of the report: results in, cells out; and their Markdown, CSV and LaTeX forms.

A table is data (`Table`), so that the page, the terminal and the files show the same cells. Shares
are shown in percent, with the 95% interval in the same unit behind them.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from qaq.evidence.estimate import Estimate


@dataclass(frozen=True)
class Column:
    """A column: its heading, the heading above it (for the page), and how it is set."""

    title: str
    group: str = ""
    kind: Literal["text", "number"] = "number"


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: the text, its interval's text, and the bare values for the CSV.

    `link` is a page beside this one, with the place on it.
    """

    text: str
    interval: str = ""
    value: float | int | str | None = None
    low: float | None = None
    high: float | None = None
    strong: bool = False
    link: str = ""

    @property
    def whole(self) -> str:
        """Text and interval on one line."""
        return f"{self.text} [{self.interval}]" if self.interval else self.text


@dataclass(frozen=True)
class Table:
    """A named table with one sentence on how to read it."""

    name: str
    title: str
    note: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


EMPTY = Cell("–")
Field = tuple[Column, Callable[[Any], Cell]]


def listing(name: str, title: str, note: str, things: Iterable[Any], *fields: Field) -> Table:
    """A line for each thing; a field is a column and what makes its cell of a thing."""
    rows = tuple(tuple(cell(thing) for _, cell in fields) for thing in things)
    return Table(name, title, note, tuple(column for column, _ in fields), rows)


def worded(title: str, said: Callable[[Any], str]) -> Field:
    """A column of words."""
    return Column(title, kind="text"), lambda thing: text(said(thing))


def text(value: str, strong: bool = False) -> Cell:
    """A cell of words."""
    return Cell(value, value=value, strong=strong)


def number(value: float | None, digits: int = 0) -> Cell:
    """A plain number with thousands separated by a thin space."""
    if value is None or math.isnan(value):
        return EMPTY
    return Cell(f"{value:,.{digits}f}".replace(",", "\u2009"), value=value)


def percent(estimate: Estimate | None, digits: int = 1) -> Cell:
    """A share in percent with its interval."""
    if estimate is None:
        return EMPTY
    return Cell(
        f"{estimate.value * 100:.{digits}f}",
        # Where nothing is estimated, as of a thing and itself, there is no interval.
        f"{estimate.low * 100:.{digits}f}–{estimate.high * 100:.{digits}f}"
        if estimate.low < estimate.high
        else "",
        estimate.value,
        estimate.low,
        estimate.high,
    )


def plain_percent(share: float | None) -> Cell:
    """A share in percent without an interval."""
    return EMPTY if share is None else Cell(f"{share * 100:.1f}", value=share)


def decimal(estimate: Estimate | None, digits: int = 3) -> Cell:
    """A number with its interval."""
    if estimate is None:
        return EMPTY
    value, low, high = (f"{v:.{digits}f}".replace("-", "−") for v in _values(estimate))
    between = " to " if estimate.low < 0 else "–"
    return Cell(value, f"{low}{between}{high}", *_values(estimate))


def _values(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def signed(value: float, low: float, high: float, scale: float = 1.0, digits: int = 1) -> Cell:
    """A difference with its sign and interval."""
    shown = [f"{v * scale:+.{digits}f}".replace("-", "−") for v in (value, low, high)]
    return Cell(shown[0], f"{shown[1]} to {shown[2]}", value, low, high)


def headings(table: Table) -> list[str]:
    """Headings on one line, with the group in front."""
    return [f"{c.group} {c.title}".strip() for c in table.columns]


def to_text(table: Table) -> str:
    """Aligned plain text for the terminal, with the groups of columns on a line of their own."""
    lines = [[c.title for c in table.columns], *[[c.whole for c in row] for row in table.rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    above = ""
    for group, places in spans(table):
        missing = len(group) - sum(widths[i] for i in places) - 2 * (len(places) - 1)
        widths[places[-1]] += max(0, missing)
        room = sum(widths[i] for i in places) + 2 * (len(places) - 1)
        above += group.center(room) + "  "
    out = [above.rstrip()] if above.strip() else []
    for line in lines:
        cells = [
            cell.ljust(width) if column.kind == "text" else cell.rjust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ]
        out.append("  ".join(cells).rstrip())
    out.insert(len(out) - len(table.rows), "  ".join("─" * width for width in widths))
    return "\n".join(out)


def spans(table: Table) -> list[tuple[str, list[int]]]:
    """Columns beside each other that share a heading: (heading, places); "" stands alone."""
    keyed = [c.group or f"\0{i}" for i, c in enumerate(table.columns)]
    return [
        ("" if key.startswith("\0") else key, list(places))
        for key, places in groupby(range(len(keyed)), key=keyed.__getitem__)
    ]


def to_markdown(table: Table) -> str:
    """A GitHub table under its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = [":--" if c.kind == "text" else "--:" for c in table.columns]
    rows = [line([c.whole for c in row]) for row in table.rows]
    head = f"**{table.title}.** {table.note}\n"
    return "\n".join([head, line(headings(table)), line(rule), *rows]) + "\n"


def to_csv(table: Table) -> str:
    """Bare values; a cell with an interval takes three columns, and one more for its words."""
    spread = [any(row[i].interval for row in table.rows) for i in range(len(table.columns))]
    worded = [wide and c.kind == "text" for c, wide in zip(table.columns, spread, strict=True)]
    head: list[str] = []
    for title, wide, words in zip(headings(table), spread, worded, strict=True):
        head += [title, f"{title} value"] if words else [title]
        head += [f"{title} low", f"{title} high"] if wide else []
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in table.rows:
        cells: list[object] = []
        for cell, wide, words in zip(row, spread, worded, strict=True):
            cells += [cell.text if cell.value is not None else None] if words else []
            cells += [cell.value, cell.low, cell.high] if wide else [cell.value]
        writer.writerow(["" if c is None else c for c in cells])
    return out.getvalue()


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
    "−": "$-$",
    "\u2009": r"\,",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
}


def escape_latex(value: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(LATEX.get(character, character) for character in value)


def to_latex(table: Table) -> str:
    """A `booktabs` table; needs nothing but that package."""
    spec = "".join("l" if c.kind == "text" else "r" for c in table.columns)
    rows = [" & ".join(escape_latex(c.whole) for c in row) + r" \\" for row in table.rows]
    head = " & ".join(escape_latex(h) for h in headings(table)) + r" \\"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.note)}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write every table as .md, .csv and .tex into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for ending, render in (("md", to_markdown), ("csv", to_csv), ("tex", to_latex)):
            (folder / f"{table.name}.{ending}").write_text(render(table), encoding="utf-8")
