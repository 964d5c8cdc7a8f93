"""Groups of like pairs, from the vectors that an embeddings stage stored.

K-means by SciPy (Lloyd's algorithm from a k-means++ start) over the vectors at length 1. Its start
is drawn with a fixed seed, so that the groups are those of the vectors alone.
"""

import warnings
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

from qaq.selection.pool import Embeddings
from qaq.selection.ranks import FloatArray, IntArray, Mask

ROUNDS = 50
Vectors = npt.NDArray[np.float32]
F = TypeVar("F", np.float32, np.float64)


def normalised(vectors: npt.NDArray[F]) -> tuple[npt.NDArray[F], Mask]:
    """Vectors (n x d) at length 1, and which of them have a direction; the others become 0."""
    length = np.sqrt((vectors * vectors).sum(axis=1))
    usable = np.isfinite(length) & (length > 0)
    scale = np.divide(1, length, out=np.zeros_like(length), where=usable)
    return np.where(usable[:, None], vectors, 0) * scale[:, None], usable


def directions(embeddings: Embeddings) -> tuple[Vectors, Mask]:
    """The pool's vectors, normalised."""
    return normalised(np.asarray(embeddings.rows[embeddings.order], dtype=np.float32))


def groups(embeddings: Embeddings, clusters: int) -> IntArray:
    """The cluster of each row, fewer where fewer vectors differ; -1 where one has no direction."""
    vectors, usable = directions(embeddings)
    found = np.full(len(vectors), -1, np.int64)
    known = vectors[usable].astype(np.float64)
    count = min(clusters, len({hash(row.tobytes()) for row in known}))
    if count:
        start = np.random.default_rng(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a cluster that lost its rows stays empty
            _, found[usable] = kmeans2(known, count, iter=ROUNDS, minit="++", seed=start)
    return found


def in_turn(score: FloatArray, group: IntArray, count: int) -> IntArray:
    """The `count` rows that the groups name when they take turns, each its highest that is left.

    In a round the groups go by the score of the row that they name; a group without rows passes.
    NaN never gets a turn. Of equal scores the row that stands first.
    """
    order = [row for row in np.argsort(-score, kind="stable") if not np.isnan(score[row])]
    turn: dict[int, int] = {}
    rounds = []
    for row in order:
        rounds.append(turn.get(int(group[row]), 0))
        turn[int(group[row])] = rounds[-1] + 1
    by_round = np.argsort(rounds, kind="stable")[:count]
    return np.array(order, np.int64)[by_round]


def share_of_each(group: IntArray, count: int) -> dict[int, int]:
    """How many rows each group gets when all give the same share: by largest remainder."""
    names, sizes = np.unique(group[group >= 0], return_counts=True)
    exact = sizes * (count / max(1, sizes.sum()))
    whole = np.floor(exact).astype(np.int64)
    left = count - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return dict(zip(names.tolist(), whole.tolist(), strict=True))


def centers(vectors: Vectors, usable: Mask) -> Iterator[tuple[int, float]]:
    """Greedy k-center: the row farthest from all that came before, and how far it is.

    First comes the row nearest to the mean direction (its distance is given as 2, the largest
    possible). Of rows as far the one that stands first. Sener and Savarese (2018), after
    Gonzalez (1985): the largest distance to a chosen row is at most twice the smallest possible.
    """
    if not usable.any():
        return
    mean = vectors[usable].mean(axis=0)
    row = int(np.argmax(np.where(usable, vectors @ mean, -np.inf)))
    far, distance = 2.0, np.where(usable, np.inf, -np.inf)
    for _ in range(int(usable.sum())):
        yield row, far
        # Rounded, so that equal rows are equal whatever the order of the sum.
        apart = np.sqrt(np.maximum(0, 2 - 2 * (vectors @ vectors[row]).astype(np.float64)))
        distance = np.minimum(distance, np.round(apart, 5))
        distance[row] = -np.inf
        row = int(np.argmax(distance))
        far = float(distance[row])
