"""Adapters from a folder: beside a model's frozen weights, or added to them."""

from collections import Counter
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
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
    return adapted.eval()


def merged(model: PreTrainedModel, folder: Path, label: str) -> PreTrainedModel:
    """The model with the adapter in `folder` added to its weights.

    Raises:
        ModelError: the adapter is not whole, or does not fit the model.
    """
    adapted = _beside(model, folder, label)
    _untie(adapted)
    whole: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return whole


def _untie(adapted: PeftModel) -> None:
    """Give each adapted layer a weight of its own, so that nothing else gets what is added to it.

    The output head of many models holds the very weight of the embedding.
    """
    held = Counter(id(p) for m in adapted.modules() for p in m._parameters.values())
    for layer in adapted.modules():
        if isinstance(layer, BaseTunerLayer):
            base = layer.get_base_layer()
            weight = getattr(base, "weight", None)
            if isinstance(weight, torch.nn.Parameter) and held[id(weight)] > 1:
                base.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)


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
