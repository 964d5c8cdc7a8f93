"""Bits per byte of the canonical solutions: how well a model foresees the right answer.

A measure that is finer than pass@1 on few problems: the negative log-likelihood of the solution's
tokens, given the prompt in one mode (`eval.bits_prompt`, else `eval.prompt`), in bits, divided by
the UTF-8 bytes of the solution (so that tokenizers compare). The end of the turn is not counted.
"""

import math
from collections.abc import Sequence

from qaq.evaluation.prompts import Reference
from qaq.host.errors import ModelError
from qaq.host.progress import Progress
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Rendering, Span
from qaq.scoring.plan import Task
from qaq.scoring.vllm import VllmEngine


def bits_per_byte(
    engine: Engine | VllmEngine,
    references: Sequence[Reference],
    token_budget: int,
    context: int | None,
) -> dict[str, float | None]:
    """By task id; None where prompt and solution together exceed the model's context.

    Args:
        engine: what reads, its adapter (if any) inside.
        token_budget: tokens in a batch, padding included; does not change the result.

    Raises:
        ModelError: the model gives a likelihood that is no finite number.
    """
    found: dict[str, float | None] = {r.task_id: None for r in references}
    tasks = [
        Task(at, Rendering(r.ids, (Span("solution", r.start, len(r.ids)),)))
        for at, r in enumerate(references)
        if context is None or len(r.ids) <= context
    ]
    with Progress("reading canonical solutions", len(tasks), "problems") as progress:
        for batch in engine.batches(tasks, token_budget):
            for task, sums in zip(batch, engine.score(batch), strict=True):
                reference = references[task.row]
                bits = sums["solution"] / math.log(2) / reference.bytes
                if not math.isfinite(bits):
                    raise ModelError(
                        f"the likelihood of the solution of {reference.task_id} is {bits}; the "
                        "weights or the adapter are broken, or dtype float16 overflows (try "
                        "dtype=float32)"
                    )
                found[reference.task_id] = bits
            progress.update(len(batch), sum(task.length for task in batch))
    return found
