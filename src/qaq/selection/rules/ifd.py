"""Instruction-following difficulty, as its two official codes select by it."""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import ifd_loss_ratio, ifd_ppl_ratio
from qaq.selection.config import FORBID, ShareOf, rule
from qaq.selection.cuts import cut_highest
from qaq.selection.decision import Decision, Labels, Rounding, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, Mask, finite, ranks_within


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdCherry:
    """Highest IFD (ratio of losses); rows above `ceiling` are dropped, as Cherry_LLM does.

    `share_of`: whether the ratio counts all rows with a score, those that survive the ceiling, or
    every row of the pool. Its authors' script: `int(survivors * ratio)`.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    spans: ClassVar[tuple[str, ...]] = ("a", "a_given_q")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ifd_cherry"] = "ifd_cherry"
    ceiling: float = 1.0
    share_of: ShareOf | Literal["pool"] = "all"
    rounding: Rounding = "nearest"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdSuperfiltering:
    """Highest IFD (ratio of perplexities) strictly below `ceiling`, by the weak model.

    `share_of` as for `ifd_cherry`. Its authors' script: `int(52002 * ratio)`, the rows of Alpaca.
    """

    needs: ClassVar[tuple[str, ...]] = ("weak",)
    spans: ClassVar[tuple[str, ...]] = ("a", "a_given_q")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ifd_superfiltering"] = "ifd_superfiltering"
    ceiling: float = 1.0
    share_of: ShareOf | Literal["pool"] = "all"
    rounding: Rounding = "nearest"


@rule(IfdCherry)
def ifd_cherry(config: IfdCherry, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Highest ratio of losses; above the ceiling dropped (Cherry_LLM, arXiv 2308.12032)."""
    score = finite(ifd_loss_ratio(pool.scores["strong"]))
    too_high = score > config.ceiling
    return _highest_below(config, pool, size, score=score, too_high=too_high, side="above")


@rule(IfdSuperfiltering)
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
    if config.share_of != "survivors" and size.of is None:
        size = replace(size, of=scored if config.share_of == "all" else len(pool))
    count = size.rows(survivors, config.method, config.rounding)
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
