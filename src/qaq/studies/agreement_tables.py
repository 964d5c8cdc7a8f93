"""Tables of how far scores, rules and models agree."""

from collections.abc import Sequence

from qaq.evidence.estimate import Estimate
from qaq.page.tables import Column, Table, decimal, listing, number, percent, text, worded
from qaq.selection.ranks import FloatArray

PAPER_TUNED = 0.9539  # claim 6; rank or Pearson, the notes do not say
Named = tuple[str, str, Estimate, float | None]
Shared = tuple[str, str, Estimate, float, float | None]
Stable = tuple[str, Estimate | None, float, Estimate | None, Estimate | None]


def named_table(named: list[Named]) -> Table:
    """The correlations that have a name, beside the paper's values."""
    return listing(
        "named",
        "How the scores relate",
        "Over the clean rows that have both; 95% intervals of Bonett and Wright.",
        named,
        worded("score", lambda n: n[0]),
        worded("with", lambda n: n[1]),
        (Column("Spearman"), lambda n: decimal(n[2])),
        (Column("paper"), lambda n: number(n[3], 3)),
    )


def subset_table(subsets: list[Shared]) -> Table:
    """What Diff-High and Sum-High share under each reading of them."""
    return listing(
        "subsets",
        "Diff-High and Sum-High",
        "The paper's notes give one overlap and do not say of what.",
        subsets,
        worded("reading", lambda s: s[0]),
        worded("rows kept", lambda s: s[1]),
        (Column("of Diff-High (%)", "rows in both"), lambda s: percent(s[2])),
        (Column("of the union (%)", "rows in both"), lambda s: number(100 * s[3], 1)),
        (Column("paper (%)"), lambda s: number(None if s[4] is None else 100 * s[4], 2)),
    )


def stability_table(tuned: list[Stable]) -> Table:
    """RMI before and after fine-tuning the scorer."""
    return listing(
        "tuned",
        "Is one scoring pass enough?",
        "RMI of the clean rows before and after fine-tuning the scorer on the whole pool.",
        tuned,
        worded("scorer", lambda t: t[0]),
        (Column("Spearman"), lambda t: decimal(t[1])),
        (Column("Pearson"), lambda t: number(t[2], 3)),
        (Column("paper"), lambda t: number(PAPER_TUNED, 4)),
        (Column("the band (%)", "rows kept before and after"), lambda t: percent(t[3])),
        (Column("the top (%)", "rows kept before and after"), lambda t: percent(t[4])),
    )


def matrix_table(name: str, title: str, labels: Sequence[str], values: FloatArray) -> Table:
    """Every two scores beside each other."""
    columns = (Column("score", kind="text"), *(Column(label) for label in labels))
    rows = tuple(
        (text(label), *(number(float(v), 2) for v in line))
        for label, line in zip(labels, values, strict=True)
    )
    return Table(name, title, "Over the clean rows.", columns, rows)
