"""Each metric against its formula written out by hand, and what a missing value does to it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.scoring import metrics
from qaq.scoring.metrics import METRICS

# One row: the question costs 12 nats over 4 tokens, 6 over 3 after the answer (another tokenizer
# framing may cover other tokens); the answer 20 over 10, and 15 over 10 after the question.
ROW = {
    "nll_q": 12.0,
    "tokens_q": 4,
    "nll_q_given_a": 6.0,
    "tokens_q_given_a": 3,
    "nll_a": 20.0,
    "tokens_a": 10,
    "nll_a_given_q": 15.0,
    "tokens_a_given_q": 10,
}

BY_HAND = {
    "rmi": 12 / 4 - 6 / 3,
    "rmi_authors": 12 / 4 - 6 / 3,
    "r_ifd": math.exp(6 / 3) / math.exp(12 / 4),
    "ifd_loss_ratio": (15 / 10) / (20 / 10),
    "ifd_ppl_ratio": math.exp(15 / 10) / math.exp(20 / 10),
    "log_perplexity_q": 3.0,
    "perplexity_q": math.exp(3.0),
    "perplexity_a": math.exp(2.0),
    "perplexity_pair": math.exp((12 + 15) / (4 + 10)),
    "length_q": 4.0,
    "length_a": 10.0,
}


def columns(*rows):
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        for name in ROW
    }


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_its_formula(name):
    assert METRICS[name](columns(ROW))[0] == pytest.approx(BY_HAND[name], rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_an_unscored_row_has_no_value_and_leaves_its_neighbours_alone(name):
    nothing = dict.fromkeys(ROW)
    values = METRICS[name](columns(ROW, nothing, ROW))
    assert np.isnan(values[1])
    assert values[0] == values[2] == METRICS[name](columns(ROW))[0]


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_card(name):
    card = METRICS[name].__doc__
    for part in ("Formula:", "Unit:", "Direction:", "Low tail:", "High tail:", "Source:"):
        assert part in card


def test_a_span_without_tokens_has_no_mean():
    row = ROW | {"nll_q_given_a": 0.0, "tokens_q_given_a": 0}
    assert np.isnan(metrics.rmi(columns(row))[0])


def test_the_authors_clamp_turns_a_span_without_tokens_into_their_spurious_maximum():
    row = ROW | {"nll_q_given_a": 0.0, "tokens_q_given_a": 0}
    assert metrics.rmi_authors(columns(row))[0] == 3.0


def test_an_answer_of_certain_tokens_has_no_ratio_of_losses():
    row = ROW | {"nll_a": 0.0}
    assert np.isnan(metrics.ifd_loss_ratio(columns(row))[0])


def test_an_infinite_sum_counts_as_missing():
    assert np.isnan(metrics.rmi(columns(ROW | {"nll_q": math.inf}))[0])


nll = st.floats(0.01, 1e4)
tokens = st.integers(1, 4096)


@given(nll, tokens, nll, tokens)
def test_r_ifd_is_rmi_upside_down(nll_q, tokens_q, nll_back, tokens_back):
    row = ROW | {
        "nll_q": min(nll_q, 20.0 * tokens_q),
        "tokens_q": tokens_q,
        "nll_q_given_a": min(nll_back, 20.0 * tokens_back),
        "tokens_q_given_a": tokens_back,
    }
    table = columns(row)
    assert -math.log(metrics.r_ifd(table)[0]) == pytest.approx(metrics.rmi(table)[0], abs=1e-9)


@given(st.integers(1, 50))
def test_means_do_not_change_when_sums_and_counts_grow_together(times):
    more = {name: value * times for name, value in ROW.items()}
    for name in set(METRICS) - {"length_q", "length_a"}:
        assert METRICS[name](columns(more))[0] == pytest.approx(BY_HAND[name], rel=1e-9)
