"""Linear layers whose weights are repacked once, and whose result is worked on before it is stored.

On x86 processors oneDNN multiplies about a fifth faster in bfloat16, and more than twice as fast
as the default library in float32 on some of them, when the weights are in its own blocked layout.
It can also apply an activation or a product while the result is still in registers. These
are the operators that PyTorch's compiler calls; elsewhere the plain expressions are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qaq.host.errors import ModelError

# Hugging Face's name of an activation: oneDNN's name, its variant, and the function itself
ACTIVATIONS: dict[str, tuple[str, str, Callable[[Tensor], Tensor]]] = {
    "silu": ("swish", "", functional.silu),
    "gelu": ("gelu", "none", functional.gelu),
    "gelu_pytorch_tanh": ("gelu", "tanh", lambda x: functional.gelu(x, approximate="tanh")),
}


@dataclass(frozen=True)
class Dense:
    """`x @ weight.T + bias`, and an adapter's `(x @ down) @ up` if there is one.

    `packed` says that the weight is in oneDNN's layout. An adapter is added before whatever else is
    done to the product, so nothing can be fused into that then.
    """

    weight: Tensor
    bias: Tensor | None
    packed: bool
    adapter: tuple[Tensor, Tensor] | None = None  # down [in, rank], up [rank, out]

    @property
    def out_features(self) -> int:
        """Numbers in a row of the result."""
        return self.weight.shape[0]

    @property
    def fuses(self) -> bool:
        """Whether oneDNN can work on the result before it is stored."""
        return self.packed and self.adapter is None

    def __call__(self, x: Tensor) -> Tensor:
        """The result [..., out] for x [..., in]."""
        y = (
            _pointwise(x, self.weight, self.bias, "none", [], "")
            if self.packed
            else functional.linear(x, self.weight, self.bias)
        )
        if self.adapter is None:
            return y
        down, up = self.adapter
        inner = x.reshape(-1, x.shape[-1]) @ down
        y.view(-1, y.shape[-1]).addmm_(inner, up)
        return y

    def activated(self, x: Tensor, name: str) -> Tensor:
        """The result under an activation of `ACTIVATIONS`."""
        kind, variant, function = ACTIVATIONS[name]
        if self.fuses:
            return _pointwise(x, self.weight, self.bias, kind, [], variant)
        return function(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The result, multiplied element by element with `other`."""
        if self.fuses:
            return _binary(x, other, self.weight, self.bias, "mul")
        return self(x).mul_(other)


def dense(layer: nn.Module, pack: bool, release: bool = False, rows: int | None = None) -> Dense:
    """A Linear layer's weights; later changes of the layer's own are not seen.

    Args:
        layer: in evaluation mode.
        pack: lay the weights out for oneDNN.
        release: free the layer's own weights then.
        rows: rows of a call that the layout is chosen for; None leaves that to oneDNN.

    Raises:
        ModelError: the layer is not a plain Linear one.
    """
    if type(layer) is not nn.Linear:
        raise ModelError(f"{type(layer).__name__} is not a plain Linear layer")
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    if not pack:
        return Dense(weight, bias, False)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    if release:
        layer.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
    return Dense(packed, bias, True)


def restore(layer: nn.Linear, made: Dense) -> None:
    """Give a layer whose weight was freed its weight back, to the bit."""
    if layer.weight.numel() == 0 and made.packed:
        with torch.inference_mode(False), torch.no_grad():  # it may be trained later
            layer.weight = nn.Parameter(made.weight.to_dense(), requires_grad=False)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN offers its layout for this device and precision."""
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not has_onednn:
        return False
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _pointwise(x: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    if x.numel() == 0:  # an expert that no token was sent to
        return x.new_empty(*x.shape[:-1], weight.shape[0])
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, *arguments)
    return out


def _binary(x: Tensor, other: Tensor, weight: Tensor, *arguments: Any) -> Tensor:
    if x.numel() == 0:
        return torch.empty_like(other)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, *arguments)
    return out
