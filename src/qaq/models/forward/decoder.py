"""The forward pass of a Llama-like decoder over a pack, written out for speed.

The weights and the tables of the rotary embedding are the model's own; what is saved is padding,
beginnings that sequences share, passes over memory, and one layout of the weights per
multiplication (see `qaq.models.forward.dense`). It knows the layer of Llama with the variations of
its family: biases (Qwen 2), normalised queries and keys (Qwen 3), windows and norms behind each
block (Gemma 3). Whoever uses it compares it with the model's own forward first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from qaq.host.errors import ModelError
from qaq.models.forward.attention import attend, attend_varlen, layout, lengths
from qaq.models.forward.dense import ACTIVATIONS, Dense, dense
from qaq.models.forward.packing import Pack, pack
from qaq.models.forward.passes import Rotation, normalised

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text")
ROPE_TYPES = {"default", "linear", "llama3", "yarn"}  # others look at the length of the batch
VARLEN_CAPABILITY = (8, 0)  # of the CUDA device, for FlashAttention's kernel

Attention = Callable[[Tensor, Tensor, Tensor, Rotation, float, int | None], Tensor]


@dataclass(frozen=True)
class Norm:
    """A norm's weight, in float32 unless a device's fused kernel gives the same with less."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """The normalised x, in its own precision."""
        return normalised(x, self.weight, self.eps)


@dataclass(frozen=True)
class Layer:
    """One decoder layer; a norm that the family does not have is None."""

    before_attention: Norm
    q: Dense
    k: Dense
    v: Dense
    q_norm: Norm | None
    k_norm: Norm | None
    o: Dense
    after_attention: Norm | None
    before_mlp: Norm
    gate: Dense
    up: Dense
    down: Dense
    after_mlp: Norm | None
    scaling: float
    window: int | None
    kind: str | None  # of its rotary embedding, where a model has several


class PackedDecoder:
    """Hidden states of a pack, from the weights of a Hugging Face model."""

    def __init__(self, model: PreTrainedModel, repack: bool, release: bool = False):
        """Take the weights over.

        Args:
            model: in evaluation mode.
            repack: lay Linear weights out anew for oneDNN (see `can_pack`).
            release: free the model's own copy of what was laid out anew.

        Raises:
            ModelError: the architecture is not one that this class knows. The model is as before.
        """
        decoder: Any = model.get_decoder()
        self.config = model.config.get_text_config()
        _check_family(decoder, self.config)
        self.dtype, self.device = model.dtype, model.device
        self.embed, self.rotary = decoder.embed_tokens, decoder.rotary_emb
        self.activation = getattr(self.config, "hidden_activation", None) or self.config.hidden_act
        self.width = decoder.layers[0].self_attn.head_dim
        self.repack = repack
        self.layers = [self._layer(layer, release) for layer in decoder.layers]
        self.norm = self._norm(decoder.norm)
        self.key_heads = int(self.config.num_key_value_heads)
        self.varlen = _has_varlen(self.device, self.dtype, self.width)

    def __call__(self, pack: Pack, wanted: Tensor | None = None) -> Tensor:
        """The states that the output head is applied to.

        Args:
            pack: the sequences.
            wanted: [n] tokens whose states are asked for; None for all. The others are not followed
                through the last layer.

        Returns:
            [n or tokens, hidden].
        """
        x = self.embed(torch.tensor(pack.ids, device=self.device)[None])[0]
        attend = self._attention(pack)
        rotations = self._rotations(pack)
        for layer in self.layers:
            q, k, v = self._queries_keys_values(layer, x)
            mixed = attend(q, k, v, rotations[layer.kind], layer.scaling, layer.window)
            if wanted is not None and layer is self.layers[-1]:
                mixed, x = mixed.index_select(0, wanted), x.index_select(0, wanted)
            x = _added(layer.o, mixed, layer.after_attention, x)
            y = layer.before_mlp(x)
            y = layer.up.times(y, layer.gate.activated(y, self.activation))
            x = _added(layer.down, y, layer.after_mlp, x)
        return self.norm(x)

    def _queries_keys_values(self, layer: Layer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = layer.before_attention(x)
        q, k, v = (linear(y).view(len(x), -1, self.width) for linear in (layer.q, layer.k, layer.v))
        q = layer.q_norm(q) if layer.q_norm else q
        k = layer.k_norm(k) if layer.k_norm else k
        return q, k, v

    def _attention(self, pack: Pack) -> Attention:
        """FlashAttention's kernel where there is one, else our own."""
        if self.varlen:
            by_length = lengths(pack, self.device)
            return lambda q, k, v, at, *how: attend_varlen(q, k, v, at, by_length, *how)
        blocks = layout(pack, self.device, self.key_heads)
        return lambda q, k, v, at, *how: attend(q, k, v, at, blocks, *how)

    def _rotations(self, pack: Pack) -> dict[str | None, Rotation]:
        """Cosines and sines by kind; float32 where attention is our own."""
        precision = self.dtype if self.varlen else torch.float32
        like = torch.empty(1, dtype=precision, device=self.device)
        positions = torch.tensor(pack.positions, device=self.device)[None]
        found: dict[str | None, Rotation] = {}
        for kind in {layer.kind for layer in self.layers}:
            more = {} if kind is None else {"layer_type": kind}
            cos, sin = self.rotary(like, positions, **more)
            found[kind] = cos[0], sin[0]
        return found

    def _layer(self, layer: Any, release: bool) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        linear = partial(_linear, repack=self.repack, release=release)
        gemma = hasattr(layer, "pre_feedforward_layernorm")
        norms = (
            (layer.post_attention_layernorm, layer.pre_feedforward_layernorm)
            if gemma
            else (None, layer.post_attention_layernorm)
        )
        return Layer(
            before_attention=self._norm(layer.input_layernorm),
            q=linear(attention.q_proj),
            k=linear(attention.k_proj),
            v=linear(attention.v_proj),
            q_norm=self._maybe(getattr(attention, "q_norm", None)),
            k_norm=self._maybe(getattr(attention, "k_norm", None)),
            o=linear(attention.o_proj),
            after_attention=self._maybe(norms[0]),
            before_mlp=self._norm(norms[1]),
            gate=linear(mlp.gate_proj),
            up=linear(mlp.up_proj),
            down=linear(mlp.down_proj),
            after_mlp=self._maybe(layer.post_feedforward_layernorm if gemma else None),
            scaling=float(attention.scaling),
            window=getattr(attention, "sliding_window", None),
            kind=attention.layer_type if isinstance(self.rotary.rope_type, dict) else None,
        )

    def _maybe(self, module: Any) -> Norm | None:
        return None if module is None else self._norm(module)

    def _norm(self, module: Any) -> Norm:
        eps = module.eps if hasattr(module, "eps") else module.variance_epsilon
        weight = module.weight.detach().float()
        weight = 1 + weight if type(module).__name__.startswith("Gemma") else weight
        exact = weight.to(self.dtype)
        fused = self.device.type == "cuda" and bool((exact.float() == weight).all())
        return Norm(exact if fused else weight, float(eps))


def _linear(layer: Any, repack: bool, release: bool) -> Dense:
    """A Linear layer, with its adapter if it has one."""
    if not _has_adapter(layer):
        return dense(layer, repack, release)
    from qaq.models.forward.adapters import factors

    return replace(dense(layer.base_layer, repack, release), adapter=factors(layer))


def _has_adapter(layer: nn.Module) -> bool:
    """Whether PEFT put something around the layer; PEFT itself takes two seconds to import."""
    return hasattr(layer, "base_layer")


def _is_known(layer: nn.Module) -> bool:
    """Whether `_linear` knows this kind of Linear layer, or of adapter around one."""
    if not _has_adapter(layer):
        return type(layer) is nn.Linear
    from qaq.models.forward.adapters import is_plain

    return is_plain(layer)


def _added(linear: Dense, y: Tensor, norm: Norm | None, x: Tensor) -> Tensor:
    """x + norm(linear(y))."""
    return linear.plus(y, x) if norm is None else norm(linear(y)).add_(x)


def _check_family(decoder: Any, config: Any) -> None:
    """Refuse what this file was not written for."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise ModelError(f"{kind} is none of {', '.join(FAMILIES)}")
    types = decoder.rotary_emb.rope_type
    types = set(types.values()) if isinstance(types, dict) else {types}
    if types - ROPE_TYPES:
        raise ModelError(f"rotary embedding of type {', '.join(types - ROPE_TYPES)}")
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in ACTIVATIONS:
        raise ModelError(f"activation {activation}")
    if getattr(config, "attn_logit_softcapping", None):
        raise ModelError("soft-capped attention")
    if getattr(config, "use_bidirectional_attention", None):
        raise ModelError("attention in both directions")
    for module in decoder.layers.modules():
        if (isinstance(module, nn.Linear) or _has_adapter(module)) and not _is_known(module):
            raise ModelError(f"{type(module).__name__} layers")


def _has_varlen(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether this device, precision and width have FlashAttention's kernel."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type != "cuda" or not half:
        return False
    if torch.cuda.get_device_capability(device) < VARLEN_CAPABILITY:
        return False
    x = torch.zeros(2, 1, width, dtype=dtype, device=device)
    still = torch.ones(2, width, dtype=dtype, device=device), x[:, 0]
    try:
        attend_varlen(x, x, x, still, lengths(pack([(0, 1)]), device), 1.0, None)
    # built without it, heads that it does not know, or a kernel without shared keys
    except (RuntimeError, ImportError, TypeError):
        return False
    return True
