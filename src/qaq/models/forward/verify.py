"""Whether a faster way of running a model gives what the model's own forward gives, row by row.

Three questions, before anything else is run:

isolation   a row's logits beside neighbours X and beside neighbours Y are the same to the last bit.
            No tolerance: a recurrent layer that carries a state from one row into the next, an
            expert whose share of the tokens changes, a mask that was left out all show here
closeness   they are those of the row alone but for rounding. The probe has a row that is longer
            than the largest window, rows that begin alike, and one inside another
attention   each layer's attention, on the row longer than any window, sees the keys that the
            model's own mask shows and no other, and is right to rounding

Who asks says what to do about a problem; none of them changes a number or ends a run.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from qaq.host.errors import ModelError
from qaq.models.forward.attention import Packed, attention
from qaq.models.forward.packing import Ids, pack

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
ATTENTION_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 0.004}
ROUNDINGS = 4  # times the rounding of plain attention in float32 that another order may cost
CHECKED = "qaq_checked"
PLACES = 48  # of a row, the last ones, are compared
WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention", "window_size")
# rotary embeddings that are the same whatever the length of a batch, and those that change at one
FIXED = {"default", "linear", "llama3", "yarn", "proportional"}
CHANGING = {"dynamic", "longrope"}

Run = Callable[[Sequence[Ids]], list[Tensor]]  # [places, numbers] of each sequence


@dataclass(frozen=True)
class Probe:
    """Rows under test, and pairs of equally long neighbours for either side."""

    rows: tuple[Ids, ...]  # the first is short, the last is longer than any window
    before: tuple[Ids, Ids]
    after: tuple[Ids, Ids]

    def beside(self, which: int) -> list[Ids]:
        """The rows between neighbours; those of 0 and of 1 differ in what they say only."""
        return [self.before[which], *self.rows, self.after[which]]

    def short(self) -> "Probe":
        """Without the longest row."""
        return Probe(self.rows[:-1], self.before, self.after)


def make_probe(model: PreTrainedModel) -> Probe:
    """A probe for the model's vocabulary and windows."""
    config = model.config.get_text_config()
    top = min(int(config.vocab_size), 1000)
    windows = [getattr(config, name, None) for name in WINDOWS]
    longest = max([w for w in windows if isinstance(w, int)], default=0)
    limit = getattr(config, "max_position_embeddings", None) or longest + 100
    length = max(60, min(longest + 17, limit))

    def ids(first: int, count: int, salt: int) -> Ids:
        """Begins with `first`, which decides where the row stands in a pack."""
        rest = (4 + (n * n * 7 + n * salt) % max(1, top - 6) for n in range(1, count))
        return (first, *(n % top for n in rest))

    middle = top // 2
    row = ids(middle, min(48, limit), 3)
    long = ids(middle + 1, length, 11)
    return Probe(
        (row, (*row[:20], *ids(5, 21, 17)), long[:30], long),
        (ids(3, 40, 5), ids(2, 40, 13)),
        (ids(top - 1, 55, 7), ids(top - 2, 55, 19)),
    )


def places(sequences: Iterable[Ids]) -> list[range]:
    """The places of each row that are compared."""
    return [range(max(0, len(ids) - PLACES), len(ids)) for ids in sequences]


def closeness(found: Tensor, expected: Tensor) -> float:
    """Mean difference, in standard deviations of what is expected."""
    expected = expected.float()
    return float((found.float() - expected).abs().mean() / expected.std().clamp_min(1e-20))


def verify(run: Run, alone: Sequence[Tensor], probe: Probe, dtype: torch.dtype) -> str | None:
    """What is wrong with a way of running several sequences at once, or None.

    Args:
        run: the way: logits, or anything made of them, at the `places` of each sequence.
        alone: the same of each row of the probe, run alone by the model's own forward.
        probe: the rows and their neighbours.
        dtype: of the model.
    """
    found, other = (run(probe.beside(which))[1:-1] for which in (0, 1))
    for one, two in zip(found, other, strict=True):
        if not torch.equal(one, two):
            gap = float((one - two).abs().max())
            return f"a row's result changes with its neighbours (by up to {gap:.2g})"
    return too_far(found, alone, dtype)


def too_far(found: Sequence[Tensor], alone: Sequence[Tensor], dtype: torch.dtype) -> str | None:
    """That results differ from those of rows alone by more than rounding, or None."""
    gap = max(closeness(one, own) for one, own in zip(found, alone, strict=True))
    bound = BOUNDS.get(dtype, 1e-4)
    if gap < bound:
        return None
    return f"it differs from a row alone by {gap:.2g} standard deviations (expected < {bound:g})"


def check_causal(
    run: Callable[[Sequence[Ids], Sequence[range]], Tensor],
    logits: Callable[[Tensor], Tensor],
    probe: Probe,
    model: PreTrainedModel,
) -> None:
    """See that what follows a token does not change its logits.

    Raises:
        ModelError: it does.
    """
    row = probe.rows[0]
    half = range(len(row) // 2)
    whole, part = (logits(run([ids], [half])) for ids in (row, row[: len(half)]))
    if not closeness(whole, part) < 2 * BOUNDS.get(model.dtype, 1e-4):
        raise ModelError(
            f"{type(model).__name__} is not causal: the tokens behind a token change what it "
            "predicts, so its scores are no likelihoods. Choose a causal language model"
        )


def changes_at(model: PreTrainedModel) -> int | None:
    """The length of a row at which its rotary embedding is no longer that of shorter rows.

    Such embeddings look at the longest row of a batch. None where there is no such length, 0 where
    the kind of embedding is not known.
    """
    config = model.config.get_text_config()
    found = getattr(config, "rope_parameters", None) or {}
    kinds = [found] if "rope_type" in found else [v for v in found.values() if isinstance(v, dict)]
    lengths = []
    for kind in kinds:
        if kind.get("rope_type", "default") in CHANGING:
            original = kind.get("original_max_position_embeddings")
            lengths.append(int(original or config.max_position_embeddings))
        elif kind.get("rope_type", "default") not in FIXED:
            return 0
    return min(lengths, default=None)


def attention_problem(
    model: PreTrainedModel, decode: Callable[..., Any], ids: Ids, device: torch.device
) -> str | None:
    """What is wrong with `attention` in some layer of the model, on one row, or None.

    Args:
        model: whose layers are looked at.
        decode: runs rows of ids through it.
        ids: the row, longer than any window.
        device: of the model.
    """
    segments = Packed(pack([ids]), device)
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
        how = {"segments": segments, "scaling": scaling, "softcap": softcap, **more}

        def ours(v: Tensor) -> Tensor:
            return attention(module, query, key, v, None, **how)[0]

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
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))

    def attend(precision: torch.dtype) -> Tensor:
        scores = q.to(precision) @ k.to(precision).mT
        scores = scores * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if mask is not None:
            scores = scores + mask.to(precision)
        return (scores.softmax(-1) @ v.to(precision)).transpose(1, 2).contiguous()

    own = attend(torch.float32)
    return own, _gap(own, attend(torch.float64), v)


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
