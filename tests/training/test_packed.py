"""The packed forward is the model's own forward, or it is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from qaq.host.errors import ModelError
from qaq.training.packed import pack, use_packed, verify
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
    use_packed(model)
    assert torch.allclose(model(**pack(ROWS, CPU)), expected, atol=1e-5)


def test_the_gradient_is_that_of_the_models_own_forward(tiny_model: Path) -> None:
    model = load(tiny_model)
    model.get_output_embeddings().requires_grad_(False)
    inner = model.base_model.layers[0].self_attn.q_proj.weight
    sum(own_nll(model, row).sum() for row in ROWS).backward()
    expected = inner.grad.clone()
    model.zero_grad()
    use_packed(model)
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
    use_packed(model)
    found = model(**pack(rows, CPU))
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_known_model_is_verified(tiny_model: Path) -> None:
    model = load(tiny_model)
    verify(model, ROWS[:2], CPU)
    assert math.isfinite(float(model(**pack(ROWS, CPU)).detach().sum()))


def test_a_model_that_caps_its_logits_is_refused(tiny_model: Path) -> None:
    model = load(tiny_model)
    own = type(model).forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = own(model, *args, **kwargs)
        out.logits = torch.tanh(out.logits * 20)
        return out

    model.forward = capped
    with pytest.raises(ModelError, match="differs from the model's own"):
        verify(model, ROWS[:2], CPU)
