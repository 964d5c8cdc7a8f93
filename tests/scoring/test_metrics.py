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


SPANS = ("q", "q_given_a", "a", "a_given_q")


def columns(*rows):
    return {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)
        for name in rows[0]
    }


@pytest.mark.parametrize("name", [n for n in METRICS if not METRICS.fingerprint(n)])
def test_a_metric_is_its_formula(name):
    assert METRICS[name](columns(ROW))[0] == pytest.approx(BY_HAND[name], rel=1e-12)


# --- what every metric has to keep to; QAQ_PATH=FOLDER tests those of a folder ---


@pytest.fixture
def table():
    """Forty rows with ties; the first two could not be scored, as a score table says it."""
    rng = np.random.default_rng(3)
    made = {}
    for span in SPANS:
        made[f"nll_{span}"] = rng.integers(1, 40, 40) / 4
        made[f"tokens_{span}"] = rng.integers(1, 9, 40).astype(np.float64)
        made[f"bytes_{span}"] = made[f"tokens_{span}"] * 3
    for column in made.values():
        column[:2] = np.nan
    return made


@pytest.mark.parametrize("name", METRICS)
def test_permuting_the_rows_permutes_a_metric(name, table):
    values = METRICS[name](table)
    assert values.dtype == np.float64
    order = np.random.default_rng(0).permutation(40)
    permuted = METRICS[name]({column: cells[order] for column, cells in table.items()})
    np.testing.assert_array_equal(permuted, values[order])


@pytest.mark.parametrize("name", METRICS)
def test_a_row_has_the_same_value_whatever_its_neighbours_are(name, table):
    values = METRICS[name](table)
    for row in (0, 7, 39):
        alone = METRICS[name]({column: cells[[row]] for column, cells in table.items()})
        np.testing.assert_array_equal(alone, values[[row]])
    assert len(METRICS[name]({column: cells[:0] for column, cells in table.items()})) == 0


@pytest.mark.parametrize("name", METRICS)
def test_an_unscored_row_is_never_a_number_and_a_scored_one_is(name, table):
    values = METRICS[name](table)
    assert np.isnan(values[:2]).all()
    assert np.isfinite(values[2:]).all()
    assert len(set(values[2:])) > 1


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
    for name in set(BY_HAND) - {"length_q", "length_a"}:
        assert METRICS[name](columns(more))[0] == pytest.approx(BY_HAND[name], rel=1e-9)
