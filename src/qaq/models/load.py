"""Loading a configured model and its tokenizer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import logging as transformers_logging
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.host.errors import ModelError, UserError
from qaq.host.hardware import resolve_device, resolve_dtype
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.identity import EMBEDDED, is_folder, template_text

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def location(config: ModelConfig) -> dict[str, Any]:
    """Arguments for `from_pretrained`: where the model lies. Converts an embedded one if needed."""
    if config.id.startswith(EMBEDDED):
        folder = embedded.ensure(config.id.removeprefix(EMBEDDED))
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    if is_folder(config):
        folder = Path(config.id).expanduser()
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    return {
        "pretrained_model_name_or_path": config.id,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
    }


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the configured chat template in place.

    Raises:
        ModelError: the files cannot be read as a tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(**location(config))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config.name}: cannot load a tokenizer from {config.id}: {error}"
        ) from error
    template = template_text(config)
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class Positions:
    """How many positions a model was trained on. Where they are `learned` there are no others."""

    count: int
    learned: bool


def load_positions(config: ModelConfig) -> Positions | None:
    """The positions that the model's own config names; None where it names none.

    Raises:
        ModelError: the files hold no config that Transformers knows.
    """
    try:
        found = AutoConfig.from_pretrained(**location(config)).get_text_config()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{config.name}: cannot load a config from {config.id}: {error}"
        ) from error
    count = getattr(found, "max_position_embeddings", None)  # the field's name in every family
    learned = getattr(found, "rope_parameters", None) is None
    return None if count is None else Positions(int(count), learned)


def torch_device(device: str) -> torch.device:
    """The device of this process: `cuda:LOCAL_RANK` under `accelerate launch`.

    Raises:
        UserError: a GPU is asked for that this PyTorch cannot use.
    """
    if resolve_device(device) == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "is built for processors only" if torch.version.cuda is None else "finds no GPU"
        raise UserError(
            f"runtime.device={device}: the installed PyTorch ({torch.__version__}) {why}; set "
            "runtime.device=cpu, or install the build for this machine (qaq doctor)"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def load_model(
    config: ModelConfig,
    device: str = "auto",
    dtype: str | None = None,
    adapter: Path | None = None,
) -> PreTrainedModel:
    """The model in evaluation mode on `device`, in `dtype` (default: the configured one).

    With the folder of a PEFT `adapter` its layers stand beside the frozen weights, unmerged, since
    merging changes numbers.

    Raises:
        ModelError: the files cannot be read as a causal language model.
    """
    precision = getattr(torch, resolve_dtype(dtype or config.dtype, device))
    try:
        model = AutoModelForCausalLM.from_pretrained(**location(config), dtype=precision)
    except (OSError, ValueError) as error:
        raise ModelError(f"{config.name}: cannot load a model from {config.id}: {error}") from error
    model = model.to(torch_device(device))
    if adapter is not None:  # after the move, which what it prepares would not follow
        from qaq.models.forward.adapters import load_adapter

        model = load_adapter(model, adapter)
    return model.eval()
