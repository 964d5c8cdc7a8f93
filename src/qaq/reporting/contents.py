"""What the page and the terminal's summary of a report show, and in which order."""

from collections.abc import Mapping

from qaq.data.config import CONTROLS
from qaq.page.drawing import Drawing
from qaq.page.page import Section, render_page, summary_text
from qaq.page.tables import Table
from qaq.reporting.analysis import ALL
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title

SECTIONS = (
    Section("results", "Results", ("results", "figure:quality")),
    Section(
        "differences",
        "Which differences are real",
        ("figure:differences", "tests_pass", "as_good", "power", "tests_bits"),
    ),
    Section("paper", "Beside the paper", ("paper",)),
    Section(
        "noise",
        "Planted noise",
        ("retention", "figure:retention", "separation", "separation_free", "figure:roc"),
    ),
    Section("scores", "The scores", ("figure:rmi_map", "metrics", "correlations")),
    Section("subsets", "The subsets", ("holdings", "figure:overlap", "overlap")),
    Section("cost", "Quality and cost", ("cost", "figure:cost")),
    Section("training", "Training", ("figure:loss",)),
    Section("contamination", "Contamination", ("contamination", "untouched")),
    Section("secondary", "Secondary tests", ("tests_untuned", "tests_detail")),
    Section("departures", "Departures from the paper", ("departures",)),
    Section("provenance", "Provenance", ("provenance",)),
)


def render(results: Results, tables: Mapping[str, Table], figures: Mapping[str, Drawing]) -> str:
    """The page of a report."""
    return render_page(results, facts(results), SECTIONS, tables, figures)


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
    found.append(("arms", str(len(trained))))
    if trained and any(a.seeds for a in trained):
        found.append(("seeds", str(max(len(a.seeds) for a in trained))))
    sizes = {s.suite: s.tasks for a in results.arms for s in a.suites if s.suite != ALL}
    found += [(f"{suite_title(suite)} tasks", str(n)) for suite, n in sorted(sizes.items())]
    return found


def summary(results: Results, tables: Mapping[str, Table]) -> str:
    """The plain-text summary: the main table, the planted-noise tables, the verdict."""
    names = ("results", "retention", "separation", "separation_free")
    shown = [tables[name] for name in names if name in tables]
    return summary_text(shown, [*results.notes, *results.verdict])
