"""Which sets repeat an earlier one, against a slow reference over Python sets."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.selection.hashing import mix
from qaq.selection.repeats import NOT_DUPLICATE, first_repeated

members = st.lists(st.integers(0, 30), max_size=25)
collections = st.lists(members | st.just(list(range(20))), max_size=12)


def first_in(sets, order, jaccard):
    sizes = np.array([len(one) for one in sets], np.int64)
    hashes = mix(np.array([member for one in sets for member in one], np.uint64))
    with ThreadPoolExecutor(2) as threads:
        return first_repeated(hashes, sizes, np.array(order, np.int64), jaccard, threads).tolist()


def slow_first(sets, order, jaccard):
    sets, kept, out = [set(one) for one in sets], [], [NOT_DUPLICATE] * len(sets)
    for one in order:
        mine = sets[one]
        same = [k for k in kept if mine and len(mine & sets[k]) / len(mine | sets[k]) >= jaccard]
        if same:
            out[one] = same[0]
        else:
            kept.append(one)
    return out


@settings(max_examples=200, deadline=None)
@given(
    collections.flatmap(lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))),
    st.sampled_from([0.1, 0.5, 0.75, 0.8, 1.0]),
)
def test_no_repeat_is_overlooked_and_none_is_made_up(given_sets, jaccard):
    sets, order = given_sets
    assert first_in(sets, order, jaccard) == slow_first(sets, order, jaccard)


@pytest.mark.parametrize("shared, repeats", [(8, True), (7, False)])
def test_the_threshold_itself_is_reached(shared, repeats):
    # 8 of 10 together are 0.8 exactly, as a quotient of floats too
    two = [*range(shared), *range(100, 109 - shared)], [*range(shared), *range(200, 209 - shared)]
    both = 2 * 9 - shared
    assert (shared / both >= 0.8) is repeats
    assert (first_in(two, [0, 1], 0.8)[1] == 0) is repeats


def test_a_group_of_a_hundred_thousand_equal_sets_takes_no_longer_than_as_many_different_ones():
    equal, different = (
        [[1, 2, 3, 4]] * 100_000,
        [[4 * n + k for k in range(4)] for n in range(100_000)],
    )
    took = []
    for sets in (different, equal):
        started = time.perf_counter()
        found = first_in(sets, range(len(sets)), 0.8)
        took.append(time.perf_counter() - started)
    assert found == [NOT_DUPLICATE] + [0] * 99_999
    assert took[1] < 3 * took[0] + 1
