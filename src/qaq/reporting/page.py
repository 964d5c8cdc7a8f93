"""The page and the terminal's summary: results, tables and figures in, text out."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from qaq.reporting.figures import Drawing
from qaq.reporting.schema import Results
from qaq.reporting.table import Table, to_text


def render(results: Results, tables: Mapping[str, Table], figures: Mapping[str, Drawing]) -> str:
    """The whole page: CSS and figures inside, no scripts, nothing to load."""
    environment = Environment(
        loader=PackageLoader("qaq.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.j2")
    svgs = {name: Markup(drawing.svg) for name, drawing in figures.items()}
    return template.render(results=results, tables=tables, figures=figures, svgs=svgs)


def summary(results: Results, tables: Mapping[str, Table]) -> str:
    """The plain-text summary: the main table, the planted-noise table, the verdict."""
    parts = []
    for name in ("results", "retention", "separation"):
        if name in tables:
            parts.append(f"{tables[name].title}\n{to_text(tables[name])}")
    parts += [*results.notes, " ".join(results.verdict)]
    return "\n\n".join(parts) + "\n"
