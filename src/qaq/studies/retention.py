"""What each rule keeps of each kind of row, at every ratio and noise rate.

Below the planted rate, damaged rows are left out at random (`draws` times): a row's scores do not
depend on the other rows, so one scored pool serves for every rate, and only the ranks, the strata
and the choice are made anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qaq.evidence.estimate import Estimate, share
from qaq.selection.decision import TooFewRows
from qaq.selection.pool import Pool
from qaq.selection.ranks import Mask
from qaq.selection.rules import select
from qaq.studies.data import StudyData

CLEAN, DAMAGED = "clean", "damaged"


@dataclass(frozen=True)
class Kept:
    """What a rule keeps of one kind of row. `ratio` is None for rules with a size of their own."""

    arm: str
    ratio: float | None
    rate: float
    group: str  # clean, damaged (all kinds), or one kind
    share: Estimate
    of_kept: Estimate | None  # the group's part of what the rule keeps


def retention(data: StudyData) -> Iterator[Kept]:
    """Every rule at every ratio as planted, and at the experiment's ratio for every lower rate."""
    planted = float(data.damaged.mean())
    whole = [np.ones(len(data.defect), np.bool_)]
    thinned = {r: list(thin(data.damaged, r, data.spec.study.draws)) for r in rates(data)}
    ratios = sorted({*data.spec.study.ratios, data.spec.ratio})
    for name, selector in data.spec.arms.items():
        pool = data.pool(selector)
        own = selector.uses_ratio
        for ratio in ratios if own else [None]:
            yield from _kept(data, name, ratio, planted, whole, pool)
        for rate, masks in thinned.items():
            yield from _kept(data, name, data.spec.ratio if own else None, rate, masks, pool)


def rates(data: StudyData) -> list[float]:
    """The asked-for rates that lie below the planted one."""
    planted = float(data.damaged.mean())
    return [rate for rate in data.spec.study.rates if rate < planted]


def thin(damaged: Mask, rate: float, draws: int) -> Iterator[Mask]:
    """Masks that keep all other rows and so many damaged ones that their share is `rate`."""
    wanted = round(rate * int((~damaged).sum()) / (1 - rate))
    for draw in range(draws):
        mask = ~damaged
        chosen = np.random.default_rng(draw).choice(np.flatnonzero(damaged), wanted, replace=False)
        mask[chosen] = True
        yield mask


def _kept(
    data: StudyData, name: str, ratio: float | None, rate: float, masks: list[Mask], pool: Pool
) -> Iterator[Kept]:
    """One rule at one ratio and rate: means over the draws, intervals as of one of them."""
    selector = data.spec.arms[name]
    groups = {CLEAN: data.clean, DAMAGED: data.damaged}
    groups |= {kind: data.defect == kind for kind in data.kinds}
    totals = dict.fromkeys(groups, 0)
    taken = dict.fromkeys(groups, 0)
    size = 0
    for seed, mask in enumerate(masks, start=1):
        try:
            decision = select(selector, pool.take(mask), ratio=ratio, seed=seed)
        except TooFewRows:  # the rule has no place in the comparison
            return
        kept = np.zeros(len(mask), np.bool_)
        kept[mask] = decision.kept
        size += int(kept.sum())
        for group, rows in groups.items():
            totals[group] += int((rows & mask).sum())
            taken[group] += int((rows & kept).sum())
    n = len(masks)
    for group in groups:
        part = share(taken[group] / n, totals[group] / n)
        if part is not None:
            yield Kept(name, ratio, rate, group, part, share(taken[group] / n, size / n))
