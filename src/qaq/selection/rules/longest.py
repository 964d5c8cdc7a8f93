"""The longest answers, a simple rule that is hard to beat (arXiv 2402.04833)."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import length_a
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import HIGHEST, cut_highest
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import finite, ranks_within


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Longest:
    """The longest answers, in tokens of the strong model; cut answers count as cut."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    spans: ClassVar[tuple[str, ...]] = ("a",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["longest"] = "longest"


@rule(Longest)
def longest(config: Longest, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the longest answers."""
    score = finite(length_a(pool.scores["strong"]))
    known = int((~np.isnan(score)).sum())
    label = cut_highest(score, size.rows(known, config.method))
    rank = ranks_within(score)
    return decide(pool, HIGHEST, label, score=score, rank=rank, roles=config.needs)
