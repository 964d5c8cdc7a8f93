"""The longest answers, a simple rule that is hard to beat (arXiv 2402.04833)."""

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import length_a
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.pool import Pool
from qaq.selection.ranks import finite


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
    return keep_highest(config, pool, size, finite(length_a(pool.scores["strong"])))
