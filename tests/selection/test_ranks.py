"""Ranks and strata against scipy, pandas-free slow references and cases worked by hand."""

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from qaq.selection.ranks import NO_STRATUM, ascending, equal_count_bins, lowest, ranks_within

few_values = st.lists(st.one_of(st.integers(-4, 4).map(float), st.just(float("nan"))), max_size=60)
values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def slow_bins(values, bins):
    """The definition, row by row: floor(rows strictly below * bins / rows), four rows a bin."""
    known = [v for v in values if not isnan(v)]
    while bins > 1 and 4 * bins > len(known):
        bins -= 1
    return [
        NO_STRATUM if isnan(v) else sum(o < v for o in known) * bins // len(known) for v in values
    ]


def slow_ranks(values, stratum):
    """(average 1-based position among the rows of the stratum - 1/2) / rows, row by row."""
    out = []
    for v, s in zip(values, stratum, strict=True):
        if isnan(v) or s == NO_STRATUM:
            out.append(np.nan)
            continue
        peers = [o for o, t in zip(values, stratum, strict=True) if t == s and not isnan(o)]
        position = sum(o < v for o in peers) + (sum(o == v for o in peers) + 1) / 2
        out.append((position - 0.5) / len(peers))
    return out


@given(few_values)
def test_ascending_is_a_stable_sort(numbers):
    array = np.array(numbers, np.float64)
    known = int((~np.isnan(array)).sum())
    expected = np.argsort(array, kind="stable")
    assert ascending(array)[:known].tolist() == expected[:known].tolist()


@pytest.mark.parametrize("values", [2, 1000, 10**9])
def test_ascending_is_a_stable_sort_where_vector_instructions_take_over(values):
    array = np.random.default_rng(0).integers(0, values, 50_000).astype(np.float64)
    assert (ascending(array) == np.argsort(array, kind="stable")).all()


@given(few_values, st.data())
def test_the_lowest_are_the_first_of_a_stable_sort(numbers, data):
    array = np.array(numbers, np.float64)
    count = data.draw(st.integers(0, int((~np.isnan(array)).sum())))
    expected = np.argsort(array, kind="stable")[:count]  # which puts NaN last
    assert np.flatnonzero(lowest(array, count)).tolist() == sorted(expected.tolist())


@given(few_values, st.integers(1, 12))
def test_bins_follow_their_definition(numbers, bins):
    assert equal_count_bins(np.array(numbers), bins).tolist() == slow_bins(numbers, bins)


@given(few_values, st.data())
def test_ranks_follow_their_definition(numbers, data):
    n = len(numbers)
    stratum = data.draw(st.lists(st.integers(NO_STRATUM, 3), min_size=n, max_size=n))
    ranks = ranks_within(np.array(numbers), np.array(stratum, np.int32))
    np.testing.assert_allclose(ranks, slow_ranks(numbers, stratum), rtol=1e-15)


@given(values)
def test_global_ranks_are_scipys_average_ranks(numbers):
    expected = (rankdata(numbers, method="average") - 0.5) / len(numbers)
    np.testing.assert_allclose(ranks_within(np.array(numbers)), expected, rtol=1e-14)


@given(values, st.integers(1, 12))
def test_ranks_lie_inside_zero_and_one_and_average_one_half_in_every_stratum(numbers, bins):
    array = np.array(numbers)
    stratum = equal_count_bins(array[::-1].copy(), bins)
    ranks = ranks_within(array, stratum)
    assert ((ranks > 0) & (ranks < 1)).all()
    for one in np.unique(stratum):
        assert ranks[stratum == one].mean() == pytest.approx(0.5)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60, unique=True), st.integers(1, 12))
def test_bins_of_distinct_values_differ_by_one_row_at_most(numbers, bins):
    sizes = np.bincount(equal_count_bins(np.array(numbers), bins))
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == (bins if len(numbers) >= 4 * bins else max(1, len(numbers) // 4))


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60), st.integers(1, 12))
def test_a_growing_transform_changes_neither_bins_nor_ranks(numbers, bins):
    array = np.array(numbers, np.float64)
    for transformed in (3 * array + 7, array**3, np.exp(array / 100)):
        assert (equal_count_bins(transformed, bins) == equal_count_bins(array, bins)).all()
        assert (ranks_within(transformed) == ranks_within(array)).all()


def test_equal_values_share_a_bin_even_across_its_edge():
    # Two bins of eight rows would end after the fourth row; the tie pulls the fifth along.
    values = np.array([1.0, 2, 3, 4, 4, 5, 6, 7])
    assert equal_count_bins(values, 2).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_a_bins_lower_edge_belongs_to_it():
    assert equal_count_bins(np.arange(10.0, 90, 10), 2).tolist() == [0] * 4 + [1] * 4


def test_all_equal_values_make_one_bin_and_one_rank():
    same = np.full(5, 2.5)
    assert equal_count_bins(same, 3).tolist() == [0] * 5
    assert ranks_within(same).tolist() == [0.5] * 5


@pytest.mark.parametrize(("rows", "bins"), [(3, 1), (7, 1), (8, 2), (39, 9), (40, 10), (99, 10)])
def test_no_bin_has_fewer_than_four_rows(rows, bins):
    sizes = np.bincount(equal_count_bins(np.arange(float(rows)), 10))
    assert len(sizes) == bins
    assert bins == 1 or sizes.min() >= 4


def test_one_row_ranks_in_the_middle():
    assert ranks_within(np.array([7.0])).tolist() == [0.5]


def test_no_rows_give_no_ranks():
    assert len(ranks_within(np.empty(0))) == 0
    assert len(equal_count_bins(np.empty(0), 10)) == 0


def test_rows_without_a_value_take_no_place():
    array = np.array([np.nan, *range(8), np.nan])
    assert equal_count_bins(array, 2).tolist() == [NO_STRATUM, *[0] * 4, *[1] * 4, NO_STRATUM]
    array = np.array([np.nan, 1.0, np.nan, 2.0])
    np.testing.assert_array_equal(ranks_within(array), [np.nan, 0.25, np.nan, 0.75])
