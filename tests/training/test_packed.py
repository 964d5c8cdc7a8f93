"""What is trained on is the model's own forward, packed where that is the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedModel,
)

from qaq.models.forward import gradients
from qaq.training.packed import pack, prepare
from qaq.training.rows import Example

CPU = torch.device("cpu")
ROWS = [
    Example("a", tuple(range(3, 33)), 10, False),
    Example("b", tuple(range(40, 47)), 3, False),
    Example("c", (5, 9), 1, False),
]


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def own_nll(model: PreTrainedModel, example: Example) -> Tensor:
    """NLL of the labels from the model's own full logits, one row at a time."""
    logits = model(input_ids=torch.tensor([example.ids])).logits[0]
    nll = functional.cross_entropy(logits[:-1], torch.tensor(example.ids[1:]), reduction="none")
    return nll[example.prompt - 1 :]


def test_rows_laid_end_to_end_have_the_losses_of_rows_alone(tiny_model: Path) -> None:
    model = load(tiny_model)
    expected = torch.cat([own_nll(model, row) for row in ROWS])
    assert prepare(model) is None
    assert torch.allclose(model(**pack(ROWS, CPU)), expected, atol=1e-5)


def test_the_gradient_is_that_of_the_models_own_forward(tiny_model: Path) -> None:
    model = load(tiny_model)
    model.get_output_embeddings().requires_grad_(False)
    inner = model.base_model.layers[0].self_attn.q_proj.weight
    sum(own_nll(model, row).sum() for row in ROWS).backward()
    expected = inner.grad.clone()
    model.zero_grad()
    assert prepare(model) is None
    model(**pack(ROWS, CPU)).sum().backward()
    assert torch.allclose(inner.grad, expected, atol=1e-5)


def test_a_silent_batch_has_tokens_and_no_labels() -> None:
    batch = pack(ROWS[:1], CPU, silent=True)
    assert batch["input_ids"].shape == (1, 30)
    assert len(batch["labels"]) == len(batch["targets"]) == 0


def test_sliding_window_layers_see_their_window_only(tmp_path: Path) -> None:
    config = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).eval()
    rows = [row for row in ROWS if max(row.ids) < 64]
    expected = torch.cat([own_nll(model, row) for row in rows])
    assert prepare(model) is None
    found = model(**pack(rows, CPU))
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_model_that_caps_its_logits_is_trained_on_capped_ones(tiny_model: Path) -> None:
    model = load(tiny_model)
    own = type(model).forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = own(model, *args, **kwargs)
        out.logits = torch.tanh(out.logits * 20)
        return out

    model.forward = capped
    expected, gradient = losses_and_gradient(model)
    assert prepare(model) is None
    assert_equal(model, expected, gradient)


def losses_and_gradient(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """What the model's own forward gives, row by row."""
    inner = next(p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    losses = torch.cat([own_nll(model, row) for row in ROWS])
    (gradient,) = torch.autograd.grad(losses.sum(), inner)
    return losses.detach(), gradient


def assert_equal(model: PreTrainedModel, losses: Tensor, gradient: Tensor) -> None:
    inner = next(p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    found = model(**pack(ROWS, CPU))
    (own,) = torch.autograd.grad(found.sum(), inner)
    torch.testing.assert_close(found, losses, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own, gradient, atol=1e-4, rtol=1e-3)


def test_a_model_that_carries_states_between_rows_is_trained_row_by_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config).eval()
    expected, gradient = losses_and_gradient(model)
    reason = prepare(model)
    assert reason is not None and "neighbours" in reason
    assert "row by row" in capsys.readouterr().err
    assert_equal(model, expected, gradient)


def test_what_breaks_the_packed_forward_leads_to_the_model_s_own(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise AttributeError("no attribute of this name any more")

    model = load(tiny_model)
    expected, gradient = losses_and_gradient(model)
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "attend", broken)
        reason = prepare(model)
    assert reason is not None and "no attribute of this name" in reason
    assert_equal(model, expected, gradient)


def test_a_check_that_memory_is_too_small_for_leads_to_the_model_s_own(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = load(tiny_model)
    expected, gradient = losses_and_gradient(model)
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "attend", small)
        assert prepare(model) == "OutOfMemoryError: CUDA out of memory"
    assert_equal(model, expected, gradient)


@pytest.mark.parametrize("way", ["packed", "row by row"])
def test_a_row_s_loss_does_not_depend_on_longer_rows_before_it(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A `dynamic` rotary embedding remembers the longest row that it has seen."""
    dynamic = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 1e4}
    shape = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48}
    config = LlamaConfig(
        **shape,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        rope_parameters=dynamic,
        initializer_range=0.2,
    )
    long = Example("long", tuple(range(3, 303)), 5, False)
    middle = Example("middle", tuple(range(200, 300)), 5, False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    expected = own_nll(model, middle)
    if way != "packed":
        monkeypatch.setattr(gradients, "attend", None)
    assert (prepare(model) is None) == (way == "packed")
    for rows in ([middle], [long], [middle], [long, middle]):
        nll = model(**pack(rows, CPU))[-len(expected) :]
        if rows[-1] is middle:
            torch.testing.assert_close(nll, expected, atol=1e-4, rtol=1e-4)
