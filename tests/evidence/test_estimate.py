"""Intervals of shares and means against statsmodels and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from qaq.evidence.estimate import Estimate, mean, share, share_difference, wilson

COUNTS = st.integers(1, 600).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_agrees_with_statsmodels(counts: tuple[int, int]) -> None:
    successes, n = counts
    found = wilson(successes, n)
    low, high = proportion_confint(successes, n, method="wilson")
    assert found == pytest.approx((low, high), abs=1e-12)


def test_wilson_of_eight_in_ten_is_that_of_the_textbook() -> None:
    found = wilson(8, 10)
    assert found == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(COUNTS, st.floats(0, 1))
def test_wilson_holds_the_share_and_mirrors(counts: tuple[int, int], fraction: float) -> None:
    successes, n = counts[0] * fraction, counts[1]
    (low, high), mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
        wilson(successes, n)


def test_a_share_of_no_rows_is_no_share() -> None:
    assert share(0, 0) is None


@given(st.integers(0, 40), st.integers(0, 60))
def test_the_difference_of_shares_is_newcombes(first: int, second: int) -> None:
    a, b = share(first, 40), share(second, 60)
    assert isinstance(a, Estimate) and isinstance(b, Estimate)
    found = share_difference(a, b)
    expected = confint_proportions_2indep(first, 40, second, 60, method="newcomb")
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)


def test_a_mean_has_students_interval_over_the_finite_values() -> None:
    values = np.array([1.0, 2.0, np.nan, 4.0])
    found = mean(values)
    assert found is not None and found.n == 3
    expected = stats.ttest_1samp([1, 2, 4], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert mean(np.array([np.nan, 1.0])) is None
