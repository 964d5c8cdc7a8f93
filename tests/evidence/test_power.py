"""What can be found at a given size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from qaq.evidence.power import Design, exact_power, measured, planned, statement
from qaq.evidence.runs import Arm


@pytest.mark.parametrize(("difference", "discordance"), [(0.0, 0.2), (0.1, 0.2), (0.2, 0.3)])
def test_the_exact_power_agrees_with_simulation(difference: float, discordance: float) -> None:
    n = 120
    found = exact_power(n, difference, discordance)
    rng = np.random.default_rng(5)
    up, down = (discordance + difference) / 2, (discordance - difference) / 2
    draws = rng.multinomial(n, [up, down, 1 - discordance], size=4000)
    reject = np.mean([mcnemar([[0, a], [b, 0]], exact=True).pvalue <= 0.05 for a, b, _ in draws])
    assert found == pytest.approx(reject, abs=0.025)


def design(**more: float) -> Design:
    fields = {"tasks": 164, "seeds": 1, "comparisons": 1, "background": 0.15, "df": 0}
    return Design(**({"seed_discordance": 0.0, "run_sd": 0.0} | fields | more))  # type: ignore[arg-type]


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_power_grows_with_the_difference(first: float, second: float) -> None:
    small, large = sorted((first, second))
    one = design(tasks=80, background=0.5)
    assert one.power(small) <= one.power(large) + 1e-6


def test_the_smallest_difference_is_where_the_power_is_reached() -> None:
    one = design()
    found = one.smallest()
    assert found is not None
    assert one.power(found) >= 0.8 > one.power(found - 2e-4)


@pytest.mark.parametrize("run_sd", [0.0, 0.005, 0.03])
@pytest.mark.parametrize("within", [0.02, 0.1, 0.25])
def test_what_finds_a_small_difference_finds_every_larger_one(run_sd: float, within: float) -> None:
    design = Design(542, 3, 6, max(0.27, within), within, run_sd, 12)
    found = [design.power(difference) for difference in np.linspace(0.15, 1, 18)]
    assert min(found) > 0.8
    smallest = design.smallest()
    assert smallest is not None and smallest < 0.15


def test_a_real_difference_adds_to_the_tasks_that_differ_so_few_tasks_find_a_large_one() -> None:
    found = design(tasks=48, background=0.1, comparisons=7).smallest()
    assert found is not None and 0.2 < found < 0.4  # more than the tasks on which equal arms differ
    assert design(tasks=5, background=1.0).smallest() is None  # five of five has p = 2/32


def test_more_tasks_more_runs_and_less_luck_show_smaller_differences() -> None:
    base = {"tasks": 400, "background": 0.2, "df": 10, "run_sd": 0.01}
    few = design(**(base | {"tasks": 100})).smallest()
    many = design(**base).smallest()
    runs = design(**base, seeds=3, seed_discordance=0.2).smallest()  # type: ignore[arg-type]
    lucky = design(**(base | {"run_sd": 0.03})).smallest()
    assert few and many and runs and lucky
    assert few > many > runs and lucky > many


def test_the_power_is_stated_before_the_run_as_what_would_be_missed() -> None:
    runs = {"a": 3, "b": 3, "c": 1}
    said = statement(planned(542, runs, [("a", "b"), ("b", "a")]))
    assert said.startswith("A difference below ") and "would probably be missed" in said
    assert "is shown to lose less than" in said
    alone = statement(planned(542, {"a": 1, "b": 1}, [("a", "b"), ("a", "untuned")]))
    assert "nothing can be found between rules" in alone
    few = planned(5, {"a": 1, "b": 1}, [("a", "b")])
    assert "no difference of pass@1 would be found" in statement(few)


def test_the_arms_that_are_compared_count_and_the_others_only_teach_the_luck_of_training() -> None:
    pair = [("a", "b")]
    alone = planned(542, {"a": 3, "b": 3}, pair)
    beside = planned(542, {"a": 3, "b": 3, "c": 1, "d": 5}, pair)
    assert beside.seeds == alone.seeds == 3
    assert beside.difference is not None and alone.difference is not None
    assert beside.difference <= alone.difference
    assert planned(542, {"a": 3, "c": 1}, [("a", "c")]).seeds == 1


def test_what_was_measured_leaves_a_real_difference_out_of_the_background() -> None:
    rng = np.random.default_rng(3)
    ease = rng.beta(0.5, 1.0, 500) * 0.6
    suites = np.full(500, "one", dtype=object)
    arms = {
        name: Arm((rng.random((500, 3)) < (ease + lift)[:, None]).astype(float), suites, 1)
        for name, lift in (("full", 0.0), ("better", 0.3))
    }
    found = measured(arms, [("better", "full")], 1)
    assert found is not None and not found.assumed
    chances = ease, ease + 0.3
    within = np.mean([2 * p * (1 - p) for p in chances])
    assert found.discordance == pytest.approx(within, abs=0.04)
    assert measured(arms, [("other", "full")], 1) is None
