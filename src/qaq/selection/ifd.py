"""Instruction-following difficulty, as its two official codes select by it."""

import numpy as np

from qaq.scoring.metrics import ifd_loss_ratio, ifd_ppl_ratio
from qaq.selection.config import IfdCherry, IfdSuperfiltering
from qaq.selection.cuts import cut_highest
from qaq.selection.decision import Decision, Labels, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, Mask, finite, ranks_within


def ifd_cherry(config: IfdCherry, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Highest ratio of losses; above the ceiling dropped (Cherry_LLM, arXiv 2308.12032)."""
    score = finite(ifd_loss_ratio(pool.scores["strong"]))
    too_high = score > config.ceiling
    return _highest_below(config, pool, size, score=score, too_high=too_high, side="above")


def ifd_superfiltering(
    config: IfdSuperfiltering, pool: Pool, size: Size, seed: int | None
) -> Decision:
    """Highest ratio of perplexities strictly below the ceiling (arXiv 2402.00530)."""
    score = finite(ifd_ppl_ratio(pool.scores["weak"]))
    too_high = score >= config.ceiling
    return _highest_below(config, pool, size, score=score, too_high=too_high, side="not below")


def _highest_below(
    config: IfdCherry | IfdSuperfiltering,
    pool: Pool,
    size: Size,
    *,
    score: FloatArray,
    too_high: Mask,
    side: str,
) -> Decision:
    scored = int((~np.isnan(score)).sum())
    survivors = scored - int(too_high.sum())
    if config.share_of == "all" and size.of is None:
        size = Size(size.ratio, of=scored)
    count = size.rows(survivors, config.method)
    label: Labels = cut_highest(np.where(too_high, -np.inf, score), count)
    label[too_high] = 2
    labels = ("kept: highest", "dropped: lower", f"dropped: IFD {side} {config.ceiling:g}")
    return decide(
        pool,
        labels,
        label,
        score=score,
        rank=ranks_within(score),
        selectable=survivors,
        roles=config.needs,
    )
