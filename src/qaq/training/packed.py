"""The model's side of training without padding: several rows in one sequence, the head only
where something is learnt.

The rows of a micro-batch are laid end to end, so that every Linear layer sees real tokens only.
Attention runs row by row inside the sequence, and the output head is applied to the positions
that predict a label; full logits never exist. Both replace parts of the model's own forward, so
`verify` compares them with the model's own forward before a run begins.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from qaq.host.errors import ModelError
from qaq.training.kernels import causal_attention
from qaq.training.loss import target_nll
from qaq.training.rows import Example

ATTENTION = "qaq_packed"


def pack(examples: Sequence[Example], device: torch.device, silent: bool = False) -> dict[str, Any]:
    """Lay examples end to end.

    Returns:
        `input_ids` and `position_ids` [1, tokens] (positions start again at each row),
        `segments` (length of each row), `targets` [n] (positions that predict a label) and
        `labels` [n]. A silent batch keeps its tokens and learns nothing.
    """
    ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    labels: list[int] = []
    for example in examples:
        start, length = len(ids), len(example.ids)
        ids += example.ids
        positions += range(length)
        if not silent:
            targets += range(start + example.prompt - 1, start + length - 1)
            labels += example.ids[example.prompt :]

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return {
        "input_ids": tensor(ids)[None],
        "position_ids": tensor(positions)[None],
        "segments": tuple(len(e.ids) for e in examples),
        "targets": tensor(targets),
        "labels": tensor(labels),
    }


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    segments: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each segment.

    Args:
        module: the attention layer that asks.
        query, key, value: [1, heads, tokens, width]; there may be fewer heads of keys.
        attention_mask: None; segments say it all.
        segments: length of each row; they add up to `tokens`.
        scaling: of the scores.
        dropout: of the weights.
        sliding_window: how far back a token sees, where the layer limits it.

    Returns:
        [1, tokens, heads, width], and no weights.
    """
    rows = zip(*(torch.split(x, list(segments), 2) for x in (query, key, value)), strict=True)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = [_attend(q, k, v, scaling, dropout, sliding_window) for q, k, v in rows]
    return torch.cat(out, 2).transpose(1, 2).contiguous(), None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scaling: float, dropout: float, window: int | None
) -> Tensor:
    """Causal attention of one row, with the fastest exact kernel that fits."""
    mask = _window_mask(q.shape[2], window, q.device)
    slow_backward = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if slow_backward and mask is None and dropout == 0:
        return causal_attention(q, k, v, scaling)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=grouped,
    )


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """The mask of sliding-window attention, where the row is longer than the window."""
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril() & ones.triu(1 - window)


def use_packed(model: PreTrainedModel) -> None:
    """Make `model(**pack(...))` return the NLL [n] of each label, in nats, float32."""
    AttentionInterface.register(ATTENTION, packed_attention)
    model.set_attn_implementation(ATTENTION)
    decoder, head = model.base_model, model.get_output_embeddings()

    def forward(
        self: PreTrainedModel,
        input_ids: Tensor,
        position_ids: Tensor,
        segments: tuple[int, ...],
        targets: Tensor,
        labels: Tensor,
        **_: Any,
    ) -> Tensor:
        hidden = decoder(
            input_ids=input_ids, position_ids=position_ids, segments=segments, use_cache=False
        ).last_hidden_state
        # through the module's own call: sharded models gather the head's weight there
        return head(hidden[0].index_select(0, targets), labels)  # type: ignore[no-any-return]

    def head_forward(self: nn.Linear, hidden: Tensor, labels: Tensor) -> Tensor:
        return target_nll(hidden, self.weight, labels, self.bias)

    model.forward = MethodType(forward, model)
    head.forward = MethodType(head_forward, head)


@torch.no_grad()
def verify(model: PreTrainedModel, examples: Sequence[Example], device: torch.device) -> None:
    """Compare the packed forward of `model`, before `use_packed`, with the model's own.

    Raises:
        ModelError: they differ by more than rounding; the model's forward does something that
            the packed one does not know (soft-capped logits, attention sinks, remote code).
    """
    expected = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids], device=device)).logits[0].float()
        losses = functional.cross_entropy(
            logits[:-1], torch.tensor(example.ids[1:], device=device), reduction="none"
        )
        expected.append(losses[example.prompt - 1 :])
    reference = torch.cat(expected)
    use_packed(model)
    found = model(**pack(examples, device))
    bound = 1e-3 if model.dtype == torch.float32 else 0.1
    difference = float((found - reference).abs().mean())
    if not difference < bound:
        raise ModelError(
            f"{type(model).__name__}: the packed forward differs from the model's own by "
            f"{difference:.4g} nats per token (expected < {bound:g}); this architecture cannot be "
            "trained here. Report it with the model's name"
        )
