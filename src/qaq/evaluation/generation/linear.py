"""Linear layers on processors with weights laid out for oneDNN once, instead of at every call.

The results are those of the layer (in bfloat16 bit for bit, in float32 but for the order of sums),
two to three times sooner for the few rows of a decoding step; in float32 also because oneDNN's
kernels are used, which suit processors that MKL does not (see `qaq.models.forward.dense`). Where
that is not to be had, the layers stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]
from torch import nn

from qaq.models.forward import dense

ROWS = 64  # tokens of a step that the layout is chosen for
MEMORY_SHARE = 0.5  # of what is free, for the second copy of the weights


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[bool]:
    """The model's Linear layers with packed weights, where that is possible; whether it was."""
    layers = [m for m in model.modules() if type(m) is nn.Linear]
    if not layers or not can_pack(layers):
        yield False
        return
    try:
        for layer in layers:
            vars(layer)["forward"] = dense.dense(layer, pack=True, rows=ROWS)
        yield True
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def can_pack(layers: list[nn.Linear]) -> bool:
    """Whether oneDNN multiplies on this device in this precision, and memory allows a copy."""
    weight = layers[0].weight
    size = sum(m.weight.numel() * m.weight.itemsize for m in layers)
    room = MEMORY_SHARE * psutil.virtual_memory().available
    return dense.can_pack(weight.device, weight.dtype) and bool(size < room)
