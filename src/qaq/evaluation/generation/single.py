"""One answer at a time through the model's own `generate`: for models that batched decoding does
not fit. What is chosen, and where an answer ends, is decided by the generator as in a batch.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from qaq.evaluation.generation.generate import Completion

if TYPE_CHECKING:
    from qaq.evaluation.generation.hf import HfGenerator, Row


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves no token but the one that the generator chooses."""

    def __init__(self, generator: "HfGenerator", row: "Row"):
        self.generator, self.row = generator, row

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [1, vocabulary] of the next token."""
        token = self.generator.choose_one(scores, self.row)
        return torch.full_like(scores, float("-inf")).index_fill_(
            1, torch.tensor([token], device=scores.device), 0.0
        )


class _Finished(StoppingCriteria):  # type: ignore[misc]
    """Follows the row, and ends it where the generator does."""

    def __init__(self, generator: "HfGenerator", row: "Row"):
        self.generator, self.row = generator, row
        self.completion: Completion | None = None

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """Whether the row [1, tokens] is finished."""
        self.completion = self.generator.grow_one(self.row, int(input_ids[0, -1]))
        return torch.tensor([self.completion is not None], device=input_ids.device)


@torch.inference_mode()
def answer(generator: "HfGenerator", row: "Row") -> Completion:
    """The answer to one request."""
    model, finished = generator.model, _Finished(generator, row)
    own = model.generation_config
    model.generation_config = GenerationConfig()  # whose penalties are not ours
    try:
        model.generate(
            inputs=torch.tensor([row.text.tokens], device=model.device),
            generation_config=GenerationConfig(
                max_new_tokens=row.budget, do_sample=False, pad_token_id=0
            ),
            logits_processor=[_Chosen(generator, row)],
            stopping_criteria=[finished],
        )
    finally:
        model.generation_config = own
    assert finished.completion is not None  # the last token of the budget ends every answer
    return finished.completion
