"""One answer at a time through the model's own `generate`: for models that batched decoding does
not fit. What is chosen, and where an answer ends, is decided by the caller as in a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, StoppingCriteria

from qaq.evaluation.generation.generate import Completion


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves no token but the one that is chosen."""

    def __init__(self, choose: Callable[[Tensor], int]):
        self.choose = choose

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [1, vocabulary] of the next token."""
        only = torch.full_like(scores, float("-inf"))
        only[0, self.choose(scores)] = 0.0
        return only


class _Finished(StoppingCriteria):  # type: ignore[misc]
    """Hands on each new token, and ends the row where that finishes its answer."""

    def __init__(self, grow: Callable[[int], Completion | None]):
        self.grow = grow
        self.completion: Completion | None = None

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """Whether the row [1, tokens] is finished."""
        self.completion = self.grow(int(input_ids[0, -1]))
        return torch.tensor([self.completion is not None], device=input_ids.device)


@contextmanager
def _last_token_copied(model: PreTrainedModel) -> Iterator[None]:
    """The output head gets a prompt's last token by itself, not as a view into all its states.

    PyTorch multiplies such a view with a frozen weight as a batch of matrices and first copies the
    weight to lay it out for that: 6.3 of the 7.9 seconds of a short answer of Gemma 3 270M with an
    adapter, whose head has 262,144 rows.
    """
    head = model.get_output_embeddings()
    if head is None:
        yield
        return

    def copied(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(a.clone(memory_format=torch.contiguous_format) for a in args)

    hook = head.register_forward_pre_hook(copied)
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    prompt: Sequence[int],
    budget: int,
    choose: Callable[[Tensor], int],
    grow: Callable[[int], Completion | None],
) -> Completion:
    """The answer to one prompt.

    Args:
        choose: the next token, given its logits [1, vocabulary].
        grow: takes in a new token; the completion that it finishes, if any. The last one of the
            budget always does.
    """
    finished = _Finished(grow)
    own = model.generation_config
    model.generation_config = GenerationConfig()  # whose penalties are not ours
    try:
        with _last_token_copied(model):
            model.generate(
                inputs=torch.tensor([prompt], device=model.device),
                # no token for padding: `generate` would hide it where it stands in the prompt
                generation_config=GenerationConfig(max_new_tokens=budget, do_sample=False),
                logits_processor=[_Chosen(choose)],
                stopping_criteria=[finished],
            )
    finally:
        model.generation_config = own
    assert finished.completion is not None
    return finished.completion
