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
from transformers import PreTrainedModel


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter in `folder` inside, for inference only."""
    adapted: PreTrainedModel = PeftModel.from_pretrained(model, str(folder)).get_base_model()
    for layer in adapted.modules():
        if isinstance(layer, Linear) and is_plain(layer):
            layer.forward = lean_forward(layer)
    return adapted.eval()


def is_plain(layer: Linear) -> bool:
    """Whether the layer is a Linear with one LoRA adapter and nothing else; others stay as is."""
    return (
        type(layer.base_layer) is torch.nn.Linear
        and len(layer.active_adapters) == 1
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
    )


@torch.no_grad()
def lean_forward(layer: Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    """`x @ W.T + bias + scaling * (x @ A.T) @ B.T`, with A and scaled B prepared once."""
    base, (name,) = layer.base_layer, layer.active_adapters
    down = layer.lora_A[name].weight.to(base.weight.dtype).T
    up = (layer.lora_B[name].weight * layer.scaling[name]).to(base.weight.dtype).T

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = base(x)
        inner = x.reshape(-1, x.shape[-1]) @ down
        result.view(-1, result.shape[-1]).addmm_(inner, up)
        return result

    return forward
