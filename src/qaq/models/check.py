"""A model is used only if all of it came from its files: weights that do not load are random.

Transformers fills a parameter that the files lack with noise and ignores a tensor that the
architecture has no place for; PEFT does likewise with an adapter. Both only warn, and a score of
such a model looks like any other. Everything that loads weights passes through here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from qaq.host.errors import ModelError
from qaq.host.terminal import show
from qaq.models.weights import ADAPTER, read_header, several

# Parts of an adapter that was never merged into the weights beside it.
UNMERGED = re.compile(
    r"(^|\.)(base_layer|lora_\w+|modules_to_save|original_module|ia3_\w+|hada_\w+)\."
)
# What older versions saved and newer ones compute: masks, rotations, positions; scales of a cache.
COMPUTED = re.compile(
    r"(^|\.)(inv_freq|(cos|sin)_cached|masked_bias|causal_mask|position_ids|_extra_state|freqs_cis"
    r"|attn\.bias|attention\.bias|[kv]_scale)$"
)
# Parts beside the language model: further heads, and what reads images and sound.
BESIDE = re.compile(
    r"(^|\.)(mtp\w*|nextn\w*|medusa\w*|eagle\w*|vision\w*|visual|image\w*|audio\w*|speech\w*"
    r"|multi_modal\w*|mm_\w+|embed_vision|embed_audio|talker|token2wav|code2wav)\."
)
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model.")


def refuse_unloaded(
    model: PreTrainedModel, info: Mapping[str, Any], held: Iterable[str], label: str
) -> None:
    """Refuse a model of which a part did not come from its files.

    Args:
        model: as Transformers loaded it, in its final precision.
        info: its loading report (`output_loading_info=True`, mismatched sizes ignored).
        held: the names of all tensors in the files, where known.

    Raises:
        ModelError: parameters are missing or of another shape, tensors that belong to the model
            have no place in it, or a weight is not a finite number.
    """
    missing = sorted(info["missing_keys"])
    unused = sorted({*info["unexpected_keys"], *_ignored(model, held)})
    lost = [name for name in unused if _matters(model, name)]
    shapes = [
        f"{name} ({list(found)} in the files, {list(expected)} in config.json's architecture)"
        for name, found, expected in sorted(info["mismatched_keys"])
    ]
    faults = []
    if missing:
        faults.append(
            f"{len(missing)} of its parameters are not in the files and would be random: "
            f"{several(missing)}"
        )
    if shapes:
        faults.append(f"{len(shapes)} have another shape: {several(shapes)}")
    if lost:
        faults.append(
            f"{len(lost)} tensors of the files have no place in it and would be left out: "
            f"{several(lost)}"
        )
    if faults:
        raise ModelError(
            f"{label}: the weights do not fit {type(model).__name__}, which config.json names: "
            f"{'; '.join(faults)}. {_advice(lost)}"
        )
    if unused:
        names = ", ".join(unused)
        show(f"{label}: {len(unused)} tensors of the files are not used: {names}", error=True)
    refuse_not_finite(model.named_parameters(), label)


def refuse_not_finite(weights: Iterable[tuple[str, Tensor]], label: str) -> None:
    """Refuse weights that are NaN or infinite, as they are loaded.

    Raises:
        ModelError: with the names of such tensors.
    """
    bad = [f"{name} ({w.dtype})".replace("torch.", "") for name, w in weights if not _is_finite(w)]
    if bad:
        raise ModelError(
            f"{label}: {len(bad)} tensors hold NaN or infinite values: {several(bad)}. The model "
            "is damaged, or its numbers do not fit this precision (dtype=float32 holds them all)"
        )


def _is_finite(weight: Tensor) -> bool:
    """Whether all numbers are finite; one pass, since the extremes carry NaN on."""
    if not weight.is_floating_point() or weight.element_size() < 2 or not weight.numel():
        return True  # packed numbers of a quantised model; parameters that lie in another process
    return bool(torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all())


def _ignored(model: PreTrainedModel, held: Iterable[str]) -> list[str]:
    """Tensors of the files that the architecture itself says it does not use."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), r"rotary_emb\.inv_freq"]
    declared = re.compile("|".join(f"({pattern})" for pattern in patterns))
    own = model.state_dict().keys()
    return [name for name in held if name not in own and declared.search(name)]


def _matters(model: PreTrainedModel, name: str) -> bool:
    """Whether a tensor without a place belongs to what the model computes.

    A tensor inside the decoder (a bias, a norm, a further layer) was part of the function that was
    trained, and so is an adapter; one beside it (a value head, a vision tower) was not.
    """
    if UNMERGED.search(f"{name}."):
        return True
    declared = model._keys_to_ignore_on_load_unexpected or ()
    if COMPUTED.search(name) or BESIDE.search(name) or any(re.search(p, name) for p in declared):
        return False
    if layer := re.search(r"(^|\.)layers\.(\d+)\.", name):
        config = model.config.get_text_config()
        further = getattr(config, "num_nextn_predict_layers", None) or 0
        beyond = int(layer[2]) - int(config.num_hidden_layers)
        if 0 <= beyond < further:  # layers that guess the next but one token, behind the last
            return False
    bare = name.removeprefix(next((w for w in WRAPPERS if name.startswith(w)), ""))
    inside = [child for part in (model, model.base_model) for child, _ in part.named_children()]
    return bare.split(".", maxsplit=1)[0] in inside


def _advice(lost: list[str]) -> str:
    """What to do, by the names of what was left over."""
    wrapper = next((w for w in WRAPPERS if lost and all(n.startswith(w) for n in lost)), None)
    if any(UNMERGED.search(f"{name}.") for name in lost):
        return (
            "The folder holds an adapter that was not merged: call merge_and_unload and then "
            "save_pretrained, or give the adapter's own folder as id"
        )
    if wrapper:
        return (
            f"Their names begin with {wrapper!r}, as a wrapped model saves them: save the model "
            "inside the wrapper with save_pretrained"
        )
    return "Give a folder that save_pretrained wrote, with the config.json of these weights"


def refuse_misfit(adapted: PeftModel, folder: Path, label: str) -> None:
    """Refuse an adapter of which a part found no place, or that lacks a part.

    Raises:
        ModelError: with the names of the tensors.
    """
    kind = adapted.active_peft_config
    if kind.is_prompt_learning:
        raise ModelError(
            f"{label}: the adapter in {folder} is of type {kind.peft_type.value}, which adds "
            "tokens and not weights; qaq uses adapters of weights, such as LoRA"
        )
    held = read_header(folder / ADAPTER, label).keys()
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    missing = sorted(state.keys() - held)
    unused = sorted(held - state.keys() - adapted.state_dict().keys())
    faults = [f"it has no {several(missing)}"] if missing else []
    faults += [f"the model has no place for {several(unused)}"] if unused else []
    if faults:
        raise ModelError(
            f"{label}: the adapter in {folder} does not fit the model: {'; '.join(faults)} "
            f"({len(missing)} missing, {len(unused)} left over). It was made for another base "
            "model or is incomplete"
        )
    refuse_not_finite(state.items(), f"{label}, adapter {folder}")
