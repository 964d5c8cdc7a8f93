"""The figures of the studies; each function returns a figure and its caption."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from qaq.evidence.ranking import roc as curve
from qaq.evidence.ranking import spearman
from qaq.page.drawing import (
    ACCENT,
    INK,
    QUIET,
    RULE,
    SERIES_COLOURS,
    SHAPES,
    Drawn,
    canvas,
    tidy,
)
from qaq.page.figures import UP, score_map
from qaq.page.names import DEFECTS, order_defects
from qaq.scoring.metrics import titles
from qaq.selection.ranks import FloatArray
from qaq.studies.data import StudyData, metric
from qaq.studies.retention import Kept

MAIN_RULES = ("rmi_band", "ifd", "diff_high", "word_overlap", "random")  # where they are
ROC_METRICS = ("rmi", "ifd_loss_ratio", "perplexity_pair")


def roc(data: StudyData) -> Drawn:
    """A panel per kind of damage, a curve per metric and model."""
    kinds = order_defects(set(data.kinds))
    figure, panels = canvas(8.6, 2.3 * -(-len(kinds) // 4) + 0.8, len(kinds), 4)
    for axes, kind in zip(panels, kinds, strict=True):
        axes.plot([0, 100], [0, 100], color=RULE, linewidth=0.8)
        for colour, name in zip(SERIES_COLOURS, ROC_METRICS, strict=False):
            for scorer, style in (("strong", "-"), ("weak", ":")):
                values = metric(data.of(scorer), name)
                known = ~np.isnan(values)
                bad = values[known & (data.defect == kind)]
                clean = values[known & data.against(kind)]
                if len(bad) and len(clean):
                    rates = (100 * rate for rate in curve(bad, clean))
                    label = f"{titles()[name]}, {scorer}"
                    axes.plot(*rates, style, color=colour, linewidth=1.4, label=label)
        axes.set_title(DEFECTS.get(kind, kind), fontsize=8.5)
        axes.set_aspect("equal")
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.tick_params(length=2)
    figure.supxlabel("clean rows above the threshold, % (right = more)", fontsize=9)
    figure.supylabel("damaged rows above the threshold, % (up = more)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure, (
        "ROC by kind of damage, as the threshold falls. Above the diagonal the "
        "damaged rows have high scores, below it low ones; on it the score is blind."
    )


def rmi_map(data: StudyData) -> Drawn | None:
    """RMI against log PPL(Q), one panel per model."""
    return score_map(
        {
            scorer: pd.DataFrame(
                {
                    "rmi": metric(data.of(scorer), "rmi"),
                    "log_ppl_q": metric(data.of(scorer), "log_perplexity_q"),
                    "defect": data.defect,
                }
            )
            for scorer in ("strong", "weak")
        }
    )


def over_length(data: StudyData) -> Drawn:
    """RMI of the clean rows against the length of the question, one panel per model."""
    scorers = [scorer for scorer in ("strong", "weak") if scorer in data.scorers]
    figure, panels = canvas(4.4 * len(scorers) + 0.4, 3.6, len(scorers))
    for axes, scorer in zip(panels, scorers, strict=True):
        table = data.of(scorer)
        length, score = metric(table, "length_q")[data.clean], metric(table, "rmi")[data.clean]
        axes.scatter(length, score, s=6, c=ACCENT, alpha=0.4, linewidths=0, rasterized=True)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axhline(0, color=QUIET, linewidth=0.8)
        found = spearman(score, length)
        axes.set_title(f"{scorer} model" + (f": Spearman {found.value:.2f}" if found else ""))
        axes.set_xlabel("tokens of the question (right = longer)")
    panels[0].set_ylabel(UP)
    return figure, (
        "RMI of the clean rows against the length of their questions. What two scores have in "
        "common through it is taken out in the partial correlations."
    )


def kept_over_ratio(kept: list[Kept], planted: float) -> Drawn:
    """A panel per kind of damage: the share of it that a few rules keep as the ratio grows."""
    rows = [k for k in kept if k.ratio is not None and k.rate == planted and k.group != "damaged"]
    arms = sorted(dict.fromkeys(k.arm for k in rows), key=lambda arm: arm not in MAIN_RULES)[:5]
    kinds = ["clean", *order_defects({k.group for k in rows} - {"clean"})]
    in_row = 5
    size = 1.85 * in_row + 0.4, 1.9 * -(-len(kinds) // in_row) + 0.8
    figure, panels = canvas(*size, len(kinds), in_row, sharex=True, sharey=True)
    for axes, kind in zip(panels, kinds, strict=True):
        axes.plot([0, 100], [0, 100], "--", color=QUIET, linewidth=0.9)
        for place, (arm, colour, shape) in enumerate(
            zip(arms, SERIES_COLOURS, SHAPES, strict=False)
        ):
            mine = [k for k in rows if k.arm == arm and k.group == kind]
            mine.sort(key=lambda k: k.ratio or 0)
            shares = 100 * np.array([[k.share.value, k.share.low, k.share.high] for k in mine]).T
            ratios = 100 * np.array([k.ratio or 0.0 for k in mine]) + 1.2 * (place - 2)
            if mine:
                axes.vlines(ratios, shares[1], shares[2], color=colour, linewidth=0.8, alpha=0.6)
                axes.plot(ratios, shares[0], f"-{shape}", color=colour, markersize=3.5, label=arm)
        axes.set_title(DEFECTS.get(kind, kind), fontsize=8.5)
        axes.set_xlim(-4, 104)
        axes.set_ylim(-4, 104)
        axes.set_xticks([0, 50, 100])
        axes.set_yticks([0, 50, 100])
        axes.tick_params(length=2)
    figure.supxlabel("ratio asked for, % (right = more rows)", fontsize=9)
    figure.supylabel("rows of the kind kept, % (up = more)", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5)
    return figure, (
        "Share of each kind of row that a rule keeps as its ratio grows, with 95% intervals; the "
        "other rules are in the table. Under the dashed diagonal the rule avoids that kind, above "
        "it the rule prefers it."
    )


def before_after(data: StudyData) -> Drawn:
    """RMI after fine-tuning against RMI before, one panel per scorer."""
    scorers = data.spec.study.tuned
    figure, panels = canvas(4.4 * len(scorers) + 0.4, 4.2, len(scorers))
    for axes, scorer in zip(panels, scorers, strict=True):
        before, after = (metric(data.of(n), "rmi") for n in (scorer, f"{scorer}-tuned"))
        low, high = np.nanquantile(np.r_[before, after], [0.002, 0.998])
        axes.plot([low, high], [low, high], color=RULE, linewidth=0.8)
        axes.scatter(before, after, s=6, c=ACCENT, alpha=0.5, linewidths=0, rasterized=True)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_title(f"{scorer} model")
        axes.set_xlabel("RMI before, nats per token (right = helps more)")
    panels[0].set_ylabel("RMI after, nats per token (up = helps more)")
    return figure, "RMI of every row by the scorer before and after fine-tuning on the pool."


def heat(rows: Sequence[str], columns: Sequence[str], values: FloatArray, caption: str) -> Drawn:
    """AUROCs as a coloured table: blue at the high end, red at the low end, white where blind."""
    figure, (axes,) = canvas(0.62 * len(columns) + 2.6, 0.34 * len(rows) + 1.7)
    axes.imshow(values, cmap="RdBu", vmin=-0.1, vmax=1.1, aspect="auto")
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
        colour = "white" if abs(values[i, j] - 0.5) > 0.4 else INK
        axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure, caption


def agreement(labels: Sequence[str], series: dict[str, list[tuple[float, float, float]]]) -> Drawn:
    """Correlations with their intervals by slice of the pool, one mark per score."""
    figure, (axes,) = canvas(7.2, 0.42 * len(labels) + 1.3)
    places = np.arange(len(labels))[::-1].astype(float)
    for shift, colour, shape, (name, points) in zip(
        np.linspace(0.18, -0.18, len(series)), SERIES_COLOURS, SHAPES, series.items(), strict=False
    ):
        values = np.array(points)
        at = places + shift
        axes.hlines(at, values[:, 1], values[:, 2], color=colour, linewidth=1.2)
        axes.plot(values[:, 0], at, shape, color=colour, markersize=5, label=name)
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.set_yticks(np.arange(len(labels))[::-1], labels)
    axes.set_xlabel("Spearman between two layouts (right = agrees more)")
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=3)
    return figure, (
        "How far a score agrees with itself when only the layout of the prompt changes, with 95% "
        "intervals. Where Diff does not, the strong/weak disagreement is an accident of wording."
    )
