"""Figures that reports and studies share: the map of a pool's scores, and a matrix of numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qaq.evidence.estimate import FloatArray, Mask
from qaq.page.drawing import (
    ACCENT,
    DEFECT_COLOURS,
    DEFECT_SHAPES,
    INK,
    QUIET,
    RULE,
    Drawn,
    canvas,
    tidy,
)
from qaq.page.names import DEFECTS, order_defects

BINS = 10
ACROSS = "log PPL(Q), nats per token (right = less likely question)"
UP = "RMI, nats per token (up = answer helps more)"
GREY = "#b4bac6"  # seen on white and, inverted, on black
SHOWN_ROWS = 20_000  # a scatter of more points is a blot; a seeded sample of them is drawn


def score_map(tables: Mapping[str, pd.DataFrame]) -> Drawn | None:
    """RMI against log PPL(Q), damage coloured and shaped, decile edges drawn.

    One panel per model; where there are kinds of damage without a colour of their own, one per
    model and kind, with the clean rows behind.

    Args:
        tables: by model: `rmi`, `log_ppl_q` and `defect` of each row. Rows without a score are not
            drawn; None where no model has any, as in a framing that scores no question.
    """
    known = {role: table.dropna(subset=["rmi", "log_ppl_q"]) for role, table in tables.items()}
    known = {role: table for role, table in known.items() if len(table)}
    if not known:
        return None
    kinds = order_defects({str(k) for table in known.values() for k in table["defect"].dropna()})
    what = (
        "RMI of every scored row against log PPL(Q). The thin lines are the edges of the ten "
        "strata inside which stratified RMI ranks the rows."
    )
    if set(kinds) <= set(DEFECT_COLOURS):
        return _one_panel(known, kinds), what + (" Planted defects are coloured." if kinds else "")
    return _small_multiples(known, kinds), what + (
        " A panel for each kind of planted damage, coloured, before the clean rows in grey."
    )


def _one_panel(known: Mapping[str, pd.DataFrame], kinds: Sequence[str]) -> Figure:
    figure, panels = canvas(4.6 * len(known) + 0.6, 3.9, len(known))
    for axes, (role, rows) in zip(panels, known.items(), strict=True):
        _scatter(axes, rows, kinds)
        axes.set_title(f"{role} model")
        axes.set_xlabel(ACROSS)
    panels[0].set_ylabel(UP)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=len(labels),
            columnspacing=1.4,
            handletextpad=0.2,
            markerscale=1.6,
        )
    return figure


def _small_multiples(known: Mapping[str, pd.DataFrame], kinds: Sequence[str]) -> Figure:
    rows_of = -(-len(kinds) // 6)
    across = -(-len(kinds) // rows_of)
    count = rows_of * across
    size = 1.9 * across + 0.6, 1.75 * rows_of * len(known) + 0.5
    figure, panels = canvas(*size, count * len(known), across, sharex=True, sharey=True)
    for place, (role, rows) in enumerate(known.items()):
        mine = panels[place * count : (place + 1) * count]
        for axes in mine[len(kinds) :]:
            axes.set_visible(False)
        for axes, kind in zip(mine, kinds, strict=False):
            _scatter(axes, rows, [kind])
            axes.set_title(DEFECTS.get(kind, kind), fontsize=8.5)
        for axes in mine[::across]:
            axes.set_ylabel(f"{role} model", fontsize=8.5)
    _trim(panels[0], pd.concat(known.values()))
    figure.supxlabel(ACROSS, fontsize=9)
    figure.supylabel(UP, fontsize=9)
    return figure


def _scatter(axes: Axes, known: pd.DataFrame, kinds: Sequence[str]) -> None:
    """Points of `rmi` over `log_ppl_q`, of clean rows and these kinds, over the decile edges."""
    edges = np.quantile(known["log_ppl_q"], np.linspace(0, 1, BINS + 1)[1:-1])
    for edge in edges:
        axes.axvline(edge, color=RULE, linewidth=0.7, zorder=0)
    axes.axhline(0, color=QUIET, linewidth=0.7, zorder=1)
    groups = known["defect"].fillna("clean")
    shown = known if len(known) <= SHOWN_ROWS else known.sample(SHOWN_ROWS, random_state=0)
    for kind in ("clean", *kinds):
        rows = shown[groups[shown.index] == kind]
        size, alpha = (6, 0.75) if kind == "clean" else (13, 0.85)
        axes.scatter(
            rows["log_ppl_q"],
            rows["rmi"],
            s=size,
            c=DEFECT_COLOURS.get(kind, ACCENT),
            marker=DEFECT_SHAPES.get(kind, "o"),
            alpha=alpha,
            linewidths=0,
            label=DEFECTS.get(kind, kind),
            rasterized=True,
            zorder=2 if kind == "clean" else 3,
        )
    axes.tick_params(length=2)
    _trim(axes, known)


def _trim(axes: Axes, known: pd.DataFrame) -> None:
    """Show the middle 99.8% of each axis, so that single outliers do not squeeze the rest."""
    for setter, column in ((axes.set_xlim, "log_ppl_q"), (axes.set_ylim, "rmi")):
        low, high = np.quantile(known[column], [0.001, 0.999])
        margin = 0.06 * (high - low) or 1.0
        setter(low - margin, high + margin)


def histogram(axes: Axes, values: FloatArray, kept: Mask) -> None:
    """All rows (grey) and those kept (blue); the outer half percent in the end bars."""
    low, high = np.quantile(values, [0.005, 0.995])
    edges = np.linspace(low, high, 31) if low < high else np.array([low - 0.5, low + 0.5])
    inside = np.clip(values, low, high)
    for rows, colour in ((inside, GREY), (inside[kept], ACCENT)):
        axes.stairs(np.histogram(rows, edges)[0], edges, fill=True, color=colour)
    tidy(axes, "y")
    axes.locator_params(axis="x", nbins=4)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def kept_band(rows: pd.DataFrame, rank: str = "rank") -> Drawn | None:
    """The score that a rule ranks by, and the rank that it cuts, with what it keeps.

    Args:
        rows: `score`, `rank` (NaN where there is none) and `kept` of each row.
        rank: what the axis of the ranks says they are.
    """
    known = rows.dropna(subset=["score"])
    if known["score"].nunique() < 2:
        return None
    ranked = known.dropna(subset=["rank"])
    panels = [("score", "score that the rule ranks by (right = higher)", known)]
    if len(ranked):
        panels.append(("rank", f"{rank} (right = higher score)", ranked))
    figure, axes = canvas(4.4 * len(panels) + 0.4, 2.6, len(panels))
    for one, (column, label, shown) in zip(axes, panels, strict=True):
        histogram(one, shown[column].to_numpy(dtype=float), shown["kept"].to_numpy(dtype=bool))
        one.set_xlabel(label)
    axes[0].set_ylabel("rows")
    return figure, (
        f"All {len(known):,} rows with a score (grey) and the {int(known['kept'].sum()):,} of them "
        "that are kept (blue); rows beyond the outer half percent stand in the outermost bars."
    )


def triangle(
    names: Sequence[str], values: FloatArray, caption: str, *, shares: bool = False
) -> Drawn:
    """A symmetric matrix as a triangle of numbers: correlations, or `shares` in percent."""
    side = (0.55 if shares else 0.42) * len(names) + (1.6 if shares else 2.4)
    figure, (axes,) = canvas(side + 0.4, side - 0.4)
    below = np.where(np.tril(np.ones_like(values), -1) > 0, values, np.nan)[1:, :-1]
    colours, limits = ("Blues", (0, 1.1)) if shares else ("RdBu", (-1.2, 1.2))
    axes.imshow(below, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    for i, j in zip(*np.nonzero(np.isfinite(below)), strict=True):
        value = below[i, j]
        shown = f"{100 * value:.0f}" if shares else f"{value:.2f}".replace("-", "−")
        colour = "white" if abs(value) > (0.65 if shares else 0.75) else INK
        size = 9 if shares else 6.5
        axes.text(j, i, shown, ha="center", va="center", color=colour, fontsize=size)
    turned = 35 if shares else 45
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=turned, ha="right")
    axes.set_yticks(range(len(names) - 1), names[1:])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, caption
