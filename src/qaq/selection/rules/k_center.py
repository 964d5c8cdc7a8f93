"""Coverage alone: the rows that lie farthest from those chosen before."""

from itertools import islice
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.selection.clusters import centers, directions
from qaq.selection.config import FORBID, rule
from qaq.selection.decision import KEPT, UNSCORED, Decision, Size, decide
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import ranks_within


@dataclass(frozen=True, kw_only=True, config=FORBID)
class KCenter:
    """Greedy k-center over the target model's vectors (Sener and Savarese, arXiv 1708.00489).

    The score of a kept row is its distance to those kept before. Every row kept costs one pass
    over all vectors: a quarter of 100,000 rows of 2,048 numbers takes hours. `max_tokens` bounds
    a rendered pair.
    """

    needs: ClassVar[tuple[str, ...]] = ("embeddings",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["k_center"] = "k_center"
    max_tokens: int = Field(default=2048, ge=16)


@rule(KCenter)
def k_center(config: KCenter, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the rows that cover the pool best."""
    vectors, known = directions(given(pool.embeddings, "embeddings"))
    count = size.rows(int(known.sum()), config.method)
    label = np.where(known, 1, UNSCORED).astype(np.int32)
    score = np.where(known, 0.0, np.nan)
    for row, far in islice(centers(vectors, known), count):
        label[row], score[row] = KEPT, far
    labels = ("kept: farthest from those before", "dropped: near a kept row")
    return decide(pool, labels, label, score=score, rank=ranks_within(score))
