"""Separation, retention and agreement against slow references and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, rankdata, spearmanr

from qaq.evidence import separation as evidence

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


@settings(max_examples=20, deadline=None)
@given(scores, scores)
def test_the_bootstrap_equals_one_that_resamples_the_scores_themselves(positive, negative):
    up, down = np.array(positive), np.array(negative)
    rng = np.random.default_rng(3)
    slow = []
    for _ in range(40):
        p = up[rng.integers(0, len(up), len(up))]
        n = down[rng.integers(0, len(down), len(down))]
        slow.append(slow_auroc(p, n))
    expected = np.quantile(slow, [0.025, 0.975])
    assert evidence.auroc_interval(up, down, draws=40, seed=3) == pytest.approx(tuple(expected))


def test_the_interval_covers_the_true_area_about_as_often_as_it_says():
    # Two normals one standard deviation apart: the true area is Phi(1 / sqrt 2) = 0.760.
    truth = norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        up, down = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
        low, high = evidence.auroc_interval(up, down, draws=200, seed=trial)
        covered += low <= truth <= high
    assert 0.88 <= covered / 100 <= 0.99


def test_separations_leave_unscored_rows_out_and_count_the_rest():
    defect = np.array([None, None, None, "echo", "echo", "swapped_answer"], object)
    rmi = np.array([0.0, 1.0, np.nan, 2.0, np.nan, -1.0])
    found = {s.defect: s for s in evidence.separations({"rmi": rmi}, defect, draws=20)}
    assert (found["echo"].auroc, found["echo"].rows, found["echo"].clean) == (1.0, 1, 2)
    assert (found["swapped_answer"].auroc, found["swapped_answer"].rows) == (0.0, 1)


def test_a_defect_without_a_scored_row_is_left_out():
    defect = np.array([None, "echo"], object)
    assert evidence.separations({"rmi": np.array([1.0, np.nan])}, defect, draws=5) == []


def test_retention_by_hand():
    # Two of four clean rows and one of three echoes are kept.
    defect = np.array([None] * 4 + ["echo"] * 3, object)
    kept = np.array([1, 1, 0, 0, 1, 0, 0], bool)
    clean, echo = evidence.retentions(kept, defect)
    assert (clean.defect, clean.kept, clean.rows, clean.share) == ("clean", 2, 4, 0.5)
    assert (echo.defect, echo.kept, echo.rows, echo.share) == ("echo", 1, 3, 1 / 3)
    # Wilson's interval of 1 in 3, from its formula.
    z, p, n = norm.ppf(0.975), 1 / 3, 3
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert echo.low == pytest.approx((centre - half) / (1 + z**2 / n))
    assert echo.high == pytest.approx((centre + half) / (1 + z**2 / n))


pairs = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=40)


@given(pairs)
def test_spearman_is_scipys(values):
    x, y = np.array(values, np.float64).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(evidence.spearman(x, y))
    else:
        assert evidence.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_spearman_skips_rows_that_lack_a_score():
    x, y = np.array([1.0, 2.0, np.nan, 3.0]), np.array([1.0, 3.0, 9.0, 2.0])
    assert evidence.spearman(x, y) == pytest.approx(spearmanr([1, 2, 3], [1, 3, 2]).statistic)


@given(pairs, st.floats(0.1, 1))
def test_top_overlap_counts_shared_rows(values, share):
    x, y = np.array(values, np.float64).T
    count = round(share * len(x))
    top = [set(sorted(range(len(x)), key=lambda i, v=v: (-v[i], i))[:count]) for v in (x, y)]
    if count:
        assert evidence.top_overlap(x, y, share) == pytest.approx(len(top[0] & top[1]) / count)


def test_a_matrix_is_symmetric_and_one_on_its_diagonal():
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=20), "b": rng.normal(size=20), "c": rng.normal(size=20)}
    names, values = evidence.matrix(columns)
    assert list(names) == ["a", "b", "c"]
    np.testing.assert_array_equal(values, values.T)
    assert values.diagonal().tolist() == [1, 1, 1]
    r = [rankdata(columns[n]) for n in "ab"]
    assert values[0, 1] == pytest.approx(np.corrcoef(*r)[0, 1])
    assert evidence.matrix(columns, share=0.5)[1][0, 1] == pytest.approx(
        evidence.top_overlap(columns["a"], columns["b"], 0.5)
    )


def test_subsets_overlap_by_hand():
    first, second = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 1], bool)
    assert evidence.kept_overlap(first, second) == {
        "of_first": 1 / 2,
        "of_second": 1 / 3,
        "of_union": 1 / 4,
    }
