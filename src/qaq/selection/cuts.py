"""Cutting an ordered pool: the highest, a band of positions, everything beyond a threshold.

Scores are in the order of the row ids, so equal scores are taken in that order. The functions
return one label per row: KEPT, the number of a reason to drop, or UNSCORED where the score is NaN.
"""

from collections.abc import Sequence

import numpy as np

from qaq.selection.config import Selector
from qaq.selection.decision import KEPT, UNSCORED, Decision, Labels, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, lowest, ranks_within

HIGHEST = ("kept: highest", "dropped: lower")
LOWEST = ("kept: lowest", "dropped: higher")
BAND = ("kept: in the band", "dropped: below the band", "dropped: above the band")


def keep_highest(
    config: Selector, pool: Pool, size: Size, score: FloatArray, labels: Sequence[str] = HIGHEST
) -> Decision:
    """Keep the highest scores, as many as are asked for of the rows that have one."""
    label = cut_highest(score, size.rows(int((~np.isnan(score)).sum()), config.method))
    return decide(pool, labels, label, score=score, rank=ranks_within(score), roles=config.needs)


def cut_highest(score: FloatArray, count: int) -> Labels:
    """KEPT for the `count` highest scores; of equals the lower row id comes first."""
    label = np.where(np.isnan(score), UNSCORED, 1).astype(np.int32)
    label[lowest(-score, count)] = KEPT
    return label


def cut_band(score: FloatArray, start: int, stop: int) -> Labels:
    """KEPT at positions start (inclusive) to stop (exclusive) of the ascending order; see BAND."""
    label = np.where(np.isnan(score), UNSCORED, 2).astype(np.int32)
    label[lowest(score, stop)] = KEPT
    label[lowest(score, start)] = 1
    return label


def cut_above(score: FloatArray, threshold: float) -> Labels:
    """KEPT for every score strictly above the threshold."""
    label = np.where(np.isnan(score), UNSCORED, 1).astype(np.int32)
    label[score > threshold] = KEPT
    return label


def window(rows: int, count: int, center: float) -> tuple[int, int]:
    """Positions [start, stop) of `count` of `rows` rows, centred on the share `center`.

    Pushed back inside where it would reach beyond an end.
    """
    start = min(max(round(center * rows - count / 2), 0), rows - count)
    return start, start + count
