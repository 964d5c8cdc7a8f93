"""What stands in for a model that no process holds: its outline, and a few of its layers."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from qaq.models.config import ModelConfig
from qaq.models.load import load_model
from qaq.models.sharded import make_room, outline, sketch
from qaq.training.packed import pack, prepare
from qaq.training.rows import Example

ROWS = [Example("a", tuple(range(5, 40)), 9, False), Example("b", tuple(range(60, 80)), 4, False)]


@pytest.fixture
def config(tiny_model: Path) -> ModelConfig:
    return ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")


def test_an_outline_has_the_parameters_of_the_model_and_no_numbers(config: ModelConfig) -> None:
    whole, empty = load_model(config, "cpu"), outline(config, "cpu")
    assert [(n, p.shape, p.dtype) for n, p in empty.named_parameters()] == [
        (n, p.shape, p.dtype) for n, p in whole.named_parameters()
    ]
    assert all(p.is_meta for p in empty.parameters())
    assert empty.get_output_embeddings().weight is empty.get_input_embeddings().weight
    for (_, found), (_, buffer) in zip(empty.named_buffers(), whole.named_buffers(), strict=True):
        assert torch.equal(found, buffer)
    make_room(empty)
    assert not any(p.is_meta for p in empty.parameters())


def test_a_sketch_has_layers_of_every_kind(tmp_path: Path) -> None:
    shape = Gemma3TextConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=12, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    model = Gemma3ForCausalLM(shape)
    assert shape.layer_types[:6].count("sliding_attention") == 5
    small = sketch(model, torch.device("cpu"))
    assert small.config.layer_types == shape.layer_types[:6]
    assert len(small.model.layers) == 6 and len(model.model.layers) == 12
    assert prepare(small) is None


def test_what_a_few_layers_have_shown_serves_the_whole_model(config: ModelConfig) -> None:
    alone, served = load_model(config, "cpu"), load_model(config, "cpu")
    assert prepare(alone) is None
    assert prepare(served, like=sketch(served, torch.device("cpu"))) is None
    batch = pack(ROWS, torch.device("cpu"))
    assert torch.equal(alone(**batch), served(**batch))
    own = AutoModelForCausalLM.from_pretrained(config.id)
    ids = torch.tensor([ROWS[0].ids])
    likely = own(ids).logits[0].log_softmax(-1)[8:-1].gather(-1, ids[0, 9:, None])[:, 0]
    assert torch.allclose(served(**batch)[: len(likely)], -likely, atol=1e-4)
