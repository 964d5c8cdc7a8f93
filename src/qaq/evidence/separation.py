"""What shows that a metric or a rule does what it claims: separation, retention, agreement.

Pure functions over arrays of one pool, all in the same order of rows. `defect` names what was
planted in a row (None = clean); selectors never see it, these functions exist to use it.
NaN in a score = the row has none; it takes no part, and the counts say how many did.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qaq.evidence.statistics import wilson
from qaq.selection.ranks import FloatArray, Mask, lowest, ranks_within

CLEAN = "clean"
DRAWS = 1000
CONFIDENCE = 0.95

Defects = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Separation:
    """How far a score tells rows with a defect from clean ones.

    `auroc` is the chance that a row with the defect scores above a clean one (ties count half):
    1/2 = not at all, near 1 = the defect lies in the high tail, near 0 = in the low tail. `low`
    and `high` bound it with 95% confidence (percentile bootstrap, both groups resampled).
    """

    metric: str
    defect: str
    auroc: float
    low: float
    high: float
    rows: int
    clean: int


@dataclass(frozen=True)
class Retention:
    """The share of one kind of row that a rule keeps, with Wilson's 95% interval."""

    defect: str
    kept: int
    rows: int
    share: float
    low: float
    high: float


def separations(
    metrics: Mapping[str, FloatArray], defect: Defects, *, draws: int = DRAWS, seed: int = 0
) -> list[Separation]:
    """Every metric against every kind of defect; a kind without a scored row is left out."""
    found = []
    clean = _is_clean(defect)
    for name, score in metrics.items():
        known = ~np.isnan(score)
        ordinary = score[known & clean]
        for kind in _kinds(defect):
            damaged = score[known & (defect == kind)]
            if len(damaged) and len(ordinary):
                low, high = auroc_interval(damaged, ordinary, draws=draws, seed=seed)
                value = auroc(damaged, ordinary)
                found.append(Separation(name, kind, value, low, high, len(damaged), len(ordinary)))
    return found


def auroc(positive: FloatArray, negative: FloatArray) -> float:
    """The chance that a positive's score exceeds a negative's; ties count half."""
    places, values = _places(positive, negative)
    return _area(*_histograms(places, len(positive), values))


def auroc_interval(
    positive: FloatArray,
    negative: FloatArray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile bootstrap of `auroc`, positives and negatives resampled apart.

    Scores are sorted once; a draw only counts how often each value was taken.
    """
    places, values = _places(positive, negative)
    up, down = places[: len(positive)], places[len(positive) :]
    rng = np.random.default_rng(seed)
    areas = [
        _area(
            np.bincount(up[rng.integers(0, len(up), len(up))], minlength=values),
            np.bincount(down[rng.integers(0, len(down), len(down))], minlength=values),
        )
        for _ in range(draws)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(areas, [tail, 1 - tail])
    return float(low), float(high)


def roc(positive: FloatArray, negative: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The curve behind `auroc`: false and true positive rate as the bar falls, from 0 to 1.

    Equal scores make one step, so ties are a slanted line and the area is `auroc`.
    """
    places, values = _places(positive, negative)
    up, down = _histograms(places, len(positive), values)
    true, false = np.cumsum(up[::-1]) / up.sum(), np.cumsum(down[::-1]) / down.sum()
    return np.r_[0.0, false], np.r_[0.0, true]


def retentions(kept: Mask, defect: Defects) -> list[Retention]:
    """The share of each kind of defect, and of the clean rows, that is kept."""
    groups = {CLEAN: _is_clean(defect)} | {kind: defect == kind for kind in _kinds(defect)}
    found = []
    for name, rows in groups.items():
        n, taken = int(rows.sum()), int((kept & rows).sum())
        if n:
            interval = wilson(taken, n)
            found.append(Retention(name, taken, n, taken / n, interval.low, interval.high))
    return found


def spearman(first: FloatArray, second: FloatArray) -> float:
    """Rank correlation over the rows that have both scores; NaN where one does not vary."""
    both = ~np.isnan(first) & ~np.isnan(second)
    x, y = ranks_within(first[both]) - 0.5, ranks_within(second[both]) - 0.5
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def top_overlap(first: FloatArray, second: FloatArray, share: float) -> float:
    """Of the top `share` by one score, the part that is also in the top `share` by the other.

    Over the rows that have both; of equal scores the row that stands first counts as higher.
    """
    both = ~np.isnan(first) & ~np.isnan(second)
    count = round(share * int(both.sum()))
    if count == 0:
        return float("nan")
    shared = lowest(-first[both], count) & lowest(-second[both], count)
    return int(shared.sum()) / count


def matrix(
    columns: Mapping[str, FloatArray], share: float | None = None
) -> tuple[Sequence[str], FloatArray]:
    """`spearman` of every two columns, or `top_overlap` where a share is given."""
    names = list(columns)
    values = np.eye(len(names))
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            pair = columns[one], columns[other]
            value = spearman(*pair) if share is None else top_overlap(*pair, share)
            values[i, j] = values[j, i] = value
    return names, values


def kept_overlap(first: Mask, second: Mask) -> dict[str, float]:
    """How far two subsets agree: shared rows as a share of each and of their union."""
    shared = int((first & second).sum())
    sides = {"of_first": first.sum(), "of_second": second.sum(), "of_union": (first | second).sum()}
    return {name: shared / int(n) if n else float("nan") for name, n in sides.items()}


def _kinds(defect: Defects) -> list[str]:
    return sorted({kind for kind in defect.tolist() if kind is not None})


def _is_clean(defect: Defects) -> Mask:
    return np.array([kind is None for kind in defect.tolist()], np.bool_)


def _places(positive: FloatArray, negative: FloatArray) -> tuple[npt.NDArray[np.int64], int]:
    """The place of each score among the distinct values, positives first; how many there are."""
    if not len(positive) or not len(negative):
        raise ValueError(f"{len(positive)} positives, {len(negative)} negatives: need one of each")
    values, places = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    return places, len(values)


def _histograms(
    places: npt.NDArray[np.int64], positives: int, values: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    up = np.bincount(places[:positives], minlength=values)
    return up, np.bincount(places[positives:], minlength=values)


def _area(up: npt.NDArray[np.int64], down: npt.NDArray[np.int64]) -> float:
    """The share of (positive, negative) pairs in which the positive has the larger value."""
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))
