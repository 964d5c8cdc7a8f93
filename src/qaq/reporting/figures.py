"""The figures of the report, drawn with matplotlib as SVG (for the page) and PNG.

Each is a pure drawing of tables that are also in the report; one without data is left out.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from qaq.reporting.analysis import ALL
from qaq.reporting.collect import Collected
from qaq.reporting.evidence import direction
from qaq.reporting.schema import Results
from qaq.reporting.tables import DEFECTS, of_suite, suite_title, suites_of

INK, QUIET, RULE = "#1f2430", "#8b909c", "#d9dce3"
ACCENT = "#2f5d8a"
# Okabe and Ito's palette (distinct for colour-blind readers), one fixed colour per defect.
COLOURS = {
    "swapped_answer": "#d55e00",
    "echo": "#0072b2",
    "invented_terms": "#cc79a7",
    "truncated": "#e69f00",
    "not_code": "#009e73",
    "clean": "#b9bec9",
}
ARM_COLOURS = (
    "#2f5d8a",
    "#c8553d",
    "#588157",
    "#b08968",
    "#6d597a",
    "#3a86a8",
    "#d4a017",
    "#5f6470",
)
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "qaq",  # the same numbers give the same file
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its name, one sentence on what it shows, and the SVG text."""

    name: str
    caption: str
    svg: str


Drawn = tuple[Canvas, str] | None


def draw_all(data: Collected, results: Results, folder: Path) -> dict[str, Drawing]:
    """Draw every figure that has data into `folder`; returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    with matplotlib.rc_context(STYLE):
        for name, draw in FIGURES.items():
            drawn = draw(data, results)
            if drawn is not None:
                made[name] = _save(name, *drawn, folder)
    return made


def _save(name: str, canvas: Canvas, caption: str, folder: Path) -> Drawing:
    text = io.StringIO()
    canvas.savefig(text, format="svg", bbox_inches="tight", dpi=200, metadata={"Date": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    canvas.savefig(folder / f"{name}.png", bbox_inches="tight", dpi=160)
    return Drawing(name=name, caption=caption, svg=svg[svg.index("<svg") :])


FIGURES: Mapping[str, Callable[[Collected, Results], Drawn]] = {}
