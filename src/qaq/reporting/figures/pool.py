"""Figures about the pool: where defects lie in the scores, and which rule keeps them."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qaq.evidence.separation import roc as curve
from qaq.reporting.collect import Collected
from qaq.reporting.evidence import SCORES, direction
from qaq.reporting.figures.style import DEFECT_COLOURS, INK, QUIET, RULE, canvas, tidy
from qaq.reporting.schema import Results
from qaq.reporting.tables.pool import DEFECTS, order_defects

BINS = 10
SHOWN_ROWS = 20_000  # a scatter of more points is a blot; a seeded sample of them is drawn

MOST_ARMS = 40


def rmi_map(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """RMI against log PPL(Q), one panel per model, defects coloured, decile edges drawn."""
    if data.pool is None:
        return None
    # A framing that scores no answer without its question, or no question, has no RMI to draw.
    joined = {
        role: known
        for role, scores in data.scores.items()
        if len(
            known := data.pool.merge(scores, on="row_id", validate="1:1").dropna(
                subset=["rmi", "log_ppl_q"]
            )
        )
    }
    if not joined:
        return None
    figure, panels = canvas(4.6 * len(joined) + 0.6, 3.9, len(joined))
    for axes, (role, known) in zip(panels, joined.items(), strict=True):
        shown = known if len(known) <= SHOWN_ROWS else known.sample(SHOWN_ROWS, random_state=0)
        scatter(axes, shown)
        axes.set_title(f"{role} model")
        axes.set_xlabel("log PPL(Q), nats per token")
    panels[0].set_ylabel("RMI, nats per token")
    handles, labels = panels[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=len(labels) if len(labels) < 7 else 4,
            columnspacing=1.4,
            handletextpad=0.2,
            markerscale=1.6,
        )
    noise = " Planted defects are coloured." if len(labels) > 1 else ""
    return figure, (
        "RMI of every scored row against log PPL(Q). The thin lines are the edges of the ten "
        f"strata inside which stratified RMI ranks the rows.{noise}"
    )


def scatter(axes: Axes, known: pd.DataFrame) -> None:
    """Points of `rmi` over `log_ppl_q`, coloured by `defect`, over the edges of the deciles."""
    edges = np.quantile(known["log_ppl_q"], np.linspace(0, 1, BINS + 1)[1:-1])
    for edge in edges:
        axes.axvline(edge, color=RULE, linewidth=0.7, zorder=0)
    axes.axhline(0, color=QUIET, linewidth=0.7, zorder=1)
    groups = known["defect"].fillna("clean")
    for kind in ["clean", *order_defects(set(groups) - {"clean"})]:
        rows = known[groups == kind]
        colour = DEFECT_COLOURS.get(kind, INK)
        size, alpha = (6, 0.75) if kind == "clean" else (11, 0.85)
        axes.scatter(
            rows["log_ppl_q"],
            rows["rmi"],
            s=size,
            c=colour,
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


def retention(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """For each defect, the share that each arm keeps beside the share of clean rows it keeps."""
    arms = [a.name for a in data.spec.arms if a.method != "full"]
    cells = {(r.arm, r.defect): r.kept for r in results.retentions if r.arm in arms}
    arms = [a for a in arms if (a, "clean") in cells]
    kinds = order_defects({d for _, d in cells} - {"clean"})
    if not kinds or not arms:
        return None
    in_row = 5 if len(kinds) < 6 else 6
    rows = -(-len(kinds) // in_row)
    width, height = 1.5 * min(in_row, len(kinds)) + 1.2, rows * (0.3 * len(arms) + 0.75) + 0.4
    figure, panels = canvas(width, height, len(kinds), in_row, sharey=True)
    places = np.arange(len(arms))[::-1]
    for axes, kind in zip(panels, kinds, strict=True):
        clean = np.array([cells[a, "clean"].value for a in arms]) * 100
        kept = [cells[a, kind] for a in arms]
        share = np.array([k.value for k in kept]) * 100
        colour = DEFECT_COLOURS.get(kind, INK)
        axes.hlines(places, clean, share, color=colour, linewidth=1.6, alpha=0.45)
        axes.hlines(
            places,
            [k.low * 100 for k in kept],
            [k.high * 100 for k in kept],
            color=colour,
            linewidth=0.7,
        )
        axes.plot(clean, places, "o", color="white", markeredgecolor=QUIET, markersize=5)
        axes.plot(share, places, "o", color=colour, markersize=6)
        axes.set_title(DEFECTS.get(kind, kind), fontsize=8.5)
        axes.set_xlim(-4, 104)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks(places, arms)
        tidy(axes)
    figure.supxlabel("rows kept, %", fontsize=9)
    return figure, (
        "Share of each planted defect that each arm keeps (filled, with its 95% interval), beside "
        "the share of clean rows it keeps (hollow). A filled mark to the left of the hollow one: "
        "the rule removes the defect."
    )


def roc(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """ROC curves of RMI and IFD against each defect, strong model (else the one there is)."""
    role = next(iter(data.scores), None)
    if data.pool is None or role is None or not results.separations:
        return None
    known = data.pool.merge(data.scores[role], on="row_id", validate="1:1")
    by_score = {
        score: {s.defect: s for s in results.separations if s.model == role and s.score == score}
        for score in SCORES
    }
    by_score = {score: mine for score, mine in by_score.items() if mine}
    if not by_score:
        return None
    figure, panels = canvas(4.3 * len(by_score), 4.0, len(by_score))
    for axes, (score, mine) in zip(panels, by_score.items(), strict=True):
        axes.plot([0, 100], [0, 100], color=RULE, linewidth=0.8)
        rows = known.dropna(subset=[score])
        for found in (mine[kind] for kind in order_defects(set(mine))):
            sign = 1.0 if direction(score, found.defect) == "high" else -1.0
            bad = sign * rows.loc[rows["defect"] == found.defect, score].to_numpy()
            clean = sign * rows.loc[rows["defect"].isna(), score].to_numpy()
            axes.plot(
                *(100 * rate for rate in curve(bad, clean)),
                color=DEFECT_COLOURS.get(found.defect, INK),
                linewidth=1.6,
                label=DEFECTS.get(found.defect, found.defect),
            )
        axes.set_title(f"{score.upper()}, {role} model")
        axes.set_xlabel("clean rows flagged, %")
        axes.set_aspect("equal")
        axes.tick_params(length=2)
    panels[0].set_ylabel("defective rows flagged, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels) if len(labels) < 7 else 4
    )
    return figure, (
        "Which share of the defective rows a threshold on the score flags, against the share of "
        "clean rows it flags with them, from the end that the table states. The diagonal is a "
        "score that is blind to the defect."
    )


def overlap(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """How much two subsets share, as a triangle of numbers; of more than MOST_ARMS, a table's job.

    The figure grows with the square of the arms: at 100 it took 30 s and 4 GiB to draw.
    """
    names = list(dict.fromkeys(n for o in results.overlaps for n in (o.first, o.second)))
    if not 3 <= len(names) <= MOST_ARMS:
        return None
    shares = {frozenset((o.first, o.second)): o.of_smaller for o in results.overlaps}
    grid = np.full((len(names), len(names)), np.nan)
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            grid[i, j] = shares.get(frozenset((first, second)), np.nan) * 100
    side = 0.55 * len(names) + 1.4
    figure, (axes,) = canvas(side + 0.6, side - 0.4)
    axes.imshow(grid[1:, :-1], cmap="Blues", vmin=0, vmax=110, aspect="auto")
    for i, j in zip(*np.nonzero(np.isfinite(grid)), strict=True):
        colour = "white" if grid[i, j] > 65 else INK
        axes.text(j, i - 1, f"{grid[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(names) - 1), names[:-1], rotation=35, ha="right")
    axes.set_yticks(range(len(names) - 1), names[1:])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, "Rows that two subsets share, in percent of the smaller one."
