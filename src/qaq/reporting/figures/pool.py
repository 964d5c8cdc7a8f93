"""Figures about the pool: where defects lie in the scores, and which rule keeps them."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from qaq.evidence.ranking import roc as curve
from qaq.page.drawing import ACCENT, DEFECT_COLOURS, QUIET, RULE, Drawn, canvas, tidy
from qaq.page.figures import histogram, score_map, triangle
from qaq.page.names import DEFECTS, order_defects
from qaq.reporting.collect import DRAWN, Collected
from qaq.reporting.evidence import SCORES, against, direction
from qaq.reporting.schema import Results

MOST_ARMS = 40
ROC_LINES: dict[str, dict[str, Any]] = {  # blue and orange, solid and dashed
    "rmi": {"color": "#0072b2", "linewidth": 1.6},
    "ifd": {"color": "#d55e00", "linewidth": 1.6, "linestyle": "--"},
}


def rmi_map(data: Collected, results: Results) -> Drawn | None:
    """RMI against log PPL(Q), one panel per model."""
    if data.pool is None:
        return None
    defects = data.pool[["row_id", "defect"]]
    return score_map(
        {
            role: defects.merge(scores[["row_id", *DRAWN]], on="row_id", validate="1:1")
            for role, scores in data.scores.items()
        }
    )


def kept(data: Collected, results: Results) -> Drawn | None:
    """The score that each rule ranks by: all rows, and those that it keeps."""
    names = [a.name for a in data.spec.arms if a.method != "full"]
    firsts: dict[str, pd.DataFrame] = {}
    for (arm, _), table in data.subsets.items():
        firsts.setdefault(arm, table)
    shown = [(n, firsts[n][["score", "kept"]].dropna()) for n in names if n in firsts]
    shown = [(n, rows) for n, rows in shown if rows["score"].nunique() > 1][:MOST_ARMS]
    if not shown:
        return None
    in_row = 4
    rows_of = -(-len(shown) // in_row)
    width = 2.3 * min(in_row, len(shown)) + 0.6
    figure, panels = canvas(width, 1.9 * rows_of + 0.4, len(shown), in_row)
    for axes, (name, rows) in zip(panels, shown, strict=True):
        histogram(axes, rows["score"].to_numpy(dtype=float), rows["kept"].to_numpy(dtype=bool))
        axes.set_title(f"{name}: {int(rows['kept'].sum())} of {len(rows)}", fontsize=8.5)
    figure.supxlabel("score that the rule ranks by (right = higher)", fontsize=9)
    figure.supylabel("rows", fontsize=9)
    return figure, (
        "The score of each rule over the pool (grey) and the rows it keeps (blue); rows beyond "
        "the outer half percent stand in the outermost bars."
    )


def retention(data: Collected, results: Results) -> Drawn | None:
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
        colour = DEFECT_COLOURS.get(kind, ACCENT)
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
    figure.supxlabel("rows kept, % (right = more)", fontsize=9)
    return figure, (
        "Share of each planted defect that each arm keeps (filled, with its 95% interval), beside "
        "the share of clean rows it keeps (hollow). A filled mark to the left of the hollow one: "
        "the rule removes the defect."
    )


def roc(data: Collected, results: Results) -> Drawn | None:
    """ROC curves of RMI and IFD against each defect, strong model (else the one there is)."""
    role = next(iter(data.scores), None)
    if data.pool is None or role is None or not results.separations:
        return None
    scores = data.scores[role][["row_id", *SCORES]]
    known = data.pool[["row_id", "defect"]].merge(scores, on="row_id", validate="1:1")
    by_score = {
        score: {s.defect: s for s in results.separations if s.model == role and s.score == score}
        for score in SCORES
    }
    by_score = {score: mine for score, mine in by_score.items() if mine}
    if not by_score:
        return None
    kinds = order_defects({kind for mine in by_score.values() for kind in mine})
    in_row = 5
    size = 1.7 * min(in_row, len(kinds)) + 0.6, 1.75 * -(-len(kinds) // in_row) + 0.9
    figure, panels = canvas(*size, len(kinds), in_row, sharex=True, sharey=True)
    for axes, kind in zip(panels, kinds, strict=True):
        axes.plot([0, 100], [0, 100], color=RULE, linewidth=0.8)
        for score, mine in by_score.items():
            rows = known.dropna(subset=[score])
            sign = 1.0 if direction(score, kind) == "high" else -1.0
            bad = sign * rows.loc[rows["defect"] == kind, score].to_numpy()
            clean = sign * rows.loc[against(rows["defect"], kind), score].to_numpy()
            if kind in mine:
                axes.plot(*(100 * r for r in curve(bad, clean)), **ROC_LINES[score])
        axes.set_title(DEFECTS.get(kind, kind), fontsize=8.5)
        axes.set_aspect("equal")
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.tick_params(length=2)
    figure.supxlabel(f"clean rows flagged, % (right = more; {role} model)", fontsize=9)
    figure.supylabel("defective rows flagged, % (up = more)", fontsize=9)
    handles = [Line2D([], [], label=score.upper(), **ROC_LINES[score]) for score in by_score]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure, (
        "Which share of the defective rows a threshold on the score flags, against the share of "
        "clean rows it flags with them, from the end that the table states. The diagonal is a "
        "score that is blind to the defect."
    )


def overlap(data: Collected, results: Results) -> Drawn | None:
    """How much two subsets share, as a triangle of numbers; of more than MOST_ARMS, a table's job.

    The figure grows with the square of the arms: at 100 it took 30 s and 4 GiB to draw.
    """
    names = list(dict.fromkeys(n for o in results.overlaps for n in (o.first, o.second)))
    if not 3 <= len(names) <= MOST_ARMS:
        return None
    shares = {frozenset((o.first, o.second)): o.of_smaller for o in results.overlaps}
    values = np.array([[shares.get(frozenset((a, b)), np.nan) for b in names] for a in names])
    caption = "Rows that two subsets share, in percent of the smaller one."
    return triangle(names, values, caption, shares=True)
