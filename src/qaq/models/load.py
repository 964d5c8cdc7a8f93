"""Loading a configured model and its tokenizer, each checked before it is used."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import logging as transformers_logging
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.host.errors import ModelError, UserError
from qaq.host.hardware import resolve_device, resolve_dtype
from qaq.host.terminal import show
from qaq.models import rendering, tokens
from qaq.models.check import refuse_unloaded
from qaq.models.config import ModelConfig
from qaq.models.forward.proven import label
from qaq.models.identity import folder_of, identity, parts, template_text
from qaq.models.weights import tensors
from qaq.store.cache import remembered_sha256

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


def location(config: ModelConfig) -> dict[str, Any]:
    """Arguments for `from_pretrained`: the folder of the weights, which are fetched or converted
    first where that is needed.

    Of an adapter's folder it is the place of the base model. `trust_remote_code` is always set:
    Transformers would ask at the terminal otherwise.
    """
    base, adapter = parts(config)
    return location(base) if adapter else _arguments(base)


def _arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "pretrained_model_name_or_path": str(folder_of(config)),
        "local_files_only": True,
        "trust_remote_code": config.trust_remote_code,
    }


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the configured chat template in place.

    Raises:
        ModelError: the files cannot be read as a tokenizer, the model has no embedding for some of
            its tokens, or code does not survive it.
    """
    _, adapter = parts(config)
    where = location(config)
    if adapter and (adapter / "tokenizer_config.json").is_file():
        where |= {"pretrained_model_name_or_path": str(adapter), "local_files_only": True}
    tokenizer: PreTrainedTokenizerBase = _read(AutoTokenizer, "a tokenizer", config, **where)
    template = template_text(config)
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _steady(tokenizer, config)
    tokens.refuse_unknown(tokenizer, load_config(config).vocab_size, config.label)
    tokens.refuse_lossy(tokenizer, config.label)
    return tokenizer


def _steady(tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    """Let the chat template see one date only, and say so where it writes it."""
    rendering.pin()
    try:
        text = tokenizer.get_chat_template()
    except ValueError:  # there is none; those who need one say so
        return
    options = tokenizer.special_tokens_map | config.template_kwargs
    if rendering.reads_the_clock(text, options, config.label):
        show(
            f"{config.label}: the chat template writes the date; it is always rendered as of "
            f"{rendering.PINNED:%d %B %Y}",
            error=True,
        )


def load_config(config: ModelConfig) -> Any:
    """The model's own configuration, of its language part.

    Raises:
        ModelError: the files hold no config that Transformers knows.
    """
    return _read(AutoConfig, "a config", config, **location(config)).get_text_config()


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
    found = load_config(config)
    count = getattr(found, "max_position_embeddings", None)  # the field's name in every family
    learned = getattr(found, "rope_parameters", None) is None
    return None if count is None else Positions(int(count), learned)


def fitting(config: ModelConfig, tokens: int, field: str) -> int:
    """The longest row: as many tokens, or what positions there are where they are learned.

    Raises:
        ModelError: the files hold no config that Transformers knows.
    """
    positions = load_positions(config)
    if positions is None or not positions.learned or positions.count >= tokens:
        return tokens
    show(
        f"{config.label} has {positions.count} positions, fewer than {field}={tokens}: rows are "
        "cut there",
        error=True,
    )
    return positions.count


def torch_device(device: str, rank: int | None = None) -> torch.device:
    """The device of a process of this host, by default of this one: its `LOCAL_RANK`, else 0.

    Raises:
        UserError: a GPU is asked for that this PyTorch cannot use, or that is not there.
    """
    if resolve_device(device) == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "is built for processors only" if torch.version.cuda is None else "finds no GPU"
        raise UserError(
            f"runtime.device={device}: the installed PyTorch ({torch.__version__}) {why}; set "
            "runtime.device=cpu, or install the build for this machine (qaq doctor)"
        )
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        raise UserError(
            "NVIDIA_TF32_OVERRIDE=1 rounds float32 products to 10 bits behind PyTorch's back, so "
            "that float32 would not be what keys and results call so; unset it"
        )
    rank = int(os.environ.get("LOCAL_RANK", "0")) if rank is None else rank
    cards = torch.cuda.device_count()
    if rank >= cards:
        raise UserError(
            f"runtime.processes: process {rank + 1} of this host has no card of its own, it sees "
            f"{cards}; set runtime.processes={cards}, on every host the same, or ask for more cards"
        )
    return torch.device("cuda", rank)


def load_model(
    config: ModelConfig,
    device: str = "auto",
    dtype: str | None = None,
    adapter: Path | None = None,
) -> PreTrainedModel:
    """The model in evaluation mode on `device`, in `dtype` (default: the configured one).

    With the folder of a PEFT `adapter` its layers stand beside the frozen weights, unmerged, since
    merging changes numbers. Where the model itself is an adapter's folder (`id`), it is its base
    with the adapter merged in float32, in `dtype` afterwards: one model, whatever is done with it.

    Raises:
        ModelError: the files cannot be read as a causal language model, or not all of its weights
            are in them.
    """
    precision = getattr(torch, resolve_dtype(dtype or config.dtype, device))
    # NVIDIA's containers set TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1: other numbers under the same key
    torch.set_float32_matmul_precision("highest")
    place = torch_device(device)  # before gigabytes are read
    model = _assembled(config, precision).to(place)
    if adapter is not None:  # after the move, which what it prepares would not follow
        from qaq.models.forward.adapters import load_adapter

        model = load_adapter(model, adapter)
    if not config.trust_remote_code:  # else what it computes may lie anywhere
        with contextlib.suppress(ModelError):  # a Hub model whose commit cannot be looked up
            files = {"model": identity(config), "dtype": str(precision)}
            own = sorted(adapter.glob("adapter_*")) if adapter else []
            files |= {f.name: remembered_sha256(f) for f in own}
            label(model, files)
    return model.eval()


def _assembled(config: ModelConfig, precision: torch.dtype) -> PreTrainedModel:
    """The model of a folder of its own, or its base with an adapter merged."""
    base, own = parts(config)
    if own is None:
        return _whole_model(config, precision)
    from qaq.models.forward.adapters import merged

    return merged(_assembled(base, torch.float32), own, config.label).to(precision)


def _whole_model(config: ModelConfig, precision: torch.dtype) -> PreTrainedModel:
    """The model as its files hold it; every tensor accounted for."""
    folder = folder_of(config)
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{config.label} is an adapter: fetch it (hf download {config.id}) and give its folder"
        )
    held = tensors(folder, config.label)
    model, info = _read(
        AutoModelForCausalLM,
        "a causal language model",
        config,
        **_arguments(config),
        dtype=precision,
        use_safetensors=True,  # anything else can run code as it is read
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # named, with their shapes, by the check that follows
    )
    refuse_unloaded(model, info, held, config.label)
    return model


def _read(kind: Any, what: str, config: ModelConfig, **arguments: Any) -> Any:
    """`kind.from_pretrained`, every way of failing as one sentence.

    The code behind it is that of hundreds of architectures, of quantisation packages, or the
    model's own; what each raises for a folder that it cannot use is its own affair.
    """
    try:
        return kind.from_pretrained(**arguments)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except ImportError as error:
        raise ModelError(
            f"{config.label}: a package is missing that reads it{_quantised(arguments)}: "
            f"{_sentence(error)}"
        ) from error
    except Exception as error:
        if "trust_remote_code" in str(error) and not config.trust_remote_code:
            raise ModelError(
                f"{config.label}: the model brings code of its own; read it, and set "
                "trust_remote_code=true of this model to run it"
            ) from error
        raise ModelError(
            f"{config.label}: cannot load {what}{_quantised(arguments)}: "
            f"{type(error).__name__}: {_sentence(error)}"
        ) from error


def _quantised(arguments: dict[str, Any]) -> str:
    """` (quantised with gptq)`, where the model's config says so."""
    try:
        where = {k: v for k, v in arguments.items() if k in ("revision", "local_files_only")}
        name = arguments["pretrained_model_name_or_path"]
        method = PreTrainedConfig.get_config_dict(name, **where)[0]["quantization_config"][
            "quant_method"
        ]
    except Exception:  # no config, or none that says so: then there is nothing to add
        return ""
    return f" (quantised with {method})"


def _sentence(error: Exception) -> str:
    """The first paragraph of a message, on one line."""
    text = re.split(r"\n\s*\n", str(error).strip(), maxsplit=1)[0]
    return " ".join(text.split())[:600] or "no reason given"
