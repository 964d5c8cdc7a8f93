"""The table that a reader sees first: every way of choosing, the best first, and what is shown."""

from urllib.parse import quote

from qaq.evidence.claims import FOUND
from qaq.page.tables import EMPTY, Cell, Column, Table, number, percent
from qaq.reporting.analysis import ALL, UNTUNED
from qaq.reporting.family import PRIMARY
from qaq.reporting.schema import Comparison, Results
from qaq.reporting.tables.arms import difference_cell, of_suite, spent

PROBLEMS = "problems.html"  # beside the report


def ranking_table(results: Results) -> Table | None:
    """Arms by pass@1, each with its verdict against all rows and against random, and its cost."""
    primary = [c for c in results.comparisons if c.family == PRIMARY]
    outcome = primary[0].metric if primary else "plus"
    judged = [(arm, whole) for arm in results.arms if (whole := of_suite(arm, ALL))]
    if not judged or outcome == "bits_per_byte":
        return None
    # `full` and `random` by what they are, any other arm by its name
    kind_of = {a.name: a.method for a in results.arms if a.method in ("full", "random")}
    kinds = {kind_of.get(c.baseline, c.baseline) for c in primary}
    against = [k for k in ("full", "random") if k in kinds] + sorted(kinds - {"full", "random"})
    columns = [Column("method", kind="text"), Column("rows"), Column(f"pass@1 {outcome} (%)")]
    columns += [Column(f"against {kind}", kind="text") for kind in against]
    columns += [Column("scoring + training s")]
    judged.sort(key=lambda one: (-getattr(one[1], outcome).value, one[0].method == UNTUNED))
    rows = []
    for arm, whole in judged:
        mine = [c for c in primary if c.arm == arm.name]
        cells = [
            Cell(arm.name, value=arm.name, link=subset_page(arm.name)),
            number(arm.holdings.rows if arm.holdings else None),
        ]
        cells += [percent(getattr(whole, outcome))]
        for kind in against:
            found = [c for c in mine if kind_of.get(c.baseline, c.baseline) == kind]
            cells += [_verdict(results, found[0]) if len(found) == 1 else EMPTY]
        rows.append((*cells, number(spent(arm))))
    note = (
        f"pass@1 over all {judged[0][1].tasks} tasks, all runs as one, with its 95% interval over "
        "tasks alone: how far the runs of one arm lie apart is not in it. The best first, which is "
        "not yet a difference: the verdicts say which differences are shown. Points, with "
        "intervals that hold for all comparisons at once."
    )
    return Table("ranking", "Which is best, and is it real?", note, tuple(columns), tuple(rows))


def subset_page(arm: str) -> str:
    """The address of the page of what an arm kept, beside the report."""
    return f"subsets/{quote(arm, safe='')}.html"


def _verdict(results: Results, c: Comparison) -> Cell:
    """The finding, with whether the arm is as good up to the margin, and the difference behind."""
    shown: str = c.finding
    loss = results.loss
    as_good = next((one for one in loss.arms if one.arm == c.arm), None) if loss else None
    if as_good and as_good.baseline == c.baseline and as_good.shown in ("non-inferior", "inferior"):
        shown += f"; {as_good.shown}"
    by = difference_cell(c)
    how = f"{by.text}, {by.interval}" if by.interval else "the same on every task"
    link = f"{PROBLEMS}#a={quote(c.arm)}&b={quote(c.baseline)}"
    return Cell(shown, how, c.difference, c.low, c.high, c.finding in FOUND, link)
