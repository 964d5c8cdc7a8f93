"""Every row; the reference that a choice is compared with."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.selection.config import FORBID, rule
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Full:
    """Every row."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = False
    share: ClassVar[float] = 1.0
    method: Literal["full"] = "full"


@rule(Full)
def full(config: Full, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep every row."""
    return decide(pool, ("kept: every row",), np.zeros(len(pool), np.int32))
