"""A key-value cache for batched decoding: allocated once, rows leave it without copying the rest.

`transformers`' dynamic cache copies everything at each new token, and its static cache attends to
its whole capacity. Here the keys and values of a layer are one block [rows, heads, columns, head
dimension]. A forward pass works in a window of it: some rows, and the columns from the first that
any of these rows uses. A row that is finished is replaced by the last one.

Every row's prompt ends in the same column, so prompts of different lengths are padded on the left;
groups of prompts can be read in one after the other, each padded to its own longest only.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from qaq.errors import ModelError


@dataclass
class Window:
    """What the next forward pass sees: rows, first column, and how many columns are filled."""

    rows: slice
    first: int
    past: int


class BlockLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer.

    A sliding window is a matter of the attention mask, which `transformers` makes; the layer keeps
    everything.
    """

    is_sliding = False

    def __init__(self, rows: int, columns: int, window: Window):
        super().__init__()
        self.rows, self.columns, self.window = rows, columns, window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the block, now that heads, dimension, type and device are known."""
        self.keys = self._block(key_states)
        self.values = self._block(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns; returns views of the window's keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        rows, first = self.window.rows, self.window.first
        start = first + self.window.past
        end = start + key_states.shape[2]
        self.keys[rows, :, start:end] = key_states
        self.values[rows, :, start:end] = value_states
        return self.keys[rows, :, first:end], self.values[rows, :, first:end]

    def move(self, source: int, target: int, columns: slice) -> None:
        """Copy one row over another."""
        if self.keys is not None and self.values is not None:
            self.keys[target, :, columns] = self.keys[source, :, columns]
            self.values[target, :, columns] = self.values[source, :, columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the next pass attends to, and their offset."""
        return self.window.past + query_length, 0

    def get_seq_length(self) -> int:
        """Columns of the window that are filled."""
        return self.window.past

    def get_max_length(self) -> int:
        """Columns in all."""
        return self.columns

    def _block(self, like: torch.Tensor) -> torch.Tensor:
        shape = (self.rows, like.shape[1], self.columns, like.shape[3])
        # Zeros: padding has no weight, but zero times what memory happens to hold may be NaN
        return torch.zeros(shape, dtype=like.dtype, device=like.device)


class BlockCache(Cache):  # type: ignore[misc]
    """The blocks of all layers and the window that they share."""

    def __init__(self, model: PreTrainedModel, rows: int, columns: int):
        """Make room for `rows` sequences of `columns` tokens; memory is taken at first use.

        Raises:
            ModelError: the model keeps more than keys and values (a recurrent state, for example).
        """
        kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
        strange = kinds - {DynamicLayer, DynamicSlidingWindowLayer}
        if strange:
            raise ModelError(
                f"{type(model).__name__} keeps {', '.join(sorted(k.__name__ for k in strange))}, "
                "which batched decoding does not know; use eval.generator=vllm"
            )
        self.window = Window(slice(0, rows), 0, 0)
        count = len(DynamicCache(config=model.config).layers)
        self.blocks = [BlockLayer(rows, columns, self.window) for _ in range(count)]
        super().__init__(layers=list(self.blocks))

    def look(self, rows: slice, first: int, past: int) -> None:
        """Set the window of the next forward pass."""
        self.window.rows, self.window.first, self.window.past = rows, first, past

    def move(self, source: int, target: int, columns: slice) -> None:
        """Copy one row over another, in every layer."""
        for block in self.blocks:
            block.move(source, target, columns)
