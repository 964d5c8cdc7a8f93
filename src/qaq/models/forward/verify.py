"""Whether a faster way of running a model gives what the model's own forward gives, row by row.

Three questions, before anything else is run:

isolation   a row's logits beside neighbours X and beside neighbours Y are the same to the last bit.
            No tolerance: a recurrent layer that carries a state from one row into the next, an
            expert whose share of the tokens changes, a mask that was left out all show here
closeness   they are those of the row alone but for rounding (below). The probe has a row that is
            longer than the largest window, rows that begin alike, and one inside another
attention   each layer's attention, on the row longer than any window, sees the keys that the
            model's own mask shows and no other, and is right to rounding (`attention_check`)

Who asks says what to do about a problem; none of them changes a number or ends a run.

How far rounding moves logits is a matter of the model: where the fixed bound is passed, a row may
differ by half as much again as its own forward moves when the embedded tokens are rounded the other
way, and by no more than four bounds. In bfloat16 on a processor the ways in use gave 0.5 to 1.3
times that movement, in standard deviations of the logits (rows of the probe, least to most):

                          movement by rounding   ways in use     bound
SmolLM2-135M-Instruct     0.021 to 0.032         0.021 to 0.033  0.05
Gemma 3 270M              0.025 to 0.048         0.021 to 0.041  0.05 to 0.072
the same, with a LoRA     0.033 to 0.060         0.030 to 0.061  0.05 to 0.089

What a fault gave there: a causal mask off by one 0.71 to 1.9, heads in reverse order 0.57 to 3.0,
two heads swapped in one layer 0.10 to 0.60, positions doubled 0.26 to 1.2, a norm left out 0.08 to
5.4, an adapter left out but in its gated MLPs 0.24 to 0.63, scores scaled by 1.05 instead of 1 0.03
to 0.10 (refused on each of the three but the first). A fault as small as rounding itself, such as a
window off by one or one Linear layer's adapter left out, does not show here: `attention` is exact.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qaq.host.errors import ModelError
from qaq.models.forward.packing import Ids

BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
ROUNDING = 1.5  # how many times what rounding does in the model a row may differ by, ...
CEILING = 4.0  # ... and how many bounds at most
SEEDS = 3  # ways to round that are looked at
PROBED = 5000  # tokens of the longest row under test: attention is compared token by token
PLACES = 48  # of a row, the last ones, are compared
WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention", "window_size")
# rotary embeddings that are the same whatever the length of a batch, and those that change at one
FIXED = {"default", "linear", "llama3", "yarn", "proportional"}
CHANGING = {"dynamic", "longrope"}

Run = Callable[[Sequence[Ids]], list[Tensor]]  # [places, numbers] of each sequence


@dataclass(frozen=True)
class Probe:
    """Rows under test, and pairs of equally long neighbours for either side."""

    rows: tuple[Ids, ...]  # the first is short, the last the longest that is compared
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
    longest = max([w for w in _windows(model) if w + 17 <= PROBED], default=0)
    limit = getattr(config, "max_position_embeddings", None) or PROBED
    length = max(60, min(longest + 17, limit))
    if end := changes_at(model):
        length = min(length, end - 1)

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


def moved_by_rounding(alone: Callable[[], list[Tensor]], model: nn.Module) -> list[float]:
    """How far each row moves when its embedded tokens are rounded another way, on average.

    Every number is changed by a random part of its spacing before it is rounded, as in Monte Carlo
    arithmetic (Parker 1997), and the model's own forward carries the change to the logits.

    Args:
        alone: runs each row alone, by the model's own forward.
        model: with the embedding that it runs.
    """
    expected = alone()
    total = [0.0 for _ in expected]
    for seed in range(SEEDS):
        with _rounded_otherwise(model, seed):
            found = alone()
        moved = map(closeness, found, expected)
        total = [one + more for one, more in zip(total, moved, strict=True)]
    return [one / SEEDS for one in total]


@contextmanager
def _rounded_otherwise(model: nn.Module, seed: int) -> Iterator[None]:
    chance = torch.Generator().manual_seed(seed)

    def change(module: nn.Module, args: Any, embedded: Tensor) -> Tensor:
        part = torch.rand(embedded.shape, generator=chance, dtype=torch.float64) - 0.5
        part = part.to(embedded.device) * torch.finfo(embedded.dtype).eps
        return (embedded.double() * (1 + part)).to(embedded.dtype)

    embedding: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    hook = embedding.register_forward_hook(change)
    try:
        yield
    finally:
        hook.remove()


def verify(
    run: Run,
    alone: Sequence[Tensor],
    probe: Probe,
    dtype: torch.dtype,
    moved: Callable[[], list[float]],
) -> str | None:
    """What is wrong with a way of running several sequences at once, or None.

    Args:
        run: the way: logits, or anything made of them, at the `places` of each sequence.
        alone: the same of each row of the probe, run alone by the model's own forward.
        probe: the rows and their neighbours.
        moved: how far rounding moves each row (`moved_by_rounding`); asked where that decides.
    """
    found, other = (run(probe.beside(which))[1:-1] for which in (0, 1))
    for one, two in zip(found, other, strict=True):
        if not torch.equal(one, two):
            gap = float((one - two).abs().max())
            return f"a row's result changes with its neighbours (by up to {gap:.2g})"
    return too_far(found, alone, dtype, moved)


def too_far(
    found: Sequence[Tensor],
    alone: Sequence[Tensor],
    dtype: torch.dtype,
    moved: Callable[[], list[float]],
) -> str | None:
    """That results differ from those of rows alone by more than rounding, or None."""
    bound = BOUNDS.get(dtype, 1e-4)
    gaps = [closeness(one, own) for one, own in zip(found, alone, strict=True)]
    if all(gap < bound for gap in gaps):
        return None
    for gap, rounding in zip(gaps, moved(), strict=False):  # some ways leave out the longest row
        limit = max(bound, min(ROUNDING * rounding, CEILING * bound))
        if not gap < limit:
            return (
                f"it differs from a row alone by {gap:.2g} standard deviations (expected < "
                f"{limit:.2g}; rounding moves this row by {rounding:.2g})"
            )
    return None


def check_causal(
    run: Callable[[Sequence[Ids], Sequence[range]], Tensor],
    logits: Callable[[Tensor], Tensor],
    probe: Probe,
    model: PreTrainedModel,
) -> None:
    """See that what follows a token does not change its logits. Raises ModelError: it does."""
    row = probe.rows[0]
    half = range(len(row) // 2)

    def part() -> list[Tensor]:
        return [logits(run([row[: len(half)]], [half]))]

    whole, alone = [logits(run([row], [half]))], part()
    near = closeness(whole[0], alone[0]) < 2 * BOUNDS.get(model.dtype, 1e-4)
    if not near and too_far(whole, alone, model.dtype, lambda: moved_by_rounding(part, model)):
        raise ModelError(
            f"{type(model).__name__} is not causal: the tokens behind a token change what it "
            "predicts, so its scores are no likelihoods. Choose a causal language model"
        )


def changes_at(model: PreTrainedModel) -> int | None:
    """The length of a row from which on it runs alone, through the model's own forward.

    From there on its rotary embedding is no longer that of shorter rows, since it looks at the
    longest row of a batch, or a window begins to hide keys that is too long for the probe. None
    where there is no such length, 0 where the kind of embedding is not known.
    """
    config = model.config.get_text_config()
    found = getattr(config, "rope_parameters", None) or {}
    kinds = [found] if "rope_type" in found else [v for v in found.values() if isinstance(v, dict)]
    lengths = [w for w in _windows(model) if w + 17 > PROBED]
    for kind in kinds:
        if kind.get("rope_type", "default") in CHANGING:
            original = kind.get("original_max_position_embeddings")
            lengths.append(int(original or config.max_position_embeddings))
        elif kind.get("rope_type", "default") not in FIXED:
            return 0
    return min(lengths, default=None)


def _windows(model: PreTrainedModel) -> list[int]:
    config = model.config.get_text_config()
    found = [getattr(config, name, None) for name in WINDOWS]
    return [window for window in found if isinstance(window, int)]
