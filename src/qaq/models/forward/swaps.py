"""Modules of a loaded model with a faster forward in place of their own, for inference.

A swapped module stays where it is and keeps its weights; only its `forward` is another while the
swaps are in force. Which module is what is not read from its name but tried: a norm is one whose
result is that of the formula, a gated MLP one whose result is `down(act(gate(x)) * up(x))`. What
fits nothing keeps its own forward.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qaq.models.forward import dense, lora
from qaq.models.forward.dense import ACTIVATIONS, Dense
from qaq.models.forward.passes import normalised

MEMORY_SHARE = 0.5  # of what is free, for a second copy of the weights
EPSILONS = ("eps", "variance_epsilon", "epsilon")
GATED = [("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")]  # names in use
ACTS = ("act_fn", "act", "activation_fn")

Forward = Callable[..., Any]


@contextmanager
def replaced(forwards: Mapping[nn.Module, Forward]) -> Iterator[None]:
    """Modules with other forwards in place of theirs."""
    before = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module, own in before.items():
            vars(module).pop("forward") if own is None else vars(module).update(forward=own)


class Swaps:
    """The faster forwards of one model.

    Attributes:
        repacked: weights are in oneDNN's own layout.
        wanted: how many tokens a pass has, and which of them anybody asks for; None for all. The
            MLP of the last layer computes no others, and gives 0 in their place.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        repack: bool,
        release: bool = False,
        rows: int | None = None,
    ):
        """Find what can be swapped.

        Args:
            repack: Linear weights in the layout of oneDNN, where machine and memory allow it.
            release: free the model's own copy of what was repacked.
            rows: rows of a call that the layout is chosen for; None leaves that to oneDNN.
        """
        self.wanted: tuple[int, Tensor] | None = None
        self.linears: dict[nn.Linear, Dense] = {}
        self.forwards: dict[nn.Module, Forward] = {}
        self.repacked = repack and dense.can_pack(model.device, model.dtype)
        if self.repacked and not release:
            size = sum(p.numel() * p.itemsize for p in model.parameters())
            self.repacked = size < MEMORY_SHARE * psutil.virtual_memory().available
        with torch.inference_mode():
            gated = {m: parts for m in model.modules() if (parts := _gated(m))}
            for module in list(model.modules()):
                norm = _norm(module)
                if norm is not None:
                    self.forwards[module] = norm
                elif _is_linear(module):
                    self._linear(model, module, release and self.repacked, rows)
        last = _last_layer(model)
        for module, (gate, up, down, act) in gated.items():
            is_last = last is not None and module in set(last.children())
            made = self._dense(gate), self._dense(up), self._dense(down)
            self.forwards[module] = self._gated(*made, act, is_last)

    def _linear(self, model: nn.Module, module: Any, release: bool, rows: int | None) -> None:
        layer = module if type(module) is nn.Linear else module.base_layer
        if layer not in self.linears:
            shared = release and _holders(model, layer.weight) > 1
            made = dense.dense(layer, self.repacked, release and not shared, rows)
            self.linears[layer] = made
        if module is not layer:
            self.forwards[module] = replace(self.linears[layer], adapter=lora.factors(module))
        elif self.repacked:
            self.forwards[module] = self.linears[layer]

    def _dense(self, module: Any) -> Dense:
        made = self.forwards.get(module)
        return made if isinstance(made, Dense) else self.linears[module]

    def _gated(self, gate: Dense, up: Dense, down: Dense, act: str, last: bool) -> Forward:
        def forward(x: Tensor) -> Tensor:
            return down(up.times(x, gate.activated(x, act)))

        def some(x: Tensor) -> Tensor:
            flat = x.reshape(-1, x.shape[-1])
            if self.wanted is None or len(flat) != self.wanted[0]:
                return forward(x)
            index = self.wanted[1]
            out = flat.new_zeros(len(flat), down.out_features)
            out[index] = forward(flat[index])
            return out.view(*x.shape[:-1], -1)

        return some if last else forward

    def __call__(self) -> AbstractContextManager[None]:
        """The faster forwards in force."""
        return replaced(self.forwards)

    def undo(self) -> None:
        """Give the model back what was freed."""
        for layer, made in self.linears.items():
            dense.restore(layer, made)


def _holders(model: nn.Module, weight: Tensor) -> int:
    """How many modules hold this very weight."""
    return sum(any(p is weight for p in m._parameters.values()) for m in model.modules())


def _last_layer(model: PreTrainedModel) -> nn.Module | None:
    layers = getattr(model.get_decoder(), "layers", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None


def _norm(module: nn.Module) -> Forward | None:
    """The forward of a module that is an RMS norm, by what it computes in float32."""
    weight = getattr(module, "weight", None)
    eps = next((float(getattr(module, e)) for e in EPSILONS if hasattr(module, e)), None)
    parameters = [name for name, _ in module.named_parameters()]
    if eps is None or parameters != ["weight"] or weight is None or weight.dim() != 1:
        return None
    if len(inspect.signature(module.forward).parameters) != 1:  # a gate, for example
        return None
    exact = weight.detach().float()
    x = _numbers(4, len(exact), exact.device) * torch.tensor([1.0, 1.0, 1e-3, 1e-3])[:, None].to(
        exact.device
    )
    try:
        own = copy.deepcopy(module).float()(x)
    except Exception:  # whatever it is, it is no norm
        return None
    scaled = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
    for factor in (exact, 1 + exact):
        if torch.is_tensor(own) and own.shape == x.shape and _close(own, scaled * factor):
            narrow = factor.to(weight.dtype)
            # on CUDA devices a fused kernel takes a weight of the precision of x
            fused = weight.device.type == "cuda" and bool((narrow.float() == factor).all())
            kept = narrow if fused else factor
            return lambda x: normalised(x, kept, eps)
    return None


def _gated(module: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module, str] | None:
    """Gate, up, down and the activation of a module that is a gated MLP, by what it computes."""
    for names in GATED:
        parts: list[Any] = [getattr(module, name, None) for name in names]
        act = next((getattr(module, name) for name in ACTS if hasattr(module, name)), None)
        if act is None or not all(isinstance(p, nn.Module) and _is_linear(p) for p in parts):
            continue
        gate, up, down = parts
        weight = next(gate.parameters())
        x = _numbers(3, gate.in_features, weight.device).to(weight.dtype)
        wide = _numbers(5, 64, weight.device)
        try:
            own, ours = module(x), down(act(gate(x)) * up(x))
            name = next(n for n, (_, _, f) in ACTIVATIONS.items() if _close(act(wide), f(wide)))
        except Exception:  # it takes something else, or its activation is not one of these
            continue
        if torch.is_tensor(own) and own.shape == ours.shape and torch.equal(own, ours):
            return gate, up, down, name
    return None


def _is_linear(module: nn.Module) -> bool:
    return type(module) is nn.Linear or lora.is_plain(module)


def _numbers(rows: int, width: int, device: torch.device) -> Tensor:
    """Numbers around 0 that are the same at each call."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0)).to(device)


def _close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-5, atol=1e-7)
