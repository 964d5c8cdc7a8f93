"""When a run must stop, and which rows it names."""

import math

import pytest
import torch

from qaq.training.guards import STEPS, loss_problem, name_rows, rise_problem, worst_first


@pytest.mark.parametrize("mean", [math.nan, math.inf, 9.1])
def test_a_loss_that_is_no_number_or_too_high_is_a_problem(mean: float) -> None:
    assert loss_problem(9.0, bound=9.0) is None
    problem = loss_problem(mean, bound=9.0)
    assert problem is not None
    assert f"{mean:.4g} nats" in problem


def test_a_loss_that_ends_above_its_beginning_is_a_problem() -> None:
    calm = [1.0] * STEPS
    assert rise_problem(calm, 2.0) is None
    assert rise_problem([*calm, *[3.0] * STEPS], 2.0) is None
    problem = rise_problem([*calm, *[3.1] * STEPS], 2.0)
    assert problem == (
        "the loss rises: 3.1 nats per token over the last 10 steps, 1 over the first 10 "
        "(bound 2 above)"
    )


def test_one_hard_step_is_no_rise() -> None:
    assert rise_problem([1.0] * 15 + [15.0] + [1.0] * 4, 2.0) is None


def test_the_rows_that_weigh_most_are_named_first() -> None:
    nll = torch.tensor([1.0, 1.0, 5.0, 5.0, 2.0, math.nan, 9.0])
    assert worst_first(["a", "b", "c", "d"], [2, 2, 1, 2], nll) == ["d", "b", "c", "a"]


def test_a_long_list_of_rows_is_cut_and_counted() -> None:
    names = [f"r{i}" for i in range(20)]
    assert name_rows(names[:2]) == "r0, r1"
    assert name_rows(names).endswith("r15 and 4 more")
