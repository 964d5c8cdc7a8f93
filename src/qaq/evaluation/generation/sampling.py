"""Which token follows, given logits: the likeliest one, or one of the nucleus by a uniform draw."""

import torch
from torch.nn.utils.rnn import pad_sequence

SAMPLED = 1 << 20  # logits turned into probabilities at a time; these fit a cache
FLOORS = (-9.0, -16.0, float("-inf"))  # how much less likely than the likeliest, in nats, to sort


def greedy(logits: torch.Tensor) -> list[int]:
    """The likeliest token of each row, the first of equals."""
    return logits.max(-1).indices.tolist()  # on processors several times faster than argmax


def sample(
    logits: torch.Tensor, temperature: float, top_p: float, draws: torch.Tensor
) -> list[int]:
    """One token per row from the nucleus: the likeliest tokens that together reach `top_p`.

    Args:
        logits: [rows, vocabulary].
        temperature: above 0; divides the logits.
        top_p: as in EvalPlus and `transformers`; the token that reaches it is in.
        draws: [rows], uniform in [0, 1); equal draws give equal tokens.
    """
    rows = max(1, SAMPLED // logits.shape[-1])
    if len(logits) > rows:  # what is compared takes much more memory than the logits
        parts = zip(torch.split(logits, rows), torch.split(draws, rows), strict=True)
        return [token for part, u in parts for token in sample(part, temperature, top_p, u)]
    scaled = logits.float() / temperature
    scaled -= scaled.max(-1, keepdim=True).values
    whole = scaled.exp().sum(-1, dtype=torch.float64)
    likely, order = _likeliest(scaled, whole * top_p)
    total = likely.cumsum(-1)
    inside = total - likely < (whole * top_p)[:, None]
    mass = (likely * inside).sum(-1)
    place = (total < (draws * mass)[:, None]).sum(-1)
    place = torch.minimum(place, inside.sum(-1) - 1)
    return order.gather(-1, place[:, None])[:, 0].tolist()


def _likeliest(scaled: torch.Tensor, mass: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens of each row that hold its `mass`, and more: weights and numbers.

    From the likeliest on, of equals the first; [rows, some], rows with fewer end in weights of 0.
    Sorting a whole vocabulary takes longer than a small model's forward pass.
    """
    for floor in FLOORS:
        rows, tokens = (scaled >= floor).nonzero(as_tuple=True)
        counts = rows.bincount(minlength=len(scaled)).tolist()
        weights = torch.split(scaled[rows, tokens].double().exp(), counts)
        padded = pad_sequence(list(weights), batch_first=True)
        if floor == FLOORS[-1] or bool((padded.sum(-1) >= mass).all()):
            break
    numbers = pad_sequence(list(torch.split(tokens, counts)), batch_first=True)
    ordered = padded.sort(dim=-1, descending=True, stable=True)
    return ordered.values, numbers.gather(-1, ordered.indices)
