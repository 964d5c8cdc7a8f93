"""How figures look and how they are written: SVG for the page, PNG beside it."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK, QUIET, RULE = "#1f2430", "#7c8290", "#dfe2e8"
ACCENT = "#2f5d8a"
# Okabe and Ito's palette, distinct to colour-blind readers, for the kinds of damage that may share
# a panel; each has a shape besides. Other kinds get a panel of their own.
DEFECT_COLOURS = {
    "clean": "#c3c7d0",
    "swapped_answer": "#d55e00",
    "echo": "#0072b2",
    "invented_terms": "#cc79a7",
    "truncated": "#e69f00",
    "not_code": "#009e73",
}
# The same palette for series, each with a shape of its own besides.
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SHAPES = ("o", "s", "D", "^", "v", "P", "X")
DEFECT_SHAPES = dict(zip(DEFECT_COLOURS, ("o", "s", "D", "^", "v", "X"), strict=True))
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.hashsalt": "qaq",  # the same numbers give the same file
    "savefig.facecolor": "white",
    "axes.facecolor": "none",  # a page has its own, light or dark
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its name, a caption, and the SVG element."""

    name: str
    caption: str
    svg: str


Drawn = tuple[Figure, str]  # a figure and its caption


def draw(drawn: Mapping[str, Drawn], folder: Path) -> dict[str, Drawing]:
    """Write figures, each with its caption, into `folder`; returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        return {name: save(name, *one, folder) for name, one in drawn.items()}


def canvas(
    width: float, height: float, panels: int = 1, per_row: int = 6, **layout: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with `panels` axes, so many in a row."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.05))
    columns = min(panels, per_row)
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False, **layout).ravel()
    for place in range(panels, len(axes)):
        axes[place].set_visible(False)
        if place >= columns:  # the panel above it has the numbers then
            axes[place - columns].tick_params(labelbottom=True)
    return figure, list(axes[:panels])


def save(name: str, figure: Figure, caption: str, folder: Path) -> Drawing:
    """Write `<name>.svg` and `<name>.png`; returns the SVG ready to stand in a page."""
    svg = _svg(figure)
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    figure.savefig(folder / f"{name}.png", dpi=160)
    return Drawing(name=name, caption=caption, svg=_inline(name, svg, figure.get_figwidth()))


def element(name: str, make: Callable[[], Drawn | None]) -> dict[str, Drawing]:
    """A figure that only stands in a page, by its name; nothing where there is nothing to draw."""
    with matplotlib.rc_context(STYLE):
        if (drawn := make()) is None:
            return {}
        svg = _inline(name, _svg(drawn[0]), drawn[0].get_figwidth())
    return {name: Drawing(name=name, caption=drawn[1], svg=svg)}


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", dpi=180, metadata={"Date": None}, facecolor="none")
    return text.getvalue()


def _inline(name: str, svg: str, inches: float) -> str:
    """The bare element, sized by the page, with ids that no other figure on it has.

    At most 6.2 rem an inch, so that text has one size in all figures.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element).replace("url(#", f"url(#{name}-")
    size = f'style="--wide: {inches * 6.2:.1f}rem"'
    return re.sub(
        r'<svg (.*?)width="[^"]*"(.*?)height="[^"]*"', rf"<svg {size} \1\2", element, count=1
    )


def tidy(axes: Axes, grid: Literal["x", "y"] = "x") -> None:
    """A quiet grid behind the marks, few numbers, no ticks on the axis of names."""
    axes.locator_params(axis=grid, nbins=5)
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left" if grid == "x" else "bottom"].set_visible(grid != "x")
