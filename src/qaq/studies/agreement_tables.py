"""Tables of how far scores, rules and models agree."""

from collections.abc import Sequence

from qaq.evidence.estimate import Estimate
from qaq.page.tables import EMPTY, Cell, Column, Table, decimal, number, percent, text
from qaq.selection.ranks import FloatArray

PAPER_TUNED = 0.9539  # claim 6; rank or Pearson, the notes do not say
Named = tuple[str, str, Estimate, float | None]
Shared = tuple[str, str, Estimate, float, float | None]
Stable = tuple[str, Estimate | None, float, Estimate | None, Estimate | None]


def named_table(named: list[Named]) -> Table:
    """The correlations that have a name, beside the paper's values."""
    columns = (
        Column("score", kind="text"),
        Column("with", kind="text"),
        Column("Spearman"),
        Column("paper"),
    )
    rows = tuple((text(a), text(b), decimal(rho), _paper(paper)) for a, b, rho, paper in named)
    note = "Over the clean rows that have both; 95% intervals of Bonett and Wright."
    return Table("named", "How the scores relate", note, columns, rows)


def _paper(value: float | None, digits: int = 3) -> Cell:
    return EMPTY if value is None else Cell(f"{value:.{digits}f}", value=value)


def subset_table(subsets: list[Shared]) -> Table:
    """What Diff-High and Sum-High share under each reading of them."""
    columns = (
        Column("reading", kind="text"),
        Column("rows kept", kind="text"),
        Column("of Diff-High (%)", "rows in both"),
        Column("of the union (%)", "rows in both"),
        Column("paper (%)"),
    )
    rows = tuple(
        (
            text(name),
            text(sizes),
            percent(both),
            number(100 * union, 1),
            number(None if paper is None else 100 * paper, 2),
        )
        for name, sizes, both, union, paper in subsets
    )
    note = "The paper's notes give one overlap and do not say of what."
    return Table("subsets", "Diff-High and Sum-High", note, columns, rows)


def stability_table(tuned: list[Stable]) -> Table:
    """RMI before and after fine-tuning the scorer."""
    columns = (
        Column("scorer", kind="text"),
        Column("Spearman"),
        Column("Pearson"),
        Column("paper"),
        Column("the band (%)", "rows kept before and after"),
        Column("the top (%)", "rows kept before and after"),
    )
    rows = tuple(
        (
            text(scorer),
            decimal(rho) if rho else EMPTY,
            number(pearson, 3),
            _paper(PAPER_TUNED, 4),
            percent(band_) if band_ else EMPTY,
            percent(top_) if top_ else EMPTY,
        )
        for scorer, rho, pearson, band_, top_ in tuned
    )
    note = "RMI of the clean rows before and after fine-tuning the scorer on the whole pool."
    return Table("tuned", "Is one scoring pass enough?", note, columns, rows)


def matrix_table(name: str, title: str, labels: Sequence[str], values: FloatArray) -> Table:
    """Every two scores beside each other."""
    columns = (Column("score", kind="text"), *(Column(label) for label in labels))
    rows = tuple(
        (text(label), *(number(float(v), 2) for v in line))
        for label, line in zip(labels, values, strict=True)
    )
    return Table(name, title, "Over the clean rows.", columns, rows)
