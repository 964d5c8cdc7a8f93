import math
import weakref
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.forward import forward
from qaq.models.forward.batching import packed_batches
from qaq.models.forward.dense import can_pack
from qaq.models.forward.forward import WAYS
from qaq.models.forward.packing import common_prefix, pack
from qaq.models.load import load_model
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Rendering, Span
from qaq.scoring.plan import Task, merge
from qaq.scoring.stage import score_rows
from qaq.store.tables import SPANS

from .conftest import PAIRS, Tiny

ROWS = [{"row_id": f"{i:016x}", "question": q, "answer": a} for i, (q, a) in enumerate(PAIRS)]


def reference(model, ids, start, end):
    """Sum of NLL of ids[start:end], one row, full logits, float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([list(ids)])).logits[0].double()
    logp = logits.log_softmax(-1)
    return -sum(float(logp[i - 1, ids[i]]) for i in range(start, end))


@cache
def engine_of(model, way):
    found = Engine(model, ways=[way])
    assert found.forward.way == way
    return found


def scores(tiny: Tiny, rows, kind="chat", budget=4096, way="packed"):
    engine = engine_of(tiny.model, way)
    return score_rows(rows, tiny.framer(kind), engine, budget, Progress("test", len(rows), "rows"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["chat", "plain", "authors", "cherry", "superfiltering"])
def test_every_span_equals_a_float64_forward_pass_of_its_own(tiny: Tiny, kind, way):
    framer = tiny.framer(kind)
    found = scores(tiny, ROWS, kind, way=way)
    for row, (question, answer) in zip(found, PAIRS, strict=True):
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
@given(
    st.integers(1, 900),
    st.randoms(use_true_random=False),
    st.sampled_from(WAYS),
    st.sampled_from(WAYS),
)
def test_batch_size_order_and_padding_change_no_number(tiny: Tiny, budget, chance, way, other):
    shuffled = ROWS.copy()
    chance.shuffle(shuffled)
    found = scores(tiny, shuffled, budget=budget, way=way)
    by_id = {row["row_id"]: row for row in found}
    for row in scores(tiny, ROWS, budget=1, way=other):
        for span in SPANS:
            gap = abs(row[f"nll_{span}"] - by_id[row["row_id"]][f"nll_{span}"])
            assert gap / row[f"tokens_{span}"] < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_left_padding_gives_the_same_numbers(tiny: Tiny, way):
    """The reference pads on the left and masks; ours does not pad, or on the right, unmasked."""
    framer = tiny.framer("chat")
    found = scores(tiny, ROWS, way=way)
    for renderings in zip(*(framer(q, a).renderings for q, a in PAIRS), strict=True):
        width = max(len(r.ids) for r in renderings)
        ids = torch.tensor([[0] * (width - len(r.ids)) + list(r.ids) for r in renderings])
        mask = torch.tensor([[0] * (width - len(r.ids)) + [1] * len(r.ids) for r in renderings])
        position = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            logits = tiny.model(input_ids=ids, attention_mask=mask, position_ids=position).logits
        logp = logits.double().log_softmax(-1)
        for row, r, left, these in zip(found, renderings, width - mask.sum(1), logp, strict=True):
            (span,) = r.spans
            scored = range(span.start, span.end)
            total = -sum(float(these[left + i - 1, r.ids[i]]) for i in scored)
            assert abs(row[f"nll_{span.name}"] - total) / len(scored) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_the_logits_of_a_whole_batch_are_never_in_memory(tiny: Tiny, way):
    """The head sees each scored position once, a chunk at a time, and chunks change no number."""
    engine = Engine(tiny.model, ways=[way])
    framer = tiny.framer("chat")
    tasks = [Task(i, r) for i, (q, a) in enumerate(PAIRS) for r in merge(framer(q, a).renderings)]
    (batch,) = engine.batches(tasks, 10**6)
    scored = sum(s.end - s.start for task in batch for s in task.rendering.spans)
    head, seen = engine.forward.logits, []

    def counted(states):
        seen.append(states[..., 0].numel())
        return head(states)

    engine.forward.logits = counted
    found = {}
    for rows in (scored, 7, 1):
        engine.head_rows = rows
        seen.clear()
        found[rows] = engine.score(batch)
        assert max(seen) <= rows
        assert sum(seen) == scored
        assert len(seen) > 1 or rows == scored
    for sums, whole in zip(found[7] + found[1], found[scored] * 2, strict=True):
        assert sums == pytest.approx(whole, rel=1e-5)


def test_a_model_that_gives_nan_leaves_null_and_a_reason(tiny: Tiny):
    broken = Engine(tiny.model)
    broken.forward.logits = lambda states: torch.full((len(states), len(tiny.tokenizer)), math.nan)
    rows = score_rows(ROWS[:1], tiny.framer("chat"), broken, 512, Progress("test", 1, "rows"))
    assert all(rows[0][f"{p}_{span}"] is None for p in ("nll", "tokens", "bytes") for span in SPANS)
    assert "no finite number" in rows[0]["reason"]


def test_out_of_memory_splits_the_batch_and_changes_nothing(tiny: Tiny, monkeypatch):
    expected = scores(tiny, ROWS)
    whole = Engine._score
    failed, still_there = [], []

    def short_of_memory(self, batch):
        still_there.extend(made for made in failed if made() is not None)
        if len(batch) > 2:
            states = torch.empty(9)
            failed.append(weakref.ref(states))
            raise torch.OutOfMemoryError("no memory for this many rows")
        return whole(self, batch)

    monkeypatch.setattr(Engine, "_score", short_of_memory)
    for row, wanted in zip(scores(tiny, ROWS), expected, strict=True):
        for span in SPANS:
            assert row[f"nll_{span}"] == pytest.approx(wanted[f"nll_{span}"], rel=1e-5)
    assert failed, "nothing was short of memory"
    assert still_there == [], "a failed attempt's tensors took the room of the next"


def test_a_batch_as_large_as_one_that_did_not_fit_is_not_tried_again(tiny: Tiny, monkeypatch):
    whole = Engine._score
    tried = []

    def short_of_memory(self, batch):
        tried.append(len(batch))
        if len(batch) > 4:
            raise torch.OutOfMemoryError("no memory for this many rows")
        return whole(self, batch)

    monkeypatch.setattr(Engine, "_score", short_of_memory)
    engine = Engine(tiny.model)
    framer = tiny.framer("chat")
    tasks = [Task(i, r) for i, (q, a) in enumerate(PAIRS) for r in merge(framer(q, a).renderings)]
    (batch,) = engine.batches(tasks, 10**6)
    assert len(engine.score(batch)) == len(batch)
    first = tried.copy()
    assert first[0] > 4
    tried.clear()
    assert len(engine.score(batch)) == len(batch)
    assert max(tried) <= 4 < len(first)


def test_the_model_s_own_weights_are_freed_as_they_are_laid_out_anew(tiny_model, monkeypatch):
    """At no time more than one layer is there twice, nor the plain forward's copy of all."""
    config = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    model = load_model(config, "cpu")
    if not can_pack(model.device, model.dtype):
        pytest.skip("PyTorch has no oneDNN layout for this processor: no weights are freed")
    weights = [
        weakref.ref(module.weight)
        for layer in model.get_decoder().layers
        for module in layer.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    alive = []
    gap = forward.too_far

    def watched(*found):
        alive.append(sum(made() is not None for made in weights))
        return gap(*found)

    monkeypatch.setattr(forward, "too_far", watched)
    assert Engine(model, take_over=True).forward.way == "packed"
    assert alive == [0]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_model_does_to_its_logits_is_in_the_scores(tiny: Tiny, monkeypatch, way):
    """Scaled (Granite), capped (Gemma 2): whatever stands behind the head is the model's own."""
    plain = tiny.model.forward

    def scaled(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = torch.tanh(output.logits * 3) * 2
        return output

    monkeypatch.setattr(tiny.model, "forward", scaled)
    engine = Engine(tiny.model, ways=[way])
    assert engine.forward.way == way and not engine.forward.whole
    task = Task(0, Rendering(tuple(range(3, 40)), (Span("q", 4, 37),)))
    expected = reference(tiny.model, task.rendering.ids, 4, 37)
    assert engine.score([task])[0]["q"] == pytest.approx(expected, abs=1e-3)


def test_rows_that_begin_alike_share_their_beginning(tiny: Tiny):
    engine = Engine(tiny.model)
    framer = tiny.framer("chat")
    tasks = [Task(i, r) for i, (q, a) in enumerate(PAIRS) for r in merge(framer(q, a).renderings)]
    (batch,) = engine.batches(tasks, 10**6)
    opening = common_prefix(*(framer(q, a).renderings[1].ids for q, a in PAIRS[:2]))
    saved = sum(t.length for t in tasks) - len(pack([t.ids for t in batch]).ids)
    assert opening > 20
    assert saved >= (len(PAIRS) - 1) * opening


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400))
def test_packed_batches_hold_every_task_once_within_the_budget(tiny: Tiny, budget):
    framer = tiny.framer("chat")
    tasks = [Task(i, r) for i, (q, a) in enumerate(PAIRS) for r in merge(framer(q, a).renderings)]
    ids = [task.ids for task in tasks]
    found = [[tasks[at] for at in batch] for batch in packed_batches(ids, budget)]
    assert sorted(map(id, (t for b in found for t in b))) == sorted(map(id, tasks))
    sizes = [len(pack([t.ids for t in b]).ids) for b in found]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len(b) == 1 or size <= budget for b, size in zip(found, sizes, strict=True))
