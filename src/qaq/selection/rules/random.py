"""A uniform draw: what a rule has to beat."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.hashing import mix
from qaq.selection.pool import Keys, Pool
from qaq.selection.ranks import FloatArray


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Random:
    """Rows drawn uniformly without replacement."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True
    method: Literal["random"] = "random"


@rule(Random)
def random(config: Random, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep a uniform draw without replacement.

    Each row gets a number made from its id and the seed by a 64-bit mixer; the rows with the
    highest numbers are kept. So a draw depends on neither the platform nor the order of the
    rows, and a larger ratio of the same seed keeps all that a smaller one kept. The score is the
    number as a share of 2^64.
    """
    labels = ("kept: drawn", "dropped: not drawn")
    return keep_highest(config, pool, size, draw(pool.keys, seed), labels)


def draw(keys: Keys, seed: int | None) -> FloatArray:
    """A number in [0, 1) for each row, of its id and the seed alone."""
    if seed is None:
        raise ValueError("a rule that draws needs a seed")
    numbers = mix(keys ^ mix(np.array([seed % 2**64], np.uint64)))
    return (numbers >> np.uint64(11)).astype(np.float64) / 2.0**53
