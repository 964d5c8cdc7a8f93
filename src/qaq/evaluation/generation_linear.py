"""Linear layers on processors with weights laid out for oneDNN once, instead of at every call.

The results are those of the layer (in bfloat16 bit for bit, in float32 but for the order of sums),
two to three times sooner for the few rows of a decoding step; in float32 also because oneDNN's
kernels are used, which suit processors that MKL does not. These are the operations that PyTorch's
own compiler uses for frozen weights; where they are missing, the layers stay as they are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

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
            vars(layer)["forward"] = packed_forward(layer)
        yield True
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def can_pack(layers: list[nn.Linear]) -> bool:
    """Whether oneDNN multiplies on this device in this precision, and memory allows a copy."""
    weight = layers[0].weight
    mkldnn: Any = torch.backends.mkldnn
    if weight.device.type != "cpu" or not mkldnn.is_available():
        return False
    if weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    size = sum(m.weight.numel() * m.weight.itemsize for m in layers)
    return bool(size < MEMORY_SHARE * psutil.virtual_memory().available)


@torch.no_grad()
def packed_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """`layer.forward` with the weights packed; later changes of the weights are not seen."""
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    bias = layer.bias

    def forward(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    return forward
