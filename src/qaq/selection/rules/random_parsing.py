"""A uniform draw from the rows whose answer holds Python that parses: a control without a score."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.data.python_code import find_python
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import cut_highest
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import ranks_within
from qaq.selection.rules.random import draw


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RandomParsing:
    """Rows drawn uniformly from those whose answer holds Python that parses.

    That is a fenced block, or the whole answer where nothing is fenced (`qaq.data.python_code`).
    """

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["random_parsing"] = "random_parsing"


@rule(RandomParsing)
def random_parsing(config: RandomParsing, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep a draw among what parses; the ratio counts those rows."""
    answers = given(pool.texts, "texts").table()["answer"].to_pylist()
    parses = np.array([find_python(answer) is not None for answer in answers], np.bool_)
    found = int(parses.sum())
    score = draw(pool.keys, seed)
    label = cut_highest(np.where(parses, score, -np.inf), size.rows(found, config.method))
    label[~parses] = 2
    labels = ("kept: drawn", "dropped: not drawn", "dropped: no Python that parses")
    return decide(pool, labels, label, score=score, rank=ranks_within(score), selectable=found)
