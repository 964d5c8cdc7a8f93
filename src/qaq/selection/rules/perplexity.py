"""Perplexity of the pair: its highest values, or the middle of its order."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import perplexity_pair
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import BAND, cut_band, keep_highest, window
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import finite, ranks_within


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Perplexity:
    """The highest perplexities of the pair, or those in the middle of the order."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    spans: ClassVar[tuple[str, ...]] = ("q", "a_given_q")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["perplexity_high", "perplexity_middle"]


@rule(Perplexity)
def perplexity(config: Perplexity, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the pairs with the highest perplexity, or those in the middle of the order."""
    score = finite(perplexity_pair(pool.scores["strong"]))
    if config.method == "perplexity_high":
        return keep_highest(config, pool, size, score)
    known = int((~np.isnan(score)).sum())
    label = cut_band(score, *window(known, size.rows(known, config.method), center=0.5))
    rank = ranks_within(score)
    return decide(pool, BAND, label, score=score, rank=rank, roles=config.needs)
