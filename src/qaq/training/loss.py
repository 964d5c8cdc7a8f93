"""Cross-entropy of the labels alone, without ever holding the logits of a batch.

The head is frozen, so the gradient with respect to its input is all that training needs. It is
computed chunk by chunk in the forward pass, while the chunk's logits are there: two matrix
products per chunk and a working set of one chunk, whatever the vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# logits held at a time: near the caches on a processor, enough work for a launch on a GPU
CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 27}


class _TargetNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None
    ) -> Tensor:
        nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        rows = max(16, CHUNK_ELEMENTS.get(hidden.device.type, 1 << 25) // weight.shape[0])
        for start in range(0, len(labels), rows):
            part = slice(start, start + rows)
            logits = functional.linear(hidden[part], weight, bias)
            log_p = torch.log_softmax(logits, 1, dtype=torch.float32)
            index = labels[part, None]
            nll[part] = -log_p.gather(1, index).squeeze(1)
            if gradient is not None:  # d nll / d logits = softmax - one_hot
                error = log_p.exp_()
                error.scatter_add_(1, index, error.new_full(index.shape, -1.0))
                gradient[part] = error.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None, None, None


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
