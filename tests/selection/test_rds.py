"""RDS+: cosines against numpy's own, each choice against a slow one after its script."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.host.errors import DataError
from qaq.selection.pool import Embeddings
from qaq.selection.rules import select
from qaq.selection.rules.rds import CHOICES, NONE, UNIT, RdsPlus, similarities


def slow_top_influences(table, count):
    """get_top_influences.py, selection_method max: pop, append, remove what came before."""
    left = [sorted(range(len(row)), key=lambda i: row[i], reverse=True) for row in table]
    saved = []
    while len(saved) < count:
        for names in left:
            saved.append(names.pop(0))
            saved = list(dict.fromkeys(saved))
    return saved[:count]


def slow_top_optimized(table, count):
    """get_top_optimized.py: one heap of all similarities, what was seen is skipped."""
    heap = [(-value, i) for row in table for i, value in enumerate(row)]
    heapq.heapify(heap)
    saved = []
    while len(saved) < count:
        _, row = heapq.heappop(heap)
        if row not in saved:
            saved.append(row)
    return saved


def slow_nearest_free(table, count):
    """Turns over the queries; each takes the nearest free row, the first of equals."""
    picked, turn = [], 0
    while len(picked) < count:
        row = table[turn % len(table)]
        free = [i for i in range(len(row)) if i not in picked]
        picked.append(min(free, key=lambda i: (-row[i], i)))
        turn += 1
    return picked


SLOW = {
    "get_top_influences": slow_top_influences,
    "get_top_optimized": slow_top_optimized,
    "nearest_free": slow_nearest_free,
}


@pytest.mark.parametrize("choice", CHOICES)
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_each_choice_picks_as_the_slow_one_does(choice, queries, rows, share, seed):
    # Few distinct values, so that ties are everywhere, also at the edge of what is sorted.
    table = np.random.default_rng(seed).integers(-3, 4, (queries, rows)).astype(np.int32)
    count = round(share * rows)
    assert CHOICES[choice](table, count).tolist() == SLOW[choice](table.tolist(), count)


@pytest.mark.parametrize("choice", CHOICES)
def test_queries_that_all_want_the_same_rows_look_far_enough(choice):
    # In the same order, far beyond the first sorted stretch.
    table = np.tile(np.arange(1000, 0, -1, dtype=np.int32), (7, 1))
    assert CHOICES[choice](table, 900).tolist() == list(range(900))


def test_a_query_loses_its_turn_only_by_the_published_rule():
    # Both queries like row 0 most; then the first likes 1 and 2, the second 3.
    table = np.array([[9, 8, 7, 0], [9, 1, 0, 2]], np.int32)
    picked = {choice: CHOICES[choice](table, 3).tolist() for choice in CHOICES}
    assert picked == {
        "get_top_influences": [0, 1, 3],
        "get_top_optimized": [0, 1, 2],
        "nearest_free": [0, 3, 1],
    }


def test_cosines_are_those_of_numpy_whatever_the_block():
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(50, 16)).astype(np.float32), rng.normal(size=(3, 16))
    order = rng.permutation(50)
    normal = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ normal.T
    one = similarities(Embeddings(rows, order, queries))
    np.testing.assert_allclose(one * UNIT, expected[:, order], atol=1e-7)
    assert (similarities(Embeddings(rows, order, queries), block_rows=7) == one).all()


def test_the_length_of_a_vector_does_not_count():
    rows = np.array([[1.0, 2.0], [100.0, 200.0], [-1.0, -2.0]])
    table = similarities(Embeddings(rows, np.arange(3), np.array([[3.0, 6.0]])))
    assert (table * UNIT).tolist() == [[1.0, 1.0, -1.0]]


def test_a_row_without_a_direction_is_never_kept_and_says_so(make):
    rows = np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])
    vectors = Embeddings(rows, np.arange(4), np.array([[1.0, 0.1]]))
    pool = replace(make.pool(4), embeddings=vectors)
    decision = select(RdsPlus(), pool, ratio=1.0)
    assert make.kept(decision) == [0, 3]
    assert decision.selectable == 2
    assert make.reasons(decision)[1] == "no score: not a finite number"
    assert (similarities(vectors)[0, 1:3] == NONE).all()


def test_each_query_gets_its_turn_by_hand(make):
    # Rows 0 and 1 lie at the first query, rows 2 and 3 at the second; one each is kept, then two.
    rows = np.array([[1.0, 0.05], [1.0, 0.1], [0.05, 1.0], [0.1, 1.0]])
    pool = replace(
        make.pool(4), embeddings=Embeddings(rows, np.arange(4), np.array([[1.0, 0], [0, 1.0]]))
    )
    assert make.kept(select(RdsPlus(), pool, ratio=0.5)) == [0, 2]
    assert make.kept(select(RdsPlus(), pool, ratio=0.75)) == [0, 1, 2]


@pytest.mark.parametrize("queries", [np.zeros((1, 2)), np.ones((1, 3)), np.ones((0, 2))])
def test_queries_that_point_nowhere_or_have_another_width_are_refused(queries):
    with pytest.raises(DataError, match="queries"):
        similarities(Embeddings(np.ones((4, 2)), np.arange(4), queries))
