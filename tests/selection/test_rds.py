"""RDS+: cosines against numpy's own, the round robin against a slow one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.host.errors import DataError
from qaq.selection.pool import Embeddings
from qaq.selection.rules import select
from qaq.selection.rules.rds import NONE, UNIT, RdsPlus, round_robin, similarities


def slow_round_robin(table, count):
    """Turns over the queries; each takes the nearest free row, the first of equals."""
    picked, turn = [], 0
    while len(picked) < count:
        row = table[turn % len(table)]
        free = [i for i in range(len(row)) if i not in picked]
        picked.append(min(free, key=lambda i: (-row[i], i)))
        turn += 1
    return picked


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_round_robin_picks_as_the_slow_one_does(queries, rows, share, seed):
    # Few distinct values, so that ties are everywhere, also at the edge of what is sorted.
    table = np.random.default_rng(seed).integers(-3, 4, (queries, rows)).astype(np.int32)
    count = round(share * rows)
    assert round_robin(table, count).tolist() == slow_round_robin(table.tolist(), count)


def test_a_query_whose_favourites_are_gone_looks_further():
    # All queries want the same rows in the same order, far beyond the first sorted stretch.
    table = np.tile(np.arange(1000, 0, -1, dtype=np.int32), (7, 1))
    assert round_robin(table, 900).tolist() == list(range(900))


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
