"""An audit as text for a terminal and as one self-contained HTML page."""

import textwrap
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from qaq.selection.audit_schema import Audit, Example, Group, Lengths, Moved, SubsetDiff

WIDTH = 100
BAR = 24
SHOWN = 15  # groups that a reader is shown one by one


def to_text(result: Audit | SubsetDiff) -> str:
    """The audit as lines of at most about 100 characters."""
    lines = _diff_lines(result) if isinstance(result, SubsetDiff) else _audit_lines(result)
    return "\n".join(lines)


def to_html(result: Audit | SubsetDiff) -> str:
    """The audit as a page that needs no network and no scripts."""
    environment = Environment(
        loader=PackageLoader("qaq.selection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _figure, "percent": _percent, "most": most}
    kind = "diff" if isinstance(result, SubsetDiff) else "audit"
    return environment.get_template(f"{kind}.html.j2").render(it=result)


def _audit_lines(it: Audit) -> list[str]:
    share = _percent(it.kept / it.rows)
    lines = [it.name, f"keeps {it.kept:,} of {it.rows:,} rows ({share}); {it.unscored:,} unscored"]
    if it.rule:
        lines.append(", ".join(f"{name}={value}" for name, value in it.rule.items()))
    lines += _groups("reason", it.by_reason, bars=False)
    for title, groups in (
        ("stratum of log PPL(Q)", it.by_stratum),
        ("source", most(it.by_source)),
        ("answer, characters", it.by_length),
        ("planted defect", it.by_defect),
    ):
        lines += _groups(title, groups)
    lines += _lengths(it.lengths)
    for title, examples in (("lowest ranks", it.lowest), ("highest ranks", it.highest)):
        lines += ["", title, *(line for e in examples for line in _example(e))]
    return lines


def _diff_lines(it: SubsetDiff) -> list[str]:
    lines = [
        f"{it.first} -> {it.second}",
        f"first keeps {it.kept_first:,}, second {it.kept_second:,} of {it.rows:,} rows; both "
        f"{it.kept_both:,} ({_percent(it.of_union)} of the union)",
        f"rank correlation (Spearman): {_figure(it.rank_correlation)}",
    ]
    if it.absent:
        lines.append(f"{it.absent:,} rows are in only one of the pools and are not counted")
    table = [(f"{m.rows:,}", m.first_reason, m.second_reason) for m in it.moves]
    lines += _table(("rows", f"first: {it.first}", f"second: {it.second}"), table)
    lines += _lengths(it.lengths)
    if it.by_source:
        rows = [(g.name, f"{g.rows - g.kept:,}", f"{g.kept:,}") for g in most(it.by_source)]
        lines += _table(("moved rows by source", "only first", "only second"), rows)
    for title, examples in (("only in the first", it.left), ("only in the second", it.entered)):
        lines += ["", title, *(line for e in examples for line in _moved(e))]
    return lines


def most(groups: Sequence[Group]) -> list[Group]:
    """The largest groups, and the others as one; JSON has them all."""
    first, rest = list(groups[:SHOWN]), groups[SHOWN:]
    if len(rest) < 2:
        return list(groups)
    others = Group(f"{len(rest)} others", sum(g.rows for g in rest), sum(g.kept for g in rest))
    return [*first, others]


def _groups(title: str, groups: Sequence[Group], bars: bool = True) -> list[str]:
    if not groups:
        return []
    if not bars:
        return _table((title, "rows"), [(g.name, f"{g.rows:,}") for g in groups])
    rows = [
        (g.name, f"{g.rows:,}", f"{g.kept:,}", _percent(g.share), "█" * round(BAR * g.share))
        for g in groups
    ]
    return _table((title, "rows", "kept", "share", ""), rows)


def _lengths(lengths: Sequence[Lengths]) -> list[str]:
    rows = [
        (part.name, f"{part.rows:,}", _quartiles(part.question), _quartiles(part.answer))
        for part in lengths
    ]
    head = ("characters: quartiles", "rows", "question", "answer")
    return _table(head, rows) if rows else []


def _quartiles(three: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:,.0f}" for value in three)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be; those of figures to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    figures = [all(row[i][:1].isdigit() for row in rows) for i in range(len(head))]
    lines = [""]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width, right) in enumerate(zip(row, widths, figures, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _example(it: Example) -> list[str]:
    stratum = "" if it.stratum is None else f", stratum {it.stratum}"
    head = (
        f"  {it.row_id}  rank {_figure(it.rank)}, score {_figure(it.score)}{stratum}; {it.reason}"
    )
    return [head, *_texts(it.question, it.answer)]


def _moved(it: Moved) -> list[str]:
    head = (
        f"  {it.row_id}  rank {_figure(it.first_rank)} -> {_figure(it.second_rank)}; "
        f"{it.first_reason} -> {it.second_reason}"
    )
    return [head, *_texts(it.question, it.answer)]


def _texts(question: str, answer: str) -> list[str]:
    return [f"    Q  {_one_line(question)}", f"    A  {_one_line(answer)}"]


def _one_line(text: str) -> str:
    return textwrap.shorten(text, width=WIDTH - 8, placeholder=" …")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
