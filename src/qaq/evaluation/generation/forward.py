"""One forward pass over the next tokens of many sequences, packed end to end without padding.

Every Linear layer sees real tokens only, and the output head only those whose successor is wanted.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qaq.evaluation.generation.cache import BlockCache
from qaq.models.forward.attention import Segments
from qaq.models.forward.columns import Cached, Chunk
from qaq.models.forward.packing import Ids
from qaq.models.forward.verify import places

SPLIT = (5, 1, 3)  # how the check reads the end of a row: as a prompt's end, a token and guesses


@torch.inference_mode()
def forward(model: PreTrainedModel, cache: BlockCache, chunks: Sequence[Chunk]) -> Tensor:
    """Read tokens of sequences; returns logits [all wanted, vocabulary], in order.

    The model must be `attending` with `qaq.models.forward.attention`.
    """
    device = model.device
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[int] = []
    for chunk in chunks:
        ids += chunk.tokens
        positions += range(chunk.start, chunk.start + len(chunk.tokens))
        slots += [chunk.slot] * len(chunk.tokens)
        wanted += range(len(ids) - chunk.wanted, len(ids))
    cache.place.slots = torch.tensor(slots, device=device)
    cache.place.columns = torch.tensor(positions, device=device)
    output = model(
        input_ids=torch.tensor(ids, device=device)[None],
        position_ids=cache.place.columns[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=torch.tensor(wanted, device=device),
        segments=Cached(chunks, device),
    )
    logits: Tensor = output.logits[0]
    return logits


def passes(ids: Ids) -> list[slice]:
    """The tokens of each pass over a row, as the check reads it."""
    ends = [len(ids) - sum(SPLIT[i:]) for i in range(len(SPLIT) + 1)]
    return [slice(start, stop) for start, stop in pairwise([0, *ends])]


def seen_by_cache(ids: Ids, device: torch.device) -> list[tuple[slice, Segments]]:
    """The passes over a row and what they see of its own columns, for the check of attention."""
    return [(at, Cached([Chunk(0, at.start, ids[at])], device)) for at in passes(ids)]


def by_cache(model: PreTrainedModel) -> Callable[[Sequence[Ids]], list[Tensor]]:
    """Logits at the places that `verify` compares, by a cache that is read in several passes."""

    def run(sequences: Sequence[Ids]) -> list[Tensor]:
        cache = BlockCache(model, len(sequences), max(map(len, sequences)))
        cut = [passes(ids) for ids in sequences]
        found: list[list[Tensor]] = [[] for _ in sequences]
        for part in zip(*cut, strict=True):
            chunks = [
                Chunk(slot, at.start, ids[at], at.stop - max(at.start, compared.start))
                for slot, (ids, at, compared) in enumerate(
                    zip(sequences, part, places(sequences), strict=True)
                )
            ]
            parts = torch.split(forward(model, cache, chunks), [chunk.wanted for chunk in chunks])
            for logits, piece in zip(found, parts, strict=True):
                logits.append(piece)
        return [torch.cat(pieces) for pieces in found]

    return run
