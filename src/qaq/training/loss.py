"""Cross-entropy of the labels alone, without ever holding the logits of a batch.

The head is frozen, so the gradient with respect to its input is all that training needs. It is
computed in the forward pass, while the logits are there: two matrix products, and a working set of
some rows, whatever the vocabulary. On processors the vocabulary is cut into tiles whose float32
copy stays in the caches; over 262,144 words that halves the time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_ELEMENTS = 1 << 27  # logits held at a time, in the precision of the head
TILE_WORDS = {"cpu": 2048}  # of the vocabulary at a time; elsewhere all of it


class _TargetNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None
    ) -> Tensor:
        nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        rows = max(16, CHUNK_ELEMENTS // weight.shape[0])
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            out = None if gradient is None else gradient[part]
            nll[part] = _some_rows(hidden[part], weight, labels[part], bias, out)
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None, None


def _some_rows(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, gradient: Tensor | None
) -> Tensor:
    """NLL [n]; writes d nll / d hidden = (softmax - one_hot) @ weight into `gradient`."""
    width = TILE_WORDS.get(hidden.device.type, weight.shape[0])
    tiles = [slice(start, start + width) for start in range(0, weight.shape[0], width)]
    logits, norms = [], []
    label_logits = torch.zeros(len(labels), dtype=torch.float32, device=hidden.device)
    for tile in tiles:
        found = functional.linear(hidden, weight[tile], None if bias is None else bias[tile])
        norms.append(torch.logsumexp(found.float(), 1))
        inside, place = _places(labels, tile.start, found.shape[1])
        label_logits += found.gather(1, place).squeeze(1).float().where(inside, 0.0)
        if gradient is not None:
            logits.append(found)
    norm = torch.stack(norms).logsumexp(0)
    if gradient is not None:
        total = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        for tile, found in zip(tiles, logits, strict=True):
            error = found.float().sub_(norm[:, None]).exp_()
            inside, place = _places(labels, tile.start, found.shape[1])
            error.scatter_add_(1, place, -inside[:, None].float())
            total += error.to(weight.dtype) @ weight[tile]
        gradient.copy_(total)
    return norm - label_logits


def _places(labels: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Which labels [n] lie in a tile, and the column [n, 1] of each there (0 for the others)."""
    place = labels - start
    inside = (place >= 0) & (place < width)
    return inside, (place * inside)[:, None]


def target_nll(
    hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of each label.

    Args:
        hidden: [n, width], the states that predict the labels.
        weight: [vocabulary, width], frozen: it gets no gradient.
        labels: [n] token ids.
        bias: [vocabulary] or None, frozen.

    Returns:
        [n] nats, float32, differentiable with respect to `hidden`.
    """
    return _TargetNll.apply(hidden, weight, labels, bias)  # type: ignore[no-any-return, no-untyped-call]
