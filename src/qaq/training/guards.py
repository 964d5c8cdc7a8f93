"""When a run must stop: the loss is no number, too high, or rising.

Pure functions of numbers; a problem comes back as a sentence that begins with what was found.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 10  # over which a rise of the loss is measured
NAMED = 16  # rows that a message names


def loss_problem(mean: float, bound: float) -> str | None:
    """What is wrong with the mean loss of a step's labels before its update, or None."""
    if math.isfinite(mean) and mean <= bound:
        return None
    return f"the loss is {mean:.4g} nats per token (bound {bound:.3g})"


def rise_problem(losses: Sequence[float], bound: float) -> str | None:
    """What is wrong with the run so far, given the loss of each step, or None.

    The mean of the last `STEPS` steps may lie at most `bound` nats above that of the first.
    """
    if len(losses) < 2 * STEPS:
        return None
    first, last = (sum(part) / STEPS for part in (losses[:STEPS], losses[-STEPS:]))
    if last - first <= bound:
        return None
    return (
        f"the loss rises: {last:.3g} nats per token over the last {STEPS} steps, {first:.3g} over "
        f"the first {STEPS} (bound {bound:g} above)"
    )


def worst_first(row_ids: Sequence[str], lengths: Sequence[int], nll: Tensor) -> list[str]:
    """The rows by falling mean loss, those without a number in front.

    Args:
        lengths: labels of each row; they add up to n.
        nll: [n] nats.
    """
    means = torch.stack([part.float().mean() for part in torch.split(nll, list(lengths))])
    order = torch.nan_to_num(means, nan=math.inf).argsort(descending=True, stable=True)
    return [row_ids[i] for i in order.tolist()]


def name_rows(row_ids: Sequence[str]) -> str:
    """The first rows by name, the others by number."""
    more = "" if len(row_ids) <= NAMED else f" and {len(row_ids) - NAMED} more"
    return ", ".join(row_ids[:NAMED]) + more
