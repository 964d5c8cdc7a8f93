"""Clusters, turns, shares and k-center against slow forms of their definitions."""

from dataclasses import replace
from itertools import combinations, islice

import numpy as np
import pyarrow as pa
import pytest

from qaq.selection.clusters import centers, directions, groups, in_turn, share_of_each
from qaq.selection.inputs import load_pool
from qaq.selection.pool import Embeddings, build_pool
from qaq.selection.rules import select
from qaq.selection.rules.clusters import IfdClusters, RandomClusters
from qaq.selection.rules.k_center import KCenter
from qaq.store.tables import EMBEDDED, PAIRS, write_table


def embedded(vectors):
    rows = np.asarray(vectors, np.float32)
    return Embeddings(rows, np.arange(len(rows)), np.empty((0, rows.shape[1]), np.float32))


def blobs(sizes, seed=0, width=6):
    rng = np.random.default_rng(seed)
    middles = np.eye(width)[: len(sizes)] * 5
    return np.concatenate(
        [m + 0.2 * rng.normal(size=(n, width)) for m, n in zip(middles, sizes, strict=True)]
    )


def test_groups_that_lie_apart_are_found_and_each_row_is_nearest_to_its_own_mean():
    found = groups(embedded(blobs([30, 20, 10])), 3)
    assert sorted(np.bincount(found)) == [10, 20, 30]
    mixed = embedded(np.random.default_rng(1).normal(size=(200, 5)))
    found, (vectors, _) = groups(mixed, 8), directions(mixed)
    means = np.stack([vectors[found == k].mean(axis=0) for k in range(8)])
    apart = ((vectors[:, None] - means[None]) ** 2).sum(axis=2)
    assert (apart.argmin(axis=1) == found).mean() > 0.97


def test_rows_without_a_direction_have_no_group_and_equal_rows_one_together():
    rows = np.ones((6, 3))
    rows[[1, 4]] = [[0], [np.nan]]
    assert groups(embedded(rows), 4).tolist() == [0, -1, 0, 0, -1, 0]


def slow_turns(score, group, count):
    left = {i for i, s in enumerate(score) if not np.isnan(s)}
    picked = []
    while len(picked) < count:
        present = {group[i] for i in left}
        named = [min((-score[i], i) for i in left if group[i] == g) for g in present]
        for _, row in sorted(named):
            picked.append(row)
            left.discard(row)
    return picked[:count]


@pytest.mark.parametrize("seed", range(10))
def test_groups_take_turns_as_in_the_slow_form(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 12, 40) / 4
    score[rng.integers(0, 40, 3)] = np.nan
    group = rng.integers(0, 5, 40)
    known = int((~np.isnan(score)).sum())
    for count in (0, 3, 17, known):
        assert in_turn(score, group, count).tolist() == slow_turns(score, group, count)


def test_every_group_gives_the_same_share_to_a_row():
    group = np.repeat([0, 1, 2, -1], [50, 30, 21, 7])
    for count in range(102):
        found = share_of_each(group, count)
        assert sum(found.values()) == count
        for name, size in ((0, 50), (1, 30), (2, 21)):
            assert abs(found[name] - size * count / 101) < 1


def test_k_center_takes_the_farthest_row_each_time_and_is_within_twice_the_best():
    made = embedded(np.random.default_rng(3).normal(size=(14, 3)))
    vectors, usable = directions(made)
    found = list(centers(vectors, usable))
    assert sorted(row for row, _ in found) == list(range(14))
    radius = [far for _, far in found]
    assert radius == sorted(radius, reverse=True)
    apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    chosen = [found[0][0]]
    for row, far in found[1:]:
        nearest = apart[:, chosen].min(axis=1)
        assert far == pytest.approx(nearest.max(), abs=1e-4)
        assert nearest[row] == pytest.approx(nearest.max(), abs=1e-4)
        chosen.append(row)
    best = min(apart[:, list(c)].min(axis=1).max() for c in combinations(range(14), 4))
    covered = apart[:, [row for row, _ in islice(found, 4)]].min(axis=1).max()
    assert covered <= 2 * best + 1e-4


@pytest.fixture
def pool(make):
    """Three groups of 40, 12 and 8 rows; IFD rises with the row's number."""
    ids = make.ids(60)
    scores = make.scores(ids, ifd=[0.1 + i / 100 for i in range(60)])
    built, order = build_pool(make.pairs(ids).select(["row_id"]), {"strong": scores})
    place = np.array([ids.index(row) for row in order.to_pylist()])
    vectors = blobs([40, 12, 8]).astype(np.float32)
    whole = replace(built, embeddings=Embeddings(vectors, place, np.empty((0, 6), np.float32)))
    return whole, place


def groups_kept(decision, place):
    return np.bincount(np.digitize(place[decision.kept], [40, 52]), minlength=3).tolist()


def test_a_balanced_draw_takes_as_many_of_each_group_as_it_has(pool):
    whole, place = pool
    rule = RandomClusters(clusters=3)
    assert groups_kept(select(rule, whole, ratio=0.25, seed=1), place) == [5, 5, 5]
    assert groups_kept(select(rule, whole, ratio=0.5, seed=1), place) == [11, 11, 8]
    drawn = [set(place[select(rule, whole, ratio=0.25, seed=s).kept]) for s in (1, 2)]
    assert drawn[0] != drawn[1]


def test_ifd_inside_clusters_keeps_the_highest_of_each(pool):
    whole, place = pool
    found = select(IfdClusters(clusters=3), whole, ratio=0.25)
    expected = {*range(30, 40), *range(49, 52), *range(58, 60)}
    assert set(place[found.kept].tolist()) == expected


def test_k_center_reaches_small_groups_first(pool):
    whole, place = pool
    assert groups_kept(select(KCenter(), whole, ratio=0.05), place) == [1, 1, 1]


def test_a_rule_over_vectors_needs_no_queries(make, tmp_path):
    ids = make.ids(12)
    folders = {role: tmp_path / role for role in ("pairs", "embeddings")}
    for folder in folders.values():
        folder.mkdir()
    write_table(folders["pairs"] / "pairs.parquet", make.pairs(ids), PAIRS)
    table = pa.table({"row_id": ids[::-1]})
    write_table(folders["embeddings"] / "row_ids.parquet", table, EMBEDDED)
    np.save(folders["embeddings"] / "rows.npy", blobs([6, 6])[::-1].astype(np.float32))
    loaded, _ = load_pool(KCenter(), folders)
    assert select(KCenter(), loaded, ratio=0.5).kept.sum() == 6
