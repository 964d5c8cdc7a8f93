"""On what the order of the rows depends, measured: damage, layout, strata, threshold, models."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations

import numpy as np

from qaq.evidence.estimate import Estimate, share
from qaq.evidence.ranking import area, spearman
from qaq.selection.pool import Pool
from qaq.selection.ranks import LEAST, FloatArray, Mask
from qaq.selection.rules.disagreement import Disagreement
from qaq.selection.rules.rmi import RmiBand
from qaq.studies.data import (
    StudyData,
    difference,
    difference_of_ifd,
    metric,
    metric_titles,
    quarter,
    subset,
)
from qaq.studies.results import Choice, chosen, overlap

STRATA = (1, 2, 5, 10, 20, 50)
THRESHOLDS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
ALL = "all rows"
BETWEEN, FINDS = "strong with weak", "Diff finds damage"
SEEN = 0.8  # an AUROC this far from blind, at either end, is called seen
CONDITIONS = ("log_perplexity_q", "length_q", "length_a")  # what a score is held against

Areas = dict[tuple[str, str], Estimate | None]


def areas(data: StudyData) -> Areas:
    """AUROC by (score, kind of damage), against clean rows or the damage's control."""
    scores = {
        f"{title}, {scorer}": metric(data.of(scorer), name)
        for scorer in ("strong", "weak")
        for name, title in metric_titles().items()
        if name not in CONDITIONS
    }
    diff = difference(data.of("strong"), data.of("weak"))
    scores |= {"Diff": diff, "size of Diff": np.abs(diff)}
    scores |= {"Diff of IFD": difference_of_ifd(data.of("strong"), data.of("weak"))}
    scores |= {**data.asked, **data.free}
    return {
        (title, kind): data.area(values, kind)
        for title, values in scores.items()
        for kind in data.kinds
    }


def sees(estimate: Estimate | None) -> str:
    """`sees`, `hints` or `misses`, by the interval and the size of an AUROC."""
    if estimate is None or estimate.low <= 0.5 <= estimate.high:
        return "misses"
    return "sees" if max(estimate.value, 1 - estimate.value) >= SEEN else "hints"


Reliability = tuple[str, int, str, dict[str, Estimate | None]]


def reliability(data: StudyData) -> Iterator[Reliability]:
    """How far RMI and Diff agree with themselves when only the layout changes, by slice.

    Ranks are made among all clean rows; a slice then counts its own rows only. Beside it stands
    whether Diff, ranked among all rows, finds damage in the slice.
    """
    clean = data.clean
    tables = {key: subset(table, clean) for key, table in data.scores.items()}
    own = tables["strong", data.spec.framing], tables["weak", data.spec.framing]
    diff = difference(data.of("strong"), data.of("weak"))
    for name, rows in slices(data).items():
        here = rows[clean]

        def agree(first: FloatArray, second: FloatArray, *, at: Mask = here) -> Estimate | None:
            return spearman(first[at], second[at])

        for framing in data.framings[1:]:
            other = tables["strong", framing], tables["weak", framing]
            found = {
                f"RMI, {scorer}": agree(metric(a, "rmi_rank"), metric(b, "rmi_rank"))
                for scorer, a, b in zip(("strong", "weak"), own, other, strict=True)
            }
            found["Diff"] = agree(difference(*own), difference(*other))
            found[BETWEEN] = agree(*(metric(t, "rmi_rank") for t in own))
            found[FINDS] = area(diff, rows & data.damaged, rows & clean)
            yield name, int(here.sum()), framing, found


def slices(data: StudyData) -> dict[str, Mask]:
    """Parts of the pool by length in tokens of the strong model; quarters of the clean rows."""
    table, clean = data.of("strong"), data.clean
    found = {ALL: np.ones(len(clean), np.bool_)}
    for name, column in (("questions", "length_q"), ("answers", "length_a")):
        lengths = metric(table, column)
        found[f"shortest {name}"] = quarter(lengths, clean, shortest=True)
        found[f"longest {name}"] = quarter(lengths, clean, shortest=False)
    return found


Layout = tuple[str, str, dict[str, Estimate | None]]


def layout_effects(data: StudyData) -> Iterator[Layout]:
    """For each layout: the same order, the same subset, the same damage found?"""
    band, diff = RmiBand(), Disagreement(method="diff_high")
    base, everything = (_choice(data, band), _choice(data, diff)), _all(data)
    for framing in data.framings:
        for scorer in ("strong", "weak"):
            table = data.of(scorer, framing)
            rank = metric(table, "rmi_rank")
            # Of the own layout nothing is to be estimated: it agrees with itself.
            other = framing != data.spec.framing
            found = {
                "order": spearman(metric(data.of(scorer), "rmi_rank"), rank) if other else None
            }
            if scorer == "strong":
                found["band"] = overlap(base[0], _choice(data, band, framing), everything)
                found["Diff-High"] = overlap(base[1], _choice(data, diff, framing), everything)
            for kind in ("swapped_answer", "echo"):
                found[kind] = area(rank, data.defect == kind, data.clean)
            yield framing, scorer, found


def _choice(data: StudyData, rule: RmiBand | Disagreement, framing: str | None = None) -> Choice:
    """A rule over the scores in one layout."""
    tables = {role: data.of(role, framing) for role in rule.needs}
    return chosen(Pool(data.pool(rule).keys, tables), rule, data.spec.ratio)


def _all(data: StudyData) -> Mask:
    return np.ones(len(data.defect), np.bool_)


Strata = tuple[int, dict[str, Estimate | None]]


def strata_effects(data: StudyData) -> Iterator[Strata]:
    """For each K: rows kept as with ten strata, and the damage found."""
    base = _choice(data, RmiBand()), _choice(data, Disagreement(method="diff_high"))
    everything = _all(data)
    for bins in (k for k in STRATA if k * LEAST <= len(data.defect)):
        rank = metric(data.of("strong"), "rmi_rank", bins)
        found = {
            "band": overlap(base[0], _choice(data, RmiBand(bins=bins)), everything),
            "Diff-High": overlap(
                base[1],
                _choice(data, Disagreement(method="diff_high", bins=bins)),
                everything,
            ),
        }
        for kind in ("swapped_answer", "echo"):
            found[kind] = area(rank, data.defect == kind, data.clean)
        yield bins, found


Threshold = tuple[float, Estimate | None, Estimate | None, Estimate | None]


def threshold_effects(data: StudyData) -> Iterator[Threshold]:
    """For each threshold of Diff: rows kept, damaged ones among them, shared with the top share."""
    top = _choice(data, Disagreement(method="diff_high"))
    diff = difference(data.of("strong"), data.of("weak"))
    for threshold in THRESHOLDS:
        kept = diff > threshold
        damaged = share(int((kept & data.damaged).sum()), int(kept.sum()))
        yield (
            threshold,
            share(int(kept.sum()), int((~np.isnan(diff)).sum())),
            damaged,
            overlap(partial(_above, data, threshold), top, _all(data)),
        )


def _above(data: StudyData, threshold: float, rows: Mask) -> Mask:
    """The rows whose Diff, among the given rows, lies above a threshold."""
    kept = np.zeros(len(rows), np.bool_)
    strong, weak = (subset(data.of(scorer), rows) for scorer in ("strong", "weak"))
    kept[rows] = difference(strong, weak) > threshold
    return kept


Models = tuple[str, dict[str, Estimate | None]]


def pair_effects(data: StudyData) -> Iterator[Models]:
    """For each two scorers: do they rank alike, what 0.1 keeps, what Diff finds, the same rows?"""
    rule = Disagreement(method="diff_high")
    main, keys = _choice(data, rule), data.pool(rule).keys
    for first, second in combinations(data.scorers, 2):
        tables = data.of(first), data.of(second)
        diff = difference(*tables)
        pool = Pool(keys, {"strong": tables[0], "weak": tables[1]})
        known = int((~np.isnan(diff)).sum())
        yield (
            f"{first} and {second}",
            {
                "ranks": spearman(*(metric(t, "rmi_rank") for t in tables)),
                "kept": share(int((diff > 0.1).sum()), known),
                "damaged": area(diff, data.damaged, data.clean),
                "same": overlap(chosen(pool, rule, data.spec.ratio), main, _all(data)),
            },
        )
