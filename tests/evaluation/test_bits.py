"""Bits per byte of canonical solutions, against a plain forward pass."""

import math

import pytest
import torch

from qaq.evaluation.benchmarks import load
from qaq.evaluation.bits import bits_per_byte
from qaq.evaluation.prompts import make_asker
from qaq.host.errors import ModelError
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.scoring.engine import Engine


@pytest.fixture(scope="module")
def config(tiny_model):
    return ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")


@pytest.fixture
def model(config):
    return load_model(config, "cpu")


def references(config, mode, count=5):
    asker = make_asker(mode, config, load_tokenizer(config), None)
    return [asker.reference(problem) for problem in load("mini").problems[:count]]


@torch.no_grad()
def plain(model, reference):
    """The definition: minus log2 of the probability of each token of the solution, over bytes."""
    logits = model(input_ids=torch.tensor([reference.ids])).logits[0].double()
    nats = 0.0
    for position in range(reference.start, len(reference.ids)):
        nats -= torch.log_softmax(logits[position - 1], -1)[reference.ids[position]].item()
    return nats / math.log(2) / reference.bytes


@pytest.mark.parametrize("mode", ["chat", "completion", "evalplus_chat"])
@pytest.mark.parametrize("budget", [1, 700, 100_000])
def test_they_are_what_a_plain_forward_pass_gives_whatever_the_batches(config, model, mode, budget):
    listed = references(config, mode)
    found = bits_per_byte(Engine(model), listed, budget, context=None)
    assert found == pytest.approx({r.task_id: plain(model, r) for r in listed}, rel=1e-5)


def test_a_model_that_knows_nothing_needs_the_bits_of_a_fair_choice(config, model):
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    (reference,) = references(config, "completion", 1)
    tokens = len(reference.ids) - reference.start
    expected = tokens * math.log2(model.config.vocab_size) / reference.bytes
    found = bits_per_byte(Engine(model), [reference], 1000, None)
    assert found[reference.task_id] == pytest.approx(expected, rel=1e-6)


def test_a_solution_that_does_not_fit_the_context_has_no_number(config, model):
    listed = references(config, "chat")
    context = sorted(len(r.ids) for r in listed)[2]
    found = bits_per_byte(Engine(model), listed, 1000, context)
    assert {r.task_id for r in listed if len(r.ids) > context} == {
        task for task, bits in found.items() if bits is None
    }
    assert sum(bits is None for bits in found.values()) == 2


def test_broken_weights_are_an_error_and_not_a_number(config, model):
    with torch.no_grad():
        model.get_input_embeddings().weight[:] = float("nan")
    with pytest.raises(ModelError):
        bits_per_byte(Engine(model), references(config, "chat"), 1000, None)
