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

from qaq.host.errors import ModelError
from qaq.models.check import refuse_misfit
from qaq.models.weights import read_adapter


def load_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter in `folder` inside, for inference where the model is now.

    Raises:
        ModelError: the adapter is not whole, or does not fit the model.
    """
    adapted: PreTrainedModel = _beside(model, folder, "fine-tuned model").get_base_model()
    for layer in adapted.modules():
        if is_plain(layer):
            layer.forward = lean_forward(layer)
    return adapted.eval()


def merged(model: PreTrainedModel, folder: Path, label: str) -> PreTrainedModel:
    """The model with the adapter in `folder` added to its weights.

    Raises:
        ModelError: the adapter is not whole, or does not fit the model.
    """
    whole: PreTrainedModel = _beside(model, folder, label).merge_and_unload(safe_merge=True)
    return whole


def _beside(model: PreTrainedModel, folder: Path, label: str) -> PeftModel:
    read_adapter(folder, label)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        what = " ".join(str(error).split())[:600]
        raise ModelError(
            f"{label}: the adapter in {folder} does not fit the model: {what}"
        ) from error
    refuse_misfit(adapted, folder, label)
    return adapted


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
