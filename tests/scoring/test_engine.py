import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.artifacts import SPANS
from qaq.errors import ModelError
from qaq.progress import Progress
from qaq.scoring.engine import Engine
from qaq.scoring.stage import score_rows

from .conftest import PAIRS, Tiny

ROWS = [{"row_id": f"{i:016x}", "question": q, "answer": a} for i, (q, a) in enumerate(PAIRS)]


def reference(model, ids, start, end):
    """Sum of NLL of ids[start:end], one row, full logits, float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)])).logits[0].double()
    logp = logits.log_softmax(-1)
    return -sum(float(logp[i - 1, ids[i]]) for i in range(start, end))


def scores(tiny: Tiny, rows, kind="chat", budget=4096):
    engine = Engine(tiny.model, tiny.tokenizer.pad_token_id)
    return score_rows(rows, tiny.framer(kind), engine, budget, Progress("test", len(rows), "rows"))


@pytest.mark.parametrize("kind", ["chat", "plain", "authors", "cherry", "superfiltering"])
def test_every_span_equals_a_float64_forward_pass_of_its_own(tiny: Tiny, kind):
    framer = tiny.framer(kind)
    for row, (question, answer) in zip(scores(tiny, ROWS, kind), PAIRS, strict=True):
        for rendering in framer(question, answer).renderings:
            for span in rendering.spans:
                expected = reference(tiny.model, rendering.ids, span.start, span.end)
                assert row[f"nll_{span.name}"] == pytest.approx(expected, abs=1e-3, rel=1e-5)
                assert row[f"tokens_{span.name}"] == span.end - span.start


def test_bytes_count_the_utf8_bytes_of_the_text(tiny: Tiny):
    for row, (question, answer) in zip(scores(tiny, ROWS), PAIRS, strict=True):
        assert row["bytes_q"] == row["bytes_q_given_a"] == len(question.encode())
        assert row["bytes_a"] == row["bytes_a_given_q"] == len(answer.encode())


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 900), st.randoms(use_true_random=False))
def test_batch_size_and_order_change_no_number(tiny: Tiny, budget: int, chance: random.Random):
    shuffled = ROWS.copy()
    chance.shuffle(shuffled)
    by_id = {row["row_id"]: row for row in scores(tiny, shuffled, budget=budget)}
    for row in scores(tiny, ROWS, budget=1):
        for span in SPANS:
            gap = abs(row[f"nll_{span}"] - by_id[row["row_id"]][f"nll_{span}"])
            assert gap / row[f"tokens_{span}"] < 1e-5


def test_left_padding_gives_the_same_numbers(tiny: Tiny):
    """The reference pads on the other side and masks; ours pads right and needs no mask."""
    framer = tiny.framer("chat")
    renderings = [framer(q, a).renderings[3] for q, a in PAIRS]
    width = max(len(r.ids) for r in renderings)
    ids = torch.tensor([[0] * (width - len(r.ids)) + list(r.ids) for r in renderings])
    mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in renderings])
    position = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = tiny.model(input_ids=ids, attention_mask=mask, position_ids=position).logits
    logp = logits.double().log_softmax(-1)
    for at, (row, r) in enumerate(zip(scores(tiny, ROWS), renderings, strict=True)):
        shift, span = width - len(r.ids), r.spans[0]
        total = -sum(float(logp[at, shift + i - 1, r.ids[i]]) for i in range(span.start, span.end))
        assert row["nll_a_given_q"] == pytest.approx(total, abs=1e-3)


def test_a_model_that_gives_nan_leaves_null_and_a_reason(tiny: Tiny):
    broken = Engine(tiny.model, 0)
    broken.head = lambda states: torch.full((*states.shape[:-1], len(tiny.tokenizer)), math.nan)
    rows = score_rows(ROWS[:1], tiny.framer("chat"), broken, 512, Progress("test", 1, "rows"))
    assert all(rows[0][f"nll_{span}"] is None for span in SPANS)
    assert "no finite number" in rows[0]["reason"]


def test_out_of_memory_splits_the_batch_and_changes_nothing(tiny: Tiny, monkeypatch):
    expected = scores(tiny, ROWS)
    whole = Engine._score

    def short_of_memory(self, batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("no memory for this many rows")
        return whole(self, batch)

    monkeypatch.setattr(Engine, "_score", short_of_memory)
    for row, wanted in zip(scores(tiny, ROWS), expected, strict=True):
        for span in SPANS:
            assert row[f"nll_{span}"] == pytest.approx(wanted[f"nll_{span}"], rel=1e-5)


def test_a_model_that_changes_its_logits_is_refused(tiny: Tiny, monkeypatch):
    model = tiny.model
    plain = model.forward

    def scaled(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits * 3 + 1
        return output

    monkeypatch.setattr(model, "forward", scaled)
    with pytest.raises(ModelError, match="output head"):
        Engine(model, 0)
