"""RDS+: the rows nearest to target queries (arXiv 2503.01807).

The embedding of a text is the position-weighted mean of the model's last hidden layer; making it
is the work of another stage. Here are only the arithmetic and the choice. Its authors published
two choices (hamishivi/automated-instruction-selection, read at ffcdc7f and 410ac76):

get_top_influences  `--selection_method max`, the command of their README for RDS+ and the default
                    here: the queries take turns, each names its nearest row that it has not named
                    yet, and a query whose row is taken already has lost its turn.
get_top_optimized   their code for large pools: the rows with the largest similarity to any query.

`nearest_free` is ours: a query whose row is taken goes on to its nearest row that is still free, so
that every query gets its share. Equal similarities go to the row that stands first.

Cosines are computed in float64 over blocks of rows and kept as whole multiples of 2^-30 (int32).
So the order does not hang on the last bits, in which matrix products differ between machines, and
a pool of n rows and q queries takes 4·n·q bytes: 0.7 GB for 310K rows and 596 queries. The
embeddings themselves may stay on disk (a memory map); a block of them is read at a time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.host.errors import DataError
from qaq.selection.clusters import normalised
from qaq.selection.config import FORBID, rule
from qaq.selection.decision import UNSCORED, Decision, Size, decide
from qaq.selection.pool import Embeddings, Pool, given
from qaq.selection.ranks import IntArray, ranks_within

UNIT = 2.0**-30
NONE = np.iinfo(np.int32).min  # the similarity of a row that has no direction
BLOCK_ROWS = 4096

Similarities = npt.NDArray[np.int32]
Choice = Literal["get_top_influences", "get_top_optimized", "nearest_free"]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RdsPlus:
    """Nearest to target queries by embedding (arXiv 2503.01807); `choice` says how they choose.

    `queries` is a JSONL file with `question` (and `answer`), or a copy of MBPP; null = MBPP,
    fetched. Of MBPP only the problems that no benchmark uses are taken. `max_tokens` bounds a
    rendered pair.
    """

    # The text of the queries is in the key of the embeddings.
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"queries"})
    needs: ClassVar[tuple[str, ...]] = ("embeddings", "queries")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["rds_plus"] = "rds_plus"
    choice: Choice = "get_top_influences"
    queries: Path | None = None
    max_tokens: int = Field(default=2048, ge=16)


@rule(RdsPlus)
def rds_plus(config: RdsPlus, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the rows that the queries choose; the score is the highest cosine to a query."""
    table = similarities(given(pool.embeddings, "embeddings"))
    best = table.max(axis=0)
    known = best != NONE
    count = size.rows(int(known.sum()), config.method)
    score = np.where(known, best * UNIT, np.nan)
    label = np.where(known, 1, UNSCORED).astype(np.int32)
    label[CHOICES[config.choice](table, count)] = 0
    labels = ("kept: picked by a query", "dropped: picked by no query")
    return decide(pool, labels, label, score=score, rank=ranks_within(score))


def similarities(embeddings: Embeddings, block_rows: int = BLOCK_ROWS) -> Similarities:
    """Cosines of every query (first axis) with every row (second axis), in units of 2^-30.

    Rows that are zero or not finite get NONE against every query.

    Raises:
        DataError: a query has no direction, or queries and rows differ in width.
    """
    rows, order = embeddings.rows, embeddings.order
    queries = np.asarray(embeddings.queries, dtype=np.float64)
    if queries.ndim != 2 or len(queries) == 0 or queries.shape[1] != rows.shape[1]:
        raise DataError(
            f"the queries have the shape {queries.shape}, the rows {rows.shape}; "
            "expected at least one query, embedded by the same model"
        )
    queries, usable = normalised(queries)
    if not usable.all():
        raise DataError(
            f"{int((~usable).sum())} of {len(queries)} queries have an embedding that is zero "
            "or not finite; leave them out"
        )
    table = np.empty((len(queries), len(order)), np.int32)
    for start in range(0, len(order), block_rows):
        here = slice(start, start + block_rows)
        block, usable = normalised(np.asarray(rows[order[here]], dtype=np.float64))
        cosines = np.rint(queries @ block.T / UNIT)
        table[:, here] = np.where(usable, np.clip(cosines, -1 / UNIT, 1 / UNIT), NONE)
    return table


def top_influences(table: Similarities, count: int) -> IntArray:
    """Rows as get_top_influences chooses them: in each round every query names its next row."""
    queries, rows = table.shape
    depth = 2 * -(-count // queries) + 64  # rounds; most are enough, and none is named twice
    while True:
        depth = min(depth, rows)
        named = np.stack([_order(one, depth)[:depth] for one in table], axis=1).ravel()
        first = np.unique(named, return_index=True)[1]
        if len(first) >= count:
            return named[np.sort(first)[:count]]
        depth *= 2


def nearest_free(table: Similarities, count: int) -> IntArray:
    """Rows in the order in which the queries, taking turns, pick their nearest free row."""
    queries, rows = table.shape
    free = np.ones(rows, np.bool_)
    first = min(rows, 2 * -(-count // queries) + 64)
    lists = [_Nearest(one, first) for one in table]
    picked: list[int] = []
    while len(picked) < count:
        for nearest in lists[: count - len(picked)]:
            row = nearest.next(free)
            free[row] = False
            picked.append(row)
    return np.array(picked, np.int64)


CHOICES: dict[Choice, Callable[[Similarities, int], IntArray]] = {
    "get_top_influences": top_influences,
    "get_top_optimized": lambda table, count: _order(table.max(axis=0), count)[:count],
    "nearest_free": nearest_free,
}


class _Nearest:
    """One query's rows, nearest first; sorted only as far as they are needed."""

    def __init__(self, similarity: npt.NDArray[np.int32], length: int):
        self._similarity = similarity
        self._place = 0
        self._order = _order(similarity, length)

    def next(self, free: npt.NDArray[np.bool_]) -> int:
        """The nearest row that is still free; at least one must be."""
        while True:
            ahead = np.flatnonzero(free[self._order[self._place : self._place + 64]])
            if len(ahead):
                self._place += int(ahead[0])
                return int(self._order[self._place])
            self._place = min(self._place + 64, len(self._order))
            if self._place == len(self._order):
                length = min(2 * len(self._order), len(self._similarity))
                self._order = _order(self._similarity, length)


def _order(similarity: npt.NDArray[np.int32], length: int) -> IntArray:
    """The `length` nearest rows in order, and all that are as near as the last of them."""
    if length == 0:
        return np.empty(0, np.int64)
    n = len(similarity)
    near = np.flatnonzero(similarity >= np.partition(similarity, n - length)[n - length])
    return near[np.argsort(-similarity[near].astype(np.int64), kind="stable")]
