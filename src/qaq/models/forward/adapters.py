"""An adapter beside the frozen weights, unmerged (merging changes numbers), without PEFT's detours.

PEFT's forward of a LoRA layer costs as much as the layer itself when a batch holds one token per
row: checks, casts to float32 and back, a dropout that does nothing, a dozen small operations. In
its place plain LoRA layers get three operations, in the model's precision, as in fine-tuning.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor
from transformers import PreTrainedModel


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter in `folder` inside, for inference where the model is now."""
    adapted: PreTrainedModel = PeftModel.from_pretrained(model, str(folder)).get_base_model()
    for layer in adapted.modules():
        if is_plain(layer):
            layer.forward = lean_forward(layer)
    return adapted.eval()


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether the layer is a Linear with one LoRA adapter and nothing else; others stay as is."""
    return (
        isinstance(layer, Linear)
        and type(layer.base_layer) is torch.nn.Linear
        and len(layer.active_adapters) == 1
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
    )


@torch.no_grad()
def factors(layer: Linear) -> tuple[Tensor, Tensor]:
    """A [in, rank] and scaled B [rank, out] of a plain layer, in the model's precision."""
    (name,) = layer.active_adapters
    dtype = layer.base_layer.weight.dtype
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight * layer.scaling[name]
    return down.detach().to(dtype).T, up.detach().to(dtype).T


def lean_forward(layer: Linear) -> Callable[[Tensor], Tensor]:
    """`x @ W.T + bias + scaling * (x @ A.T) @ B.T`, with A and scaled B prepared once."""
    base, (down, up) = layer.base_layer, factors(layer)

    def forward(x: Tensor) -> Tensor:
        result: Tensor = base(x)
        inner = x.reshape(-1, x.shape[-1]) @ down
        result.view(-1, result.shape[-1]).addmm_(inner, up)
        return result

    return forward
