"""An audit as text for a terminal and as one self-contained HTML page."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from qaq.page.drawing import Drawing
from qaq.page.page import Entry, Section, render_page
from qaq.page.tables import Column, Table, number, plain_percent, text
from qaq.page.tables import to_text as table_text
from qaq.selection.audit_schema import Audit, Example, Group, Lengths, Moved, SubsetDiff

WIDTH = 100
SHOWN = 15  # groups that a reader is shown one by one
QUARTILES = "characters, quartiles"


@dataclass(frozen=True)
class Shown:
    """An audit as its page has it: a heading, tables and rows of the pool by title."""

    experiment: str
    verdict: tuple[str, ...]
    tables: tuple[Table, ...]
    rows: dict[str, tuple[Entry, ...]]
    notes: tuple[str, ...] = ()
    subject: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    hardware: tuple[str, ...] = ()


def to_text(result: Audit | SubsetDiff) -> str:
    """The audit as lines of at most about 100 characters."""
    it = shown(result)
    lines = [it.experiment, *it.verdict, *it.notes]
    for table in it.tables:
        lines += ["", table.title, table_text(table)]
    for title, entries in it.rows.items():
        lines += ["", title]
        for entry in entries:
            lines.append(f"  {entry.head}")
            lines += [
                f"    {name}  {_one_line(t)}" for name, t in zip("QA", entry.texts, strict=True)
            ]
    return "\n".join(lines)


def to_html(
    result: Audit | SubsetDiff,
    figures: Mapping[str, Drawing] = MappingProxyType({}),
    next_steps: Sequence[tuple[str, str]] = (),
    pages: Sequence[tuple[str, str]] = (),
) -> str:
    """The audit as a page that needs no network.

    Args:
        next_steps: where the subset lies and what to do with it: (what, how).
        pages: others beside it: (title, address).
    """
    it = shown(result)
    drawn = tuple(f"figure:{name}" for name in figures)
    sections = [
        Section("tables", "What it holds and why", (*drawn, *(t.name for t in it.tables))),
        *(Section(f"rows{i}", title, (f"rows:{title}",)) for i, title in enumerate(it.rows)),
    ]
    tables = {t.name: t for t in it.tables}
    return render_page(it, (), sections, tables, figures, it.rows, repeat=next_steps, pages=pages)


def examples(it: Audit, count: int) -> tuple[Entry, ...]:
    """So many rows of each side of the cut."""
    return tuple(map(_example, (*it.kept_at_cut[:count], *it.dropped_at_cut[:count])))


def shown(result: Audit | SubsetDiff) -> Shown:
    """What the page and the terminal show."""
    return _diff(result) if isinstance(result, SubsetDiff) else _audit(result)


def _audit(it: Audit) -> Shown:
    rule = ", ".join(f"{name}={value}" for name, value in it.rule.items())
    kept = f"keeps {it.kept:,} of {it.rows:,} rows ({it.kept / it.rows:.1%}); "
    groups = (
        ("stratum", it.strata, it.by_stratum),
        ("source", "source", most(it.by_source)),
        ("length", "answer, characters", it.by_length),
        ("defect", "planted defect", it.by_defect),
    )
    reasons = tuple((text(g.name), number(g.rows)) for g in it.by_reason)
    columns = (Column("reason", kind="text"), Column("rows"))
    return Shown(
        experiment=it.name,
        verdict=(f"{kept}{it.unscored:,} unscored", *([rule] if rule else [])),
        tables=(
            Table("reason", "Why", "", columns, reasons),
            *(_groups(name, title, parts) for name, title, parts in groups if parts),
            *_lengths(it.lengths),
        ),
        rows={
            "Kept, nearest the cut": tuple(map(_example, it.kept_at_cut)),
            "Dropped, nearest the cut": tuple(map(_example, it.dropped_at_cut)),
            "Lowest ranks": tuple(map(_example, it.lowest)),
            "Highest ranks": tuple(map(_example, it.highest)),
        },
    )


def _diff(it: SubsetDiff) -> Shown:
    kept = (
        f"first keeps {it.kept_first:,}, second {it.kept_second:,} of {it.rows:,} rows; both "
        f"{it.kept_both:,} ({it.of_union:.1%} of the union)"
    )
    absent = f"{it.absent:,} rows are in only one of the pools and are not counted"
    moves = Table(
        "moves",
        "What moved, and why",
        "" if it.moves else "Nothing: the two keep the same rows.",
        (
            Column("rows"),
            Column(f"first: {it.first}", "", "text"),
            Column(f"second: {it.second}", "", "text"),
        ),
        tuple((number(m.rows), text(m.first_reason), text(m.second_reason)) for m in it.moves),
    )
    columns = (Column("source", kind="text"), Column("only first"), Column("only second"))
    sources = tuple(
        (text(g.name), number(g.rows - g.kept), number(g.kept)) for g in most(it.by_source)
    )
    by_source = Table("source", "Moved rows by source", "", columns, sources)
    return Shown(
        experiment=f"{it.first} -> {it.second}",
        verdict=(kept, f"rank correlation (Spearman): {_figure(it.rank_correlation)}"),
        notes=(absent,) if it.absent else (),
        tables=(moves, *_lengths(it.lengths), *([by_source] if sources else [])),
        rows={
            "Only in the first": tuple(map(_moved, it.left)),
            "Only in the second": tuple(map(_moved, it.entered)),
        },
    )


def most(groups: Sequence[Group]) -> list[Group]:
    """The largest groups, and the others as one; JSON has them all."""
    first, rest = list(groups[:SHOWN]), groups[SHOWN:]
    if len(rest) < 2:
        return list(groups)
    others = Group(f"{len(rest)} others", sum(g.rows for g in rest), sum(g.kept for g in rest))
    return [*first, others]


def _groups(name: str, title: str, groups: Sequence[Group]) -> Table:
    columns = (Column(title, kind="text"), Column("rows"), Column("kept"), Column("kept (%)"))
    rows = tuple(
        (text(g.name), number(g.rows), number(g.kept), plain_percent(g.share)) for g in groups
    )
    return Table(name, f"By {title}", "", columns, rows)


def _lengths(lengths: Sequence[Lengths]) -> list[Table]:
    columns = (
        Column("rows", kind="text"),
        Column("count"),
        Column("question", QUARTILES),
        Column("answer", QUARTILES),
    )
    rows = tuple(
        (text(p.name), number(p.rows), text(_quartiles(p.question)), text(_quartiles(p.answer)))
        for p in lengths
    )
    return [Table("lengths", "Lengths", "", columns, rows)] if rows else []


def _quartiles(three: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:,.0f}" for value in three)


def _example(it: Example) -> Entry:
    stratum = "" if it.stratum is None else f", stratum {it.stratum}"
    head = f"{it.row_id}  rank {_figure(it.rank)}, score {_figure(it.score)}{stratum}; {it.reason}"
    return Entry(head, (it.question, it.answer), it.kept)


def _moved(it: Moved) -> Entry:
    head = (
        f"{it.row_id}  rank {_figure(it.first_rank)} -> {_figure(it.second_rank)}; "
        f"{it.first_reason} -> {it.second_reason}"
    )
    return Entry(head, (it.question, it.answer))


def _one_line(value: str) -> str:
    return textwrap.shorten(value, width=WIDTH - 8, placeholder=" …")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
