"""The page and the terminal's summary of a report, a study or an audit: tables and figures in."""

import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import TypeAdapter

from qaq.page.drawing import Drawing
from qaq.page.tables import Table, spans, to_text
from qaq.store.tables import write_json


@dataclass(frozen=True)
class Section:
    """A part of the page; `parts` names its tables, figures ("figure:") and rows ("rows:")."""

    anchor: str
    title: str
    parts: tuple[str, ...]
    folded: bool = False


@dataclass(frozen=True)
class Entry:
    """A row of the pool as a reader sees it: what is known of it, then its texts."""

    head: str
    texts: tuple[str, ...]
    marked: bool = False


class Heading(Protocol):
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


def render_page(
    results: Heading,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    tables: Mapping[str, Table],
    figures: Mapping[str, Drawing],
    rows: Mapping[str, Sequence[Entry]] = MappingProxyType({}),
    tag: str | None = None,
    top: str = "",
    repeat: Sequence[tuple[str, str]] = (),
    pages: Sequence[tuple[str, str]] = (),
) -> str:
    """A whole page: CSS, figures and a script that sorts tables inside, nothing to load.

    Args:
        results: what stands around the sections.
        facts: a few numbers, by name.
        sections: in order; parts without data are left out.
        tag: the verdict in a word.
        top: the table that stands directly below the verdict.
        repeat: what was run, when and with which code, and what to do next: (what, how).
        pages: others beside it: (title, address).
    """
    there = {*tables, *(f"figure:{name}" for name in figures), *(f"rows:{name}" for name in rows)}
    return fill(
        "page.html.j2",
        results=results,
        facts=facts,
        sections=[s for section in sections if (s := _filled(section, there)).parts],
        tables=tables,
        figures=figures,
        rows=rows,
        heads={name: heads(table) for name, table in tables.items()},
        svgs={name: Markup(drawing.svg) for name, drawing in figures.items()},
        tag=tag,
        top=top if top in tables else "",
        repeat=repeat,
        pages=pages,
    )


def save_results(results: Any, path: Path) -> None:
    """Write `results.json` after a round trip through the schema of its class."""
    form = TypeAdapter(type(results))
    tree = form.dump_python(results, mode="json")
    form.validate_python(tree)
    write_json(path, tree)


def fill(template: str, **values: Any) -> str:
    """A page from its template: style and scripts stand inside, so that it needs no network."""
    environment = Environment(
        loader=PackageLoader("qaq.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inside = ("style.css", "sort.js", "problems.js")
    environment.globals["inside"] = {
        n: Markup(environment.get_template(n).render()) for n in inside
    }
    return environment.get_template(template).render(**values)


def _filled(section: Section, there: Set[str]) -> Section:
    """The section with only the parts that exist; a figure stands in for the table it shows."""
    parts = [part for part in section.parts if part in there]
    if "figure:overlap" in parts and "overlap" in parts:
        parts.remove("overlap")
    return replace(section, parts=tuple(parts))


def heads(table: Table) -> list[tuple[str, int]]:
    """The upper heading row as (text, columns spanned); empty if no column has a group."""
    found = [(group, len(places)) for group, places in spans(table)]
    return found if any(group for group, _ in found) else []


def summary_text(tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Tables and, below them, sentences, as a terminal shows them."""
    parts = [f"{table.title}\n{to_text(table)}" for table in tables]
    return "\n\n".join([*parts, *(textwrap.fill(one, 100) for one in sentences)]) + "\n"
