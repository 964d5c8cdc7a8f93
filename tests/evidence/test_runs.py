"""The difference of two arms against scipy, statsmodels, brute force and cases worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from qaq.evidence.runs import Arm, difference, holm, luck, sign_flip


@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 50))
def test_sign_flip_with_one_seed_is_mcnemar(first: int, second: int, ties: int) -> None:
    differences = [1] * first + [-1] * second + [0] * ties
    reference = mcnemar([[0, first], [second, 0]], exact=True).pvalue
    assert sign_flip(np.array(differences, dtype=int)) == pytest.approx(reference)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_sign_flip_agrees_with_counting_every_sign_pattern(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = itertools.product((-1, 1), repeat=len(differences))
    extreme = [
        abs(sum(s * d for s, d in zip(p, differences, strict=True))) >= observed for p in patterns
    ]
    found = sign_flip(np.array(differences))
    assert found == pytest.approx(sum(extreme) / len(extreme))


def test_sign_flip_refuses_shares_because_it_counts() -> None:
    with pytest.raises(TypeError, match="expected integers"):
        sign_flip(np.array([0.5, 0.5]))


def test_sign_flip_is_right_in_five_of_a_hundred_when_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    ease = rng.beta(1, 1, 60)
    p_values = []
    for _ in range(400):
        passes = rng.random((2, 3, 60)) < ease
        p_values.append(sign_flip(passes[0].sum(axis=0) - passes[1].sum(axis=0)))
    assert np.mean(np.array(p_values) < 0.05) < 0.08


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    reference = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(reference)


def test_holm_worked_by_hand() -> None:
    # 3 * 0.01, then 2 * 0.04, then 1 * 0.03 raised to its predecessor.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]).size == 0


def arm(values: object, **more: object) -> Arm:
    table = np.asarray(values, dtype=float)
    return Arm(table, np.full(len(table), "one", dtype=object), **more)  # type: ignore[arg-type]


def test_with_one_run_and_no_luck_it_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 40))
    found = difference(arm(a[:, None]), arm(b[:, None]), None)
    assert found is not None and not found.counted
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue)
    expected = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert found.interval(0.1) == pytest.approx((expected.low, expected.high))


def test_where_all_is_luck_of_training_it_is_the_t_test_of_the_runs() -> None:
    """Tasks that differ between runs alone: Student's test of three means against three."""
    rng = np.random.default_rng(1)
    ease = rng.normal(size=50)
    first, second = rng.normal(0.1, 1, 3), rng.normal(0, 1, 3)
    arms = [arm(ease[:, None] + runs) for runs in (first, second)]
    found = difference(*arms, luck(arms))
    assert found is not None and found.counted
    expected = stats.ttest_ind(first, second)
    assert found.df == pytest.approx(4)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_the_luck_is_the_pooled_variance_of_run_means_and_its_part_of_noise() -> None:
    rng = np.random.default_rng(2)
    arms = [arm(rng.normal(size=(80, n))) for n in (3, 2, 1)]
    found = luck(arms)
    assert found is not None and found.df == 3
    means = [a.values.mean(axis=0) for a in arms]
    assert found.variance == pytest.approx((2 * means[0].var(ddof=1) + means[1].var(ddof=1)) / 3)
    many = [luck([arm(rng.normal(size=(80, 3)))]) for _ in range(300)]
    assert np.mean([m.noise for m in many if m]) == pytest.approx(1 / 80, rel=0.03)
    assert np.mean([m.variance for m in many if m]) == pytest.approx(1 / 80, rel=0.15)


def test_runs_that_two_arms_share_are_counted_once_and_untrained_models_never() -> None:
    values = np.random.default_rng(3).normal(size=(20, 3))
    once, twice = luck([arm(values)]), luck([arm(values), arm(values.copy())])
    assert once == twice and once is not None
    assert luck([arm(values, trained=False), arm(values[:, :1])]) is None


def test_tasks_vary_inside_their_suites_alone() -> None:
    """Two suites of different difficulty: the step between them is no chance."""
    values = np.r_[np.zeros(10), np.ones(30)] + np.random.default_rng(4).normal(0, 0.1, 40)
    suites = np.array(["a"] * 10 + ["b"] * 30, dtype=object)
    found = difference(Arm(values[:, None], suites), Arm(np.zeros((40, 1)), suites), None)
    assert found is not None
    by_hand = (10 * values[:10].var(ddof=1) + 30 * values[10:].var(ddof=1)) / 40**2
    assert found.error == pytest.approx(np.sqrt(by_hand))


def test_all_runs_of_both_sides_count() -> None:
    first = arm([[1, 0, 1], [1, 1, 1], [0, 0, 0]], samples=1)
    second = arm([[0], [1], [0]], samples=1)
    found = difference(first, second, None)
    assert found is not None
    assert found.value == pytest.approx((2 / 3 + 1 + 0) / 3 - 1 / 3)
    assert (found.runs, found.ahead, found.behind) == ((3, 1), 1, 0)
    assert found.exact == 1.0  # one task that differs says nothing


def test_arms_of_different_numbers_of_samples_are_compared_by_their_rates_alone() -> None:
    found = difference(arm([[1.0], [0.0]], samples=1), arm([[0.5], [0.0]], samples=2), None)
    assert found is not None
    assert (found.value, found.exact) == (0.25, None)
