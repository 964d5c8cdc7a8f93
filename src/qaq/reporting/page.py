"""The page and the terminal's summary: results, tables and figures in, text out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from qaq.reporting.analysis import ALL
from qaq.reporting.figures.style import Drawing
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title
from qaq.reporting.tables.cells import Table, spans, to_text


@dataclass(frozen=True)
class Section:
    """A part of the page; `parts` names its tables and figures ("figure:" in front)."""

    anchor: str
    title: str
    parts: tuple[str, ...]


SECTIONS = (
    Section("results", "Results", ("results", "figure:quality")),
    Section(
        "differences",
        "Which differences are real",
        ("figure:differences", "tests_pass", "power", "tests_bits"),
    ),
    Section("paper", "Beside the paper", ("paper",)),
    Section(
        "noise", "Planted noise", ("retention", "figure:retention", "separation", "figure:roc")
    ),
    Section("scores", "The scores", ("figure:rmi_map", "correlations")),
    Section("subsets", "The subsets", ("holdings", "figure:overlap", "overlap")),
    Section("cost", "Quality and cost", ("cost", "figure:cost")),
    Section("training", "Training", ("figure:loss",)),
    Section("contamination", "Contamination", ("contamination", "untouched")),
    Section("secondary", "Secondary tests", ("tests_untuned", "tests_detail")),
    Section("departures", "Departures from the paper", ("departures",)),
    Section("provenance", "Provenance", ("provenance",)),
)


class Told(Protocol):
    """What stands around the sections of any page."""

    @property
    def experiment(self) -> str:
        """Its name."""

    @property
    def subject(self) -> Mapping[str, str]:
        """The names of the pool and of the models."""

    @property
    def verdict(self) -> Sequence[str]:
        """What it says in sentences."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know about this very run."""

    @property
    def packages(self) -> Mapping[str, str]:
        """Versions by package."""

    @property
    def hardware(self) -> Sequence[str]:
        """Each machine as one line."""


def render(results: Results, tables: Mapping[str, Table], figures: Mapping[str, Drawing]) -> str:
    """The page of a report."""
    return render_page(results, facts(results), SECTIONS, tables, figures)


def render_page(
    results: Told,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    tables: Mapping[str, Table],
    figures: Mapping[str, Drawing],
) -> str:
    """A whole page: CSS and figures inside, no scripts, nothing to load."""
    environment = Environment(
        loader=PackageLoader("qaq.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = environment.get_template("style.css").render()
    return environment.get_template("page.html.j2").render(
        results=results,
        facts=facts,
        sections=[s for section in sections if (s := _filled(section, tables, figures)).parts],
        tables=tables,
        figures=figures,
        heads={name: heads(table) for name, table in tables.items()},
        svgs={name: Markup(drawing.svg) for name, drawing in figures.items()},
        css=Markup(css),
    )


def _filled(
    section: Section, tables: Mapping[str, Table], figures: Mapping[str, Drawing]
) -> Section:
    """The section with only the parts that exist; a figure stands in for the table it shows."""
    parts = [
        part
        for part in section.parts
        if (part in tables or part.removeprefix("figure:") in figures)
        and (part.startswith("figure:") or part in tables)
    ]
    if "figure:overlap" in parts and "overlap" in parts:
        parts.remove("overlap")
    return Section(section.anchor, section.title, tuple(parts))


def heads(table: Table) -> list[tuple[str, int]]:
    """The upper heading row as (text, columns spanned); empty if no column has a group."""
    found = [(group, len(places)) for group, places in spans(table)]
    return found if any(group for group, _ in found) else []


def facts(results: Results) -> list[tuple[str, str]]:
    """The few numbers under the title."""
    found: list[tuple[str, str]] = []
    if results.pool:
        found.append(("rows in the pool", f"{results.pool.rows:,}"))
        damaged = sum(results.pool.defects.values())
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
    shown = [tables[name] for name in ("results", "retention", "separation") if name in tables]
    return summary_text(shown, [*results.notes, *results.verdict])


def summary_text(tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Tables and, below them, sentences, as a terminal shows them."""
    parts = [f"{table.title}\n{to_text(table)}" for table in tables]
    return "\n\n".join([*parts, *_wrapped(sentences)]) + "\n"


def _wrapped(sentences: Sequence[str], width: int = 100) -> list[str]:
    import textwrap

    return [textwrap.fill(sentence, width) for sentence in sentences]
