"""Whether our attention is each layer's own: the same keys seen, the same numbers but for rounding.

On a row longer than any window, with the mask that the model itself makes: the values of keys that
it hides are changed, then that of one that it shows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from qaq.models.forward.attention import Packed, Segments, attention
from qaq.models.forward.packing import Ids, pack

ATTENTION_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 0.004}
ROUNDINGS = 4  # times the rounding of plain attention in float32 that another order may cost
CHECKED = "qaq_checked"


def attention_problem(
    model: PreTrainedModel,
    decode: Callable[..., Any],
    ids: Ids,
    device: torch.device,
    passes: Sequence[tuple[slice, Segments]] | None = None,
) -> str | None:
    """What is wrong with `attention` in some layer of the model, on one row, or None.

    Args:
        decode: runs rows of ids through it.
        ids: the row, longer than any window.
        passes: the tokens of each pass over the row, in order, and what they see; absent: one.
    """
    segments = Packed(pack([ids]), device)
    passes = passes or [(slice(None), segments)]
    problems: list[str] = []

    def checked(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        segments: Packed | None = None,
        scaling: float | None = None,
        softcap: float | None = None,
        **more: Any,
    ) -> tuple[Tensor, None]:
        own, rounding = _plain(query, key, value, attention_mask, scaling, softcap)
        if device.type == "cpu":  # exactly then
            query, key, value = query.float(), key.float(), value.float()
        how = {"scaling": scaling, "softcap": softcap, **more}

        def ours(v: Tensor) -> Tensor:
            parts = [
                attention(module, query[:, :, tokens], key, v, None, segments=seen, **how)[0]
                for tokens, seen in passes
            ]
            return torch.cat(parts, 1)

        found = ours(value)
        far = _gap(found, own, value)
        if not far < max(ATTENTION_BOUNDS.get(query.dtype, 1e-4), ROUNDINGS * rounding):
            problems.append(f"attention differs by {far:.2g}")
        problems.extend(_unlike_seen(ours, found, value, attention_mask))
        return own.to(value.dtype if device.type != "cpu" else model.dtype), None

    AttentionInterface.register(CHECKED, checked)
    AttentionMaskInterface.register(CHECKED, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(CHECKED)
    try:
        decode([ids], segments=segments)
    finally:
        model.set_attn_implementation(before)
    return problems[0] if problems else None


@torch.no_grad()
def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> tuple[Tensor, float]:
    """Attention as it is written down, in float32, [1, tokens, heads, width], and its rounding.

    That is how far float32 takes it from float64: scores in the thousands, which the biases of
    Qwen 2.5 make, leave no four digits of a weight.
    """

    def attend(head: int, precision: torch.dtype) -> Tensor:
        keys, values = (x[:, head * x.shape[1] // q.shape[1]].to(precision) for x in (k, v))
        scores = q[:, head].to(precision) @ keys.mT
        scores = scores * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if mask is not None:
            scores = scores + mask[:, min(head, mask.shape[1] - 1)].to(precision)
        return scores.softmax(-1) @ values

    found, rounding = [], 0.0
    for head in range(q.shape[1]):  # one at a time: the scores of all fill the memory
        found.append(attend(head, torch.float32))
        rounding = max(rounding, _gap(found[-1], attend(head, torch.float64), v))
    return torch.stack(found, 2), rounding


def _gap(one: Tensor, other: Tensor, value: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((one.double() - other.double()).detach().abs().max() / value.detach().abs().max())


def _unlike_seen(
    ours: Callable[[Tensor], Tensor], found: Tensor, value: Tensor, mask: Tensor | None
) -> list[str]:
    """Whether the last token sees other keys than the mask shows, by changing their values."""
    seen = torch.ones(value.shape[2], dtype=torch.bool, device=value.device)
    if mask is not None:
        seen = mask[0, 0, -1] == 0
    if not seen.any():
        return ["its mask says more than which keys are seen"]
    problems = []
    hidden = torch.where(seen[:, None], value, 1e4)
    if not torch.equal(ours(hidden)[:, -1], found[:, -1]):
        problems.append("attention sees a key that the model's own does not")
    first = value.clone()
    first[:, :, int(seen.nonzero()[0])] += 1e4
    if torch.equal(ours(first)[:, -1], found[:, -1]):
        problems.append("attention does not see a key that the model's own does")
    return problems
