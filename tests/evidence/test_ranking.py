"""Areas and correlations against slow references and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm, rankdata, spearmanr, t

from qaq.evidence import ranking as evidence

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


def slow_auroc(positive, negative):
    wins = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    return sum(wins) / len(wins)


@given(scores, scores)
def test_the_area_counts_pairs(positive, negative):
    area = evidence.auroc(np.array(positive), np.array(negative))
    assert area == pytest.approx(slow_auroc(positive, negative))


@given(scores, scores)
def test_the_area_under_the_curve_is_the_auroc(positive, negative):
    false, true = evidence.roc(np.array(positive), np.array(negative))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()
    area = ((true[1:] + true[:-1]) / 2 * np.diff(false)).sum()
    assert area == pytest.approx(slow_auroc(positive, negative))


@given(scores, scores)
def test_swapping_the_groups_mirrors_the_area(positive, negative):
    one = evidence.auroc(np.array(positive), np.array(negative))
    other = evidence.auroc(np.array(negative), np.array(positive))
    assert one + other == pytest.approx(1)


def test_perfect_separation_of_few_rows_does_not_claim_certainty():
    low, high = evidence.auroc_interval(np.arange(5) + 100.0, np.arange(39.0))
    assert high == 1 and low == pytest.approx(0.89, abs=0.015)
    mirrored = evidence.auroc_interval(np.arange(39.0), np.arange(5) + 100.0)
    assert mirrored == pytest.approx((0, 1 - low))
    many = evidence.auroc_interval(np.arange(200) + 1000.0, np.arange(600.0))
    assert low < many[0] < 1


def test_at_the_bound_of_perfect_separation_samples_separate_that_often():
    # Two unit normals with the area of the bound: 5 rows lie above 39 others in 2.5% of the draws.
    low, _ = evidence.auroc_interval(np.arange(5) + 100.0, np.arange(39.0))
    rng = np.random.default_rng(1)
    up = rng.normal(norm.ppf(low) * np.sqrt(2), 1, (40_000, 5)).min(axis=1)
    down = rng.normal(0, 1, (40_000, 39)).max(axis=1)
    assert (up > down).mean() == pytest.approx(0.025, abs=0.003)


def test_one_row_among_the_others_says_nothing():
    assert evidence.auroc_interval(np.array([3.5]), np.arange(9.0)) == (0, 1)


@pytest.mark.parametrize(
    ("up_rows", "down_rows", "shift"), [(60, 60, 1.0), (5, 39, 1.5), (8, 200, 2.2)]
)
def test_the_interval_covers_the_true_area_about_as_often_as_it_says(up_rows, down_rows, shift):
    truth = norm.cdf(shift / np.sqrt(2))
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        low, high = evidence.auroc_interval(
            rng.normal(shift, 1, up_rows), rng.normal(0, 1, down_rows)
        )
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.93


def test_the_variance_is_delongs_from_its_definition():
    rng = np.random.default_rng(3)  # a wide group against a narrow one: larger than the normals'
    up, down = rng.integers(-9, 12, 12).astype(float), rng.integers(0, 3, 40).astype(float)
    wins = (up[:, None] > down) + (up[:, None] == down) / 2
    area = wins.mean()
    error = np.sqrt(wins.mean(axis=1).var(ddof=1) / 12 + wins.mean(axis=0).var(ddof=1) / 40)
    half = t.ppf(0.975, 11) * error / (area * (1 - area))
    expected = expit(np.log(area / (1 - area)) + np.array([-half, half]))
    assert evidence.auroc_interval(up, down) == pytest.approx(tuple(expected))


def test_rows_without_a_score_take_no_part_in_an_area():
    score = np.array([0.0, 1.0, np.nan, 2.0, np.nan, -1.0])
    bad = np.array([0, 0, 0, 1, 1, 0], bool)
    found = evidence.area(score, bad, ~bad)
    assert (found.value, found.n) == (1.0, 1)
    assert evidence.area(np.where(bad, np.nan, score), bad, ~bad) is None


pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=40)


@given(pairs)
def test_spearman_is_scipys(values):
    x, y = np.array(values, np.float64).T
    found = evidence.spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
    else:
        assert found.value == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
        assert -1 <= found.low <= found.value <= found.high <= 1


def test_spearman_skips_rows_that_lack_a_score():
    x, y = np.array([1.0, 2.0, np.nan, 3.0, 4.0]), np.array([1.0, 3.0, 9.0, 2.0, 4.0])
    found = evidence.spearman(x, y)
    assert found.n == 4
    assert found.value == pytest.approx(spearmanr([1, 2, 3, 4], [1, 3, 2, 4]).statistic)


def test_the_interval_of_a_correlation_holds_the_true_value_of_a_normal_pair():
    x, y = np.random.default_rng(7).multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 300).T
    found = evidence.spearman(x, y)
    assert found.low < 6 / np.pi * np.arcsin(0.25) < found.high


def test_a_partial_correlation_is_that_of_the_textbook_formula():
    rng = np.random.default_rng(2)
    length = rng.normal(size=200)
    x, y = length + rng.normal(size=200), length + rng.normal(size=200)
    r = np.corrcoef([rankdata(v) for v in (x, y, length)])
    by_hand = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    found = evidence.spearman(x, y, length)
    assert found.value == pytest.approx(by_hand)
    assert abs(found.value) < 0.2 < evidence.spearman(x, y).value
