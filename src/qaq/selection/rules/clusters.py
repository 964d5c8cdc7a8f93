"""Choices inside clusters of like pairs: a control that is only diverse, and IFD made diverse."""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import ifd_loss_ratio
from qaq.selection.clusters import groups, in_turn, share_of_each
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import cut_highest
from qaq.selection.decision import KEPT, UNSCORED, Decision, Labels, Size, decide
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import FloatArray, IntArray, finite, ranks_within
from qaq.selection.rules.random import draw


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RandomClusters:
    """A draw that takes as many rows from each cluster, as far as they have them.

    Clusters: k-means over the target model's vectors. What a diverse choice gains over `random`
    is seen here, without any score. `max_tokens` bounds a rendered pair.
    """

    needs: ClassVar[tuple[str, ...]] = ("embeddings",)
    seeded: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True
    method: Literal["random_clusters"] = "random_clusters"
    clusters: int = Field(default=100, ge=1, le=10_000)
    max_tokens: int = Field(default=2048, ge=16)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdClusters:
    """The highest IFD of each cluster, every cluster giving the same share.

    Complexity and Diversity Aware Sampling of CodeACT (arXiv 2408.02193): k-means over vectors,
    then the top share by IFD inside each cluster. There a sentence encoder reads the questions;
    here the vectors are the target model's, of pairs, and the IFD the strong model's.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong", "embeddings")
    spans: ClassVar[tuple[str, ...]] = ("a", "a_given_q")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ifd_clusters"] = "ifd_clusters"
    clusters: int = Field(default=100, ge=1, le=10_000)
    max_tokens: int = Field(default=2048, ge=16)


@rule(RandomClusters)
def random_clusters(config: RandomClusters, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep what the clusters draw when they take turns."""
    group = groups(given(pool.embeddings, "embeddings"), config.clusters)
    score = np.where(group >= 0, draw(pool.keys, seed), np.nan)
    label = np.where(group >= 0, 1, UNSCORED).astype(np.int32)
    count = size.rows(int((group >= 0).sum()), config.method)
    label[in_turn(score, group, count)] = KEPT
    labels = ("kept: drawn in its cluster", "dropped: not drawn")
    return _decided(pool, group, score, label, labels)


@rule(IfdClusters)
def ifd_clusters(config: IfdClusters, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the highest ratio of losses of each cluster."""
    score = finite(ifd_loss_ratio(pool.scores["strong"]))
    every = groups(given(pool.embeddings, "embeddings"), config.clusters)
    group = np.where(np.isnan(score), -1, every)
    score = np.where(group >= 0, score, np.nan)
    label = np.where(group >= 0, 1, UNSCORED).astype(np.int32)
    count = size.rows(int((group >= 0).sum()), config.method)
    for name, rows in share_of_each(group, count).items():
        mine = np.flatnonzero(group == name)
        label[mine] = cut_highest(score[mine], rows)
    labels = ("kept: highest of its cluster", "dropped: lower in its cluster")
    return _decided(pool, group, score, label, labels, roles=("strong",))


def _decided(
    pool: Pool,
    group: IntArray,
    score: FloatArray,
    label: Labels,
    labels: tuple[str, str],
    roles: tuple[str, ...] = (),
) -> Decision:
    """With the cluster as the stratum, in which the rank is."""
    stratum = group.astype(np.int32)
    rank = ranks_within(score, stratum)
    return decide(pool, labels, label, score=score, stratum=stratum, rank=rank, roles=roles)
