"""Joining by row id: order does not matter, and tables of different rows are refused."""

import numpy as np
import pyarrow as pa
import pytest

from qaq.host.errors import DataError
from qaq.selection.pool import build_pool, row_keys


def test_row_ids_become_numbers_of_the_same_order(make):
    ids = [make.row_id(i) for i in range(200)]
    keys = row_keys(pa.chunked_array([ids[:70], ids[70:]]), "the pool")
    assert keys.tolist() == [int(i, 16) for i in ids]
    assert [ids[i] for i in np.argsort(keys)] == sorted(ids)


def test_a_sliced_column_of_row_ids_is_read_from_its_own_start(make):
    ids = [make.row_id(i) for i in range(10)]
    keys = row_keys(pa.chunked_array([pa.array(ids).slice(3, 4)]), "the pool")
    assert keys.tolist() == [int(i, 16) for i in ids[3:7]]


@pytest.mark.parametrize("bad", ["r1", "0123456789abcdeg", "0123456789ABCDEF", "é23456789abcdef"])
def test_a_malformed_row_id_is_named(bad):
    with pytest.raises(DataError, match=r"the pool: 1 row ids are not 16 hex digits.*" + bad):
        row_keys(pa.chunked_array([["0123456789abcdef", bad]]), "the pool")


def test_a_missing_row_id_is_refused():
    with pytest.raises(DataError, match="1 row ids are not 16 hex digits; the first is None"):
        row_keys(pa.chunked_array([pa.array(["0123456789abcdef", None])]), "the pool")


def test_a_row_that_occurs_twice_is_refused(make):
    ids = make.ids(3)
    with pytest.raises(DataError, match="the pool: 1 row ids occur more than once"):
        build_pool(make.pairs([*ids, ids[0]]), {})


def test_scores_are_joined_by_row_id_and_never_by_position(make):
    ids = make.ids(4)
    table = make.scores(ids[::-1], rmi=[3.0, 2.0, 1.0, 0.0])
    pool, names = build_pool(make.pairs([ids[2], ids[0], ids[3], ids[1]]), {"strong": table})
    assert names.to_pylist() == ids
    strong = pool.scores["strong"]
    assert ((strong["nll_q"] - strong["nll_q_given_a"]) / 2).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_two_models_that_scored_different_rows_are_counted_on_each_side(make):
    ids = make.ids(10)
    tables = {"strong": make.scores(ids[:8]), "weak": make.scores(ids[3:])}
    expected = "3 rows are only in the strong scores and 2 only in the weak scores"
    with pytest.raises(DataError, match=expected) as error:
        build_pool(make.pairs(ids), tables)
    assert "the pool 10, the strong scores 8, the weak scores 7" in str(error.value)
    assert "2 rows are only in the pool and 0 only in the strong scores" in str(error.value)


def test_a_part_of_a_pool_keeps_its_own_scores(make):
    pool = make.pool(5, rmi=[0.0, 1.0, 2.0, None, 4.0], reasons=[None] * 3 + ["empty", None])
    part = pool.take(np.array([False, True, False, True, True]))
    assert len(part) == 3
    nll = part.scores["strong"]["nll_q"] - part.scores["strong"]["nll_q_given_a"]
    np.testing.assert_array_equal(nll / 2, [1.0, np.nan, 4.0])
    codes, texts = part.scores["strong"].reasons()
    assert [texts[c] if c >= 0 else None for c in codes] == [None, "empty", None]
