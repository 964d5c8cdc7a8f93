"""What the page and the terminal's summary of a report show, and in which order."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from types import MappingProxyType

from qaq.data.config import CONTROLS
from qaq.page.drawing import Drawing
from qaq.page.page import Entry, Section, render_page, summary_text
from qaq.page.tables import Cell, Table
from qaq.reporting.analysis import ALL
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title
from qaq.reporting.tables.ranking import PROBLEMS, subset_page
from qaq.reporting.verdict import tag

TRAINED = (
    Section(
        "results",
        "Result",
        ("figure:quality", "figure:differences", "tests_pass", "as_good", "power", "paper"),
    ),
    Section(
        "why",
        "Why",
        (
            "results",
            "tests_bits",
            "preferences",
            "cost",
            "figure:cost",
            "figure:loss",
            "tests_untuned",
        ),
    ),
)
DATA = (
    *("figure:kept", "holdings", "figure:overlap", "overlap"),
    *("retention", "figure:retention", "separation", "separation_free", "figure:roc"),
    *("figure:rmi_map", "metrics", "correlations", "contamination", "untouched"),
)
METHOD = (
    Section("method", "Method", ("departures", "tests_detail")),
    Section("provenance", "Provenance", ("provenance",), folded=True),
)


def render(
    results: Results,
    tables: Mapping[str, Table],
    figures: Mapping[str, Drawing],
    repeat: Sequence[tuple[str, str]] = (),
    store: str = "",
    examples: Mapping[str, Sequence[Entry]] = MappingProxyType({}),
    problems: bool = False,
) -> str:
    """The page of a report; where nothing was trained, what was kept is the result.

    Args:
        repeat: what was run, when and with which code.
        store: the option that names the store on a command line, or nothing.
        examples: by arm rows beside the cut; each of these arms has a page of its own.
        problems: whether there is a page of the single problems.
    """
    trained = any(arm.suites for arm in results.arms)
    rows = {f"{arm}: rows beside the cut": them for arm, them in examples.items() if them}
    parts = (*DATA[:1], *(f"rows:{name}" for name in rows), *DATA[1:])
    sections = (
        (*TRAINED, Section("data", "Data", parts), *METHOD)
        if trained
        else (Section("data", "What was kept", parts), *METHOD)
    )
    kept = {subset_page(arm): f"Rows of {arm}" for arm in examples}
    pages = {PROBLEMS: "Problem by problem"} if problems else {}
    tables = {n: _linked(t, {*pages, *kept}) if n == "ranking" else t for n, t in tables.items()}
    beside = pages if trained else pages | kept
    word = tag(results.comparisons, results.loss, results.power)
    repeat = (*repeat, *_exports(results, store)) if repeat else ()
    return render_page(
        results,
        facts(results),
        sections,
        tables,
        figures,
        rows,
        tag=word,
        top="ranking",
        repeat=repeat,
        pages=[(title, page) for page, title in beside.items()],
    )


def _linked(table: Table, pages: Set[str]) -> Table:
    """The table with links to these pages only."""

    def kept(cell: Cell) -> Cell:
        there = cell.link.partition("#")[0] in pages
        return cell if there or not cell.link else replace(cell, link="")

    return replace(table, rows=tuple(tuple(map(kept, row)) for row in table.rows))


def _exports(results: Results, store: str) -> list[tuple[str, str]]:
    """How to go on from each subset: its rows for another trainer, and why they were kept."""
    chosen = [p for p in results.provenance if p.kind == "subset"]
    names = dict.fromkeys(f"{p.name}-{p.key[:8]}" for p in chosen)
    whole = {p.role.split("/")[1] for p in chosen} & {
        a.name for a in results.arms if a.method == "full"
    }
    last = [n for n in names if not any(n.startswith(w) for w in whole)][-1:]
    return [
        (what, f"qaq {command}{store}")
        for name in last
        for what, command in (("audit", f"audit {name}"), ("export", f"export {name} chosen.jsonl"))
    ]


def facts(results: Results) -> list[tuple[str, str]]:
    """The few numbers under the title."""
    found: list[tuple[str, str]] = []
    if results.pool:
        found.append(("rows in the pool", f"{results.pool.rows:,}"))
        harmless = set(CONTROLS.values())
        damaged = sum(n for kind, n in results.pool.defects.items() if kind not in harmless)
        if damaged:
            found.append(("planted defects", f"{damaged:,}"))
    trained = [a for a in results.arms if a.method != "untuned"]
    if trained and any(a.seeds for a in trained):
        found.append(("training runs of an arm", str(max(len(a.seeds) for a in trained))))
    sizes = {s.suite: s.tasks for a in results.arms for s in a.suites if s.suite != ALL}
    found += [(f"{suite_title(suite)} tasks", str(n)) for suite, n in sorted(sizes.items())]
    return found


def summary(results: Results, tables: Mapping[str, Table]) -> str:
    """The plain-text summary: the main table, the planted-noise tables, the verdict."""
    names = ("results", "retention", "separation", "separation_free")
    shown = [tables[name] for name in names if name in tables]
    return summary_text(shown, [*results.notes, *results.verdict])
