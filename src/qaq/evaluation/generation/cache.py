"""A key-value cache for batched decoding: allocated once, no row is ever copied to make room.

`transformers`' dynamic cache copies everything at each new token, and its static cache attends to
its whole capacity. Here the keys and values of a layer are one block [slots, heads, columns, head
dimension]; a sequence has a slot, and the token at position n lies in column n. A forward pass
writes where its tokens belong and attends to as many columns as its sequences have (`forward`).
What was written beyond a sequence's end is overwritten later and never looked at.
"""

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from qaq.host.errors import ModelError


class Slots:
    """Where the tokens of the pass in progress belong: slot and column of each, [tokens]."""

    slots: torch.Tensor
    columns: torch.Tensor


class BlockLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer."""

    is_sliding = False

    def __init__(self, slots: int, columns: int, place: Slots):
        super().__init__()
        self.slots, self.columns, self.place = slots, columns, place

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the block, now that heads, dimension, type and device are known."""
        self.keys = self._block(key_states)
        self.values = self._block(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values, [1, heads, tokens, width]; returns the whole blocks."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        slots, columns = self.place.slots, self.place.columns
        self.keys[slots, :, columns] = key_states[0].transpose(0, 1)
        self.values[slots, :, columns] = value_states[0].transpose(0, 1)
        return self.keys, self.values

    def copy(self, source: int, target: int, columns: int) -> None:
        """Copy the first columns of one slot to another."""
        if self.keys is not None and self.values is not None:
            self.keys[target, :, :columns] = self.keys[source, :, :columns]
            self.values[target, :, :columns] = self.values[source, :, :columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Never asked: the pass makes its own masks."""
        return self.columns, 0

    def get_seq_length(self) -> int:
        """Never asked: every token comes with its position."""
        return 0

    def get_max_length(self) -> int:
        """Columns in all."""
        return self.columns

    def _block(self, like: torch.Tensor) -> torch.Tensor:
        shape = (self.slots, like.shape[1], self.columns, like.shape[3])
        # Zeros: what is masked has no weight, but zero times what memory happens to hold may be NaN
        return torch.zeros(shape, dtype=like.dtype, device=like.device)


class BlockCache(Cache):  # type: ignore[misc]
    """The blocks of all layers and the place that they share."""

    def __init__(self, model: PreTrainedModel, slots: int, columns: int):
        """Make room for `slots` sequences of `columns` tokens; memory is taken at first use.

        Raises:
            ModelError: the model keeps more than keys and values (a recurrent state, for example).
        """
        kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
        unknown = sorted(k.__name__ for k in kinds - {DynamicLayer, DynamicSlidingWindowLayer})
        if getattr(model.config.get_text_config(), "attention_chunk_size", None):
            unknown.append("chunked attention")
        if unknown:
            raise ModelError(
                f"{type(model).__name__} keeps {', '.join(unknown)}, "
                "which batched decoding does not know"
            )
        self.place = Slots()
        count = len(DynamicCache(config=model.config).layers)
        self.blocks = [BlockLayer(slots, columns, self.place) for _ in range(count)]
        super().__init__(layers=list(self.blocks))

    @torch.inference_mode()
    def copy(self, source: int, target: int, columns: int) -> None:
        """Copy the first columns of one slot to another, in every layer."""
        for block in self.blocks:
            block.copy(source, target, columns)


def bytes_per_token(model: PreTrainedModel) -> int:
    """What the cache holds for one token of one sequence, over all layers."""
    facts = model.config.get_text_config()
    heads = getattr(facts, "num_key_value_heads", None) or facts.num_attention_heads
    width = getattr(facts, "head_dim", None) or facts.hidden_size // facts.num_attention_heads
    itemsize: int = model.dtype.itemsize
    return 2 * int(facts.num_hidden_layers) * int(heads) * int(width) * itemsize
