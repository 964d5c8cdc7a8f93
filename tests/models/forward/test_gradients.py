"""Hand-written passes against plain expressions and autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional

from qaq.models.forward import gradients as gradients_module
from qaq.models.forward.gradients import attend, causal_attention
from qaq.models.forward.lora import fuse_lora, lora_linear
from qaq.training import loss as losses
from qaq.training.loss import target_nll


def leaf(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 50), st.integers(1, 64), st.integers(1, 60))
def test_the_loss_and_its_gradient_are_cross_entropys(
    rows: int, words: int, chunk: int, tile: int
) -> None:
    hidden, weight, bias = leaf(rows, 8), leaf(words, 8).detach(), leaf(words).detach()
    labels = torch.arange(rows) % words
    scale = torch.linspace(0.5, 2, rows, dtype=torch.float64)
    whole = functional.cross_entropy(hidden @ weight.T + bias, labels, reduction="none")
    (expected,) = torch.autograd.grad((whole * scale).sum(), hidden)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "CHUNK_ELEMENTS", chunk * words)
        patch.setattr(losses, "TILE_WORDS", {"cpu": tile})
        found = target_nll(hidden, weight, labels, bias)
    (gradient,) = torch.autograd.grad((found.double() * scale).sum(), hidden)
    assert torch.allclose(found.double(), whole, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5)


def test_the_loss_of_no_labels_is_empty_and_has_a_gradient_of_zero() -> None:
    hidden = leaf(0, 8)
    nll = target_nll(hidden, leaf(5, 8).detach(), torch.zeros(0, dtype=torch.long))
    nll.sum().backward()
    assert nll.shape == (0,)
    assert hidden.grad is not None


def test_a_loss_far_from_its_label_keeps_its_size() -> None:
    """A probability of e^-300 is no number in float32; its logarithm is."""
    weight = torch.tensor([[300.0], [0.0]])
    nll = target_nll(torch.ones(1, 1), weight, torch.tensor([1]))
    assert float(nll) == pytest.approx(300)


@pytest.mark.parametrize("bias", [True, False])
def test_a_fused_adapter_layer_equals_its_formula(bias: bool) -> None:
    x, a, b = leaf(2, 5, 6), leaf(3, 6), leaf(7, 3)
    weight, offset = leaf(7, 6).detach(), leaf(7).detach() if bias else None
    expected = functional.linear(x, weight, offset) + 1.7 * (x @ a.T) @ b.T
    up = leaf(2, 5, 7, seed=1).detach()
    reference = torch.autograd.grad((expected * up).sum(), [x, a, b])
    found = lora_linear(x, weight, offset, a, b, 1.7)
    gradients = torch.autograd.grad((found * up).sum(), [x, a, b])
    assert torch.allclose(found, expected)
    for ours, theirs in zip(gradients, reference, strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-5)


def test_fused_layers_give_pefts_own_output_and_gradients() -> None:
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 4))
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    x = torch.randn(5, 6)
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = model(x)
    reference = torch.autograd.grad(expected.square().sum(), trained)
    assert fuse_lora(model) == 2
    found = model(x)
    gradients = torch.autograd.grad(found.square().sum(), trained)
    assert torch.allclose(found, expected, atol=1e-6)
    for ours, theirs in zip(gradients, reference, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("length", [1, 7, 40])
def test_attention_equals_the_built_in_one_with_its_gradients(
    heads: int, key_heads: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients_module, "BLOCK", 16)  # several blocks, the last one partial
    shapes = [(heads, 8), (key_heads, 8), (key_heads, 8)]
    q, k, v = (leaf(1, length, h, w).transpose(1, 2) for h, w in shapes)
    expected = functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=0.3, enable_gqa=True
    )
    up = leaf(*expected.shape, seed=2).detach()
    reference = torch.autograd.grad((expected * up).sum(), [q, k, v])
    found = causal_attention(q, k, v, 0.3)
    gradients = torch.autograd.grad((found * up).sum(), [q, k, v])
    assert torch.allclose(found, expected)
    for ours, theirs in zip(gradients, reference, strict=True):
        assert torch.allclose(ours, theirs)


def test_attention_in_bfloat16_stays_within_its_rounding() -> None:
    q, k, v = (leaf(1, 3, 30, 8).detach() for _ in range(3))
    q.requires_grad_()
    exact = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    (reference,) = torch.autograd.grad(exact.square().sum(), q)
    coarse = causal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), 8**-0.5)
    (gradient,) = torch.autograd.grad(coarse.float().square().sum(), q)
    assert torch.allclose(coarse.double(), exact, atol=0.02)
    assert float((gradient - reference).norm() / reference.norm()) < 0.02


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 0.7])
def test_rows_of_a_pack_attend_to_themselves_with_windows_and_caps(
    window: int | None, softcap: float | None
) -> None:
    lengths = [9, 1, 20]
    shapes = [(4, 8), (2, 8), (2, 8)]
    q, k, v = (leaf(1, sum(lengths), h, w, seed=h).transpose(1, 2) for h, w in shapes)
    token = torch.arange(sum(lengths))
    row = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    seen = (row[:, None] == row) & (token[:, None] >= token)
    if window is not None:
        seen &= token[:, None] - token < window
    scores = q @ k.repeat_interleave(2, 1).mT * 0.3
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    expected = (weights @ v.repeat_interleave(2, 1)).transpose(1, 2)
    up = leaf(*expected.shape, seed=2).detach()
    reference = torch.autograd.grad((expected * up).sum(), [q, k, v])
    found = attend(q, k, v, lengths, 0.3, window, softcap)
    gradients_found = torch.autograd.grad((found * up).sum(), [q, k, v])
    assert torch.allclose(found, expected, atol=1e-6)
    for ours, theirs in zip(gradients_found, reference, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
