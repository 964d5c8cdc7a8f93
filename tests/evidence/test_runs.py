"""The statistics against scipy, statsmodels, brute force and cases worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from qaq.evidence import statistics


@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 50))
def test_sign_flip_with_one_seed_is_mcnemar(first: int, second: int, ties: int) -> None:
    differences = [1] * first + [-1] * second + [0] * ties
    reference = mcnemar([[0, first], [second, 0]], exact=True).pvalue
    assert statistics.sign_flip(np.array(differences, dtype=int)) == pytest.approx(reference)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=10))
def test_sign_flip_agrees_with_counting_every_sign_pattern(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = itertools.product((-1, 1), repeat=len(differences))
    extreme = [
        abs(sum(s * d for s, d in zip(p, differences, strict=True))) >= observed for p in patterns
    ]
    found = statistics.sign_flip(np.array(differences))
    assert found == pytest.approx(sum(extreme) / len(extreme))


def test_sign_flip_refuses_shares_because_it_counts() -> None:
    with pytest.raises(TypeError, match="expected integers"):
        statistics.sign_flip(np.array([0.5, 0.5]))


@given(st.lists(st.integers(-3, 3), min_size=5, max_size=40))
@settings(max_examples=30)
def test_sampled_sign_flip_is_near_the_exact_one(differences: list[int]) -> None:
    exact = statistics.sign_flip(np.array(differences))
    sampled = statistics.sign_flip_sampled(np.array(differences, dtype=float), draws=4000)
    assert sampled == pytest.approx(exact, abs=0.04)


def test_sampled_sign_flip_is_never_zero() -> None:
    assert statistics.sign_flip_sampled(np.ones(200), draws=99) == pytest.approx(1 / 100)


def test_sign_flip_is_right_in_five_of_a_hundred_when_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    ease = rng.beta(1, 1, 60)
    p_values = []
    for _ in range(400):
        passes = rng.random((2, 3, 60)) < ease
        p_values.append(statistics.sign_flip(passes[0].sum(axis=0) - passes[1].sum(axis=0)))
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_bootstrap_agrees_with_scipys_for_one_seed() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.random((150, 1)) < p for p in (0.5, 0.4))
    found = statistics.paired_bootstrap(a.astype(float), b.astype(float), resamples=20_000)
    reference = stats.bootstrap(
        ((a - b.astype(float)).ravel(),), np.mean, method="percentile", n_resamples=20_000, rng=3
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.008)


def test_bootstrap_of_equal_arms_is_zero() -> None:
    arm = np.random.default_rng(0).random((30, 1))
    found = statistics.paired_bootstrap(arm, arm)
    assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-12)


@given(st.integers(2, 40), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_bootstrap_of_one_seed_turns_its_sign_with_the_arms(n: int, seed: int) -> None:
    a, b = np.random.default_rng(seed).random((2, n, 1))
    forth, back = (statistics.paired_bootstrap(x, y, 300) for x, y in ((a, b), (b, a)))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_bootstrap_covers_the_truth_also_when_seeds_are_lucky_or_not() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        ease = rng.random(120)
        # A seed shifts all tasks at once; without it in the interval, coverage is about 60%.
        arms = [
            (rng.random((120, 3)) < ease[:, None] + rng.normal(0, 0.06, 3)).astype(float)
            for _ in range(2)
        ]
        covered += statistics.paired_bootstrap(*arms, resamples=400).holds(0.0)
    assert 0.88 <= covered / 200 <= 1.0


def test_bootstrap_refuses_arms_with_different_tasks() -> None:
    with pytest.raises(ValueError, match="expected \\(tasks, seeds\\)"):
        statistics.paired_bootstrap(np.zeros((3, 1)), np.zeros((4, 1)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    reference = multipletests(p_values, method="holm")[1]
    assert statistics.holm(p_values) == pytest.approx(reference)


def test_holm_worked_by_hand() -> None:
    # 3 * 0.01, then 2 * 0.04, then 1 * 0.03 raised to its predecessor.
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_of_nothing_is_nothing() -> None:
    assert statistics.holm([]).size == 0


@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.2), (0.1, 0.2), (0.2, 0.3)])
def test_power_agrees_with_simulation(difference: float, discordance: float) -> None:
    n = 120
    found = statistics.power(n, difference, discordance)
    rng = np.random.default_rng(5)
    up, down = (discordance + difference) / 2, (discordance - difference) / 2
    draws = rng.multinomial(n, [up, down, 1 - discordance], size=4000)
    reject = np.mean([mcnemar([[0, a], [b, 0]], exact=True).pvalue <= 0.05 for a, b, _ in draws])
    assert found == pytest.approx(reject, abs=0.025)


@given(st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_power_grows_with_the_difference(first: float, second: float) -> None:
    small, large = sorted((first, second))
    assert statistics.power(80, small, 0.5) <= statistics.power(80, large, 0.5) + 1e-9


def test_power_refuses_a_difference_above_the_discordance() -> None:
    with pytest.raises(ValueError, match="0 <= d <= c <= 1"):
        statistics.power(10, 0.3, 0.2)


def test_the_smallest_difference_is_where_the_power_is_reached() -> None:
    found = statistics.smallest_difference(164, 0.15)
    assert found is not None
    assert statistics.power(164, found, 0.15) >= 0.8
    assert statistics.power(164, found - 2e-4, 0.15) < 0.8


def test_no_difference_can_be_found_with_five_tasks() -> None:
    # Even five wins of five have p = 2/32.
    assert statistics.smallest_difference(5, 1.0) is None


def test_more_tasks_and_more_seeds_show_smaller_differences() -> None:
    few, many = (statistics.smallest_difference(n, 0.2) for n in (100, 400))
    seeds = statistics.smallest_difference(400, 0.2, seeds=3, seed_discordance=0.15)
    assert few is not None and many is not None and seeds is not None
    assert few > many > seeds


def test_the_smallest_difference_with_seeds_agrees_with_simulation() -> None:
    """Tasks have chances of their own, and three seeds of each arm are drawn from them."""
    n, seeds = 300, 3
    rng = np.random.default_rng(6)
    ease = rng.beta(0.6, 0.9, n) * 0.8
    within = float(np.mean(2 * ease * (1 - ease)))  # two seeds of one arm disagree
    found = statistics.smallest_difference(n, within, seeds=seeds, seed_discordance=within)
    assert found is not None
    rejected = []
    for _ in range(400):
        a = (rng.random((n, seeds)) < (ease + found)[:, None]).sum(axis=1)
        b = (rng.random((n, seeds)) < ease[:, None]).sum(axis=1)
        rejected.append(statistics.sign_flip(a - b) <= 0.05)
    assert np.mean(rejected) == pytest.approx(0.8, abs=0.08)
