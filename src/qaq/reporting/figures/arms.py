"""Figures about the arms: how good, how sure, at what cost, and how training went."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qaq.evidence.claims import FOUND
from qaq.evidence.estimate import Estimate
from qaq.page.drawing import ACCENT, INK, QUIET, canvas, tidy
from qaq.reporting.analysis import ALL
from qaq.reporting.collect import Collected
from qaq.reporting.family import PRIMARY
from qaq.reporting.schema import Comparison, Results
from qaq.reporting.tables.arms import of_suite, spent, suite_title, suites_of
from qaq.reporting.verdict import BITS, TESTS


def quality(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """pass@1 of each arm with its interval, one panel per suite, and bits per byte."""
    arms = [a for a in results.arms if a.suites]
    if not arms:
        return None
    suites = suites_of(results)
    bits = [of_suite(a, ALL) for a in arms]
    with_bits = any(b is not None and b.bits_per_byte for b in bits)
    count = len(suites) + with_bits
    figure, panels = canvas(2.9 * count + 1.2, 0.32 * len(arms) + 1.1, count, sharey=True)
    places = np.arange(len(arms))[::-1]
    for axes, suite in zip(panels, suites, strict=False):
        for place, arm in zip(places, arms, strict=True):
            found = of_suite(arm, suite)
            if found is not None:
                seeds = [s.plus for s in found.seeds]
                _mark(axes, place, found.plus, seeds, 100)
        axes.set_title(f"{suite_title(suite)}, plus tests")
        axes.set_xlabel("pass@1, % (right = more solved)")
    if with_bits:
        for place, arm in zip(places, arms, strict=True):
            whole = of_suite(arm, ALL)
            if whole is not None and whole.bits_per_byte is not None:
                known = [s.bits_per_byte for s in whole.seeds if s.bits_per_byte is not None]
                _mark(panels[-1], place, whole.bits_per_byte, known, 1)
        panels[-1].set_title("reference solutions")
        panels[-1].set_xlabel("bits per byte (left = likelier)")
    for axes in panels:
        axes.set_yticks(places, [a.name for a in arms])
        axes.margins(y=0.08)
        tidy(axes)
    several = any(len(a.seeds) > 1 for a in arms)
    return figure, (
        "pass@1 with its 95% Wilson interval over tasks, and bits per byte of the reference "
        "solutions with its own 95% interval over tasks."
        + (" Small ticks are single seeds." if several else "")
    )


def _mark(axes: Axes, place: float, found: Estimate, seeds: list[float], scale: float) -> None:
    axes.hlines(place, found.low * scale, found.high * scale, color=ACCENT, linewidth=1.4)
    axes.plot(found.value * scale, place, "o", color=ACCENT, markersize=6)
    if len(seeds) > 1:
        axes.plot([s * scale for s in seeds], [place] * len(seeds), "|", color=INK, markersize=7)


def differences(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """Differences to full and to random with their intervals; filled where the test allows it."""
    families = [f for f in (PRIMARY, BITS) if any(c.family == f for c in results.comparisons)]
    if not families:
        return None
    rows = [c for c in results.comparisons if c.family == families[0]]
    figure, panels = canvas(4.1 * len(families) + 1.3, 0.27 * len(rows) + 1.1, len(families))
    for axes, family in zip(panels, families, strict=True):
        members = [c for c in results.comparisons if c.family == family]
        scale = 100.0 if family == PRIMARY else 1.0
        places = np.arange(len(members))[::-1]
        for place, one in zip(places, members, strict=True):
            _difference(axes, place, one, scale)
        axes.axvline(0, color=QUIET, linewidth=0.9)
        axes.set_yticks(places, [f"{c.arm} − {c.baseline}" for c in members])
        if family == PRIMARY:
            axes.set_title(f"pass@1, {TESTS[members[0].metric]}, all tasks")
            axes.set_xlabel("difference, points (right = more solved)")
        else:
            axes.set_title("bits per byte (descriptive)")
            axes.set_xlabel("difference (left = fewer)")
        tidy(axes)
    return figure, (
        "Difference of each declared comparison: of pass@1 with intervals that hold for all at "
        "once, of bits per byte each with its own. Filled: a finding; hollow: none."
    )


def _difference(axes: Axes, place: float, one: Comparison, scale: float) -> None:
    found = one.finding in FOUND
    colour = ACCENT if found else QUIET
    if one.low is not None and one.high is not None:
        axes.hlines(place, one.low * scale, one.high * scale, color=colour, linewidth=1.4)
    axes.plot(
        one.difference * scale,
        place,
        "o",
        color=colour if found else "white",
        markeredgecolor=colour,
        markersize=5.5,
    )


def cost(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """pass@1 against the seconds that scoring and training took."""
    shown = [(a, spent(a), of_suite(a, ALL)) for a in results.arms]
    points = [(a, s, r.plus) for a, s, r in shown if s is not None and r is not None]
    if len(points) < 2:
        return None
    figure, (axes,) = canvas(7.0, 3.6)
    for place, (arm, seconds, found) in enumerate(sorted(points, key=lambda p: p[1])):
        training = arm.cost.training_seconds or 0.0
        axes.vlines(seconds, found.low * 100, found.high * 100, color=ACCENT, linewidth=1.1)
        axes.hlines(found.value * 100, training, seconds, color=QUIET, linewidth=1.1)
        axes.plot(seconds, found.value * 100, "o", color=ACCENT, markersize=6)
        axes.annotate(
            arm.name,
            (seconds, found.value * 100),
            xytext=(6, 5 if place % 2 == 0 else -12),  # neighbours keep out of each other's way
            textcoords="offset points",
            fontsize=8.5,
        )
    axes.set_xlim(left=0)
    axes.margins(x=0.15)
    axes.set_xlabel("seconds of scoring and training (left = cheaper; grey: the scoring part)")
    axes.set_ylabel("pass@1, plus tests, all tasks, % (up = better)")
    tidy(axes, "y")
    return figure, (
        "Quality against cost: pass@1 with its interval, against training plus the scoring that "
        "the arm's rule needs. Scores are shared by all arms that read them."
    )


def loss(data: Collected, results: Results) -> tuple[Figure, str] | None:
    """Training loss of each arm, averaged over its seeds and smoothed."""
    curves = data.curves.dropna(subset=["loss"])
    if curves.empty:
        return None
    arms = [a.name for a in data.spec.arms if a.name in set(curves["arm"])]
    smooth = {arm: _smooth(curves[curves["arm"] == arm]) for arm in arms}
    in_row = 4
    size = 2.3 * min(in_row, len(arms)) + 0.6, 1.9 * -(-len(arms) // in_row) + 0.4
    figure, panels = canvas(*size, len(arms), in_row, sharex=True, sharey=True)
    for axes, arm in zip(panels, arms, strict=True):
        for other in arms:
            shade, width = (ACCENT, 1.8) if other == arm else (QUIET, 0.7)
            order = 2 if other == arm else 1
            axes.plot(
                smooth[other].index, smooth[other], color=shade, linewidth=width, zorder=order
            )
        low, high = (_smooth(curves[curves["arm"] == arm], end) for end in ("min", "max"))
        axes.fill_between(low.index, low, high, color=ACCENT, alpha=0.2, linewidth=0)
        axes.set_title(arm, fontsize=8.5)
        axes.margins(x=0.01)
        tidy(axes, "y")
    figure.supxlabel("optimiser step (right = later)", fontsize=9)
    figure.supylabel("training loss, nats per token (down = likelier)", fontsize=9)
    return figure, (
        "Training loss by step, running mean over the seeds (shaded: from the lowest seed to the "
        "highest), with the other arms in grey. Arms see "
        "different data, so a lower curve says that the data are easier, not that the model is "
        "good."
    )


def _smooth(curve: pd.DataFrame, of_seeds: str = "mean") -> "pd.Series[float]":
    mean = curve.groupby("step")["loss"].agg(of_seeds).sort_index()
    return mean.rolling(max(1, len(mean) // 25), center=True, min_periods=1).mean()
