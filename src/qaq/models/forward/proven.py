"""Remembers, in the user's cache, that a way of running a model was shown to be right.

The stages of a run load the same few models again and again, and each would show the same thing
again for seconds. What is remembered is only that nothing was found, and only for the very same
case: the files of the weights and of of adapters merged or beside them, precision, device,
threads, processor, the versions of the libraries, the settings that choose a kernel, and all our
own code that takes part. Anything else, and a model that was not loaded from files, is asked anew.

    rm -r ~/.cache/qaq/proven      # ask everything again
"""

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaq.host.hardware import cpu_flags, describe
from qaq.host.paths import cache_dir
from qaq.store.keys import content_key
from qaq.store.tables import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numba", "llvmlite", "numpy", "triton")
ROOMS = ("models", "scoring", "embedding", "training", "evaluation/generation", "host")
SETTINGS = (
    *("ATEN_", "CUBLAS", "CUDA", "DNNL_", "KMP_", "MKL_", "NUMBA_", "NVIDIA_", "OMP_", "ONEDNN_"),
    *("OPENBLAS_", "PYTORCH_", "TORCH_"),
)
LABEL = "qaq_loaded_from"


def label(model: "PreTrainedModel", files: dict[str, Any]) -> None:
    """Note what files a model was made of; nothing may change its weights afterwards."""
    vars(model)[LABEL] = content_key(files)


def once(model: "PreTrainedModel", way: str, ask: Callable[[], str | None]) -> str | None:
    """What is wrong with a way of running a model, or None; not asked where that is remembered.

    `way` is which of our ways, with every choice that is not in the code.
    """
    case = _case(model, way)
    if case is not None and _note(case).is_file():
        return None
    problem = ask()
    if problem is None and case is not None:
        _note(case).parent.mkdir(exist_ok=True)
        write_json(_note(case), case)
    return problem


def known(model: "PreTrainedModel", *ways: str) -> bool:
    """Whether nothing has to be asked about any of these ways."""
    cases = [_case(model, way) for way in ways]
    return all(case is not None and _note(case).is_file() for case in cases)


def _note(case: dict[str, Any]) -> Path:
    return cache_dir() / "proven" / f"{content_key(case)}.json"


def _case(model: "PreTrainedModel", way: str) -> dict[str, Any] | None:
    """All that the answer may depend on; None where that cannot be said."""
    import torch

    loaded = vars(model).get(LABEL)
    if loaded is None or (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    device = model.device
    return {
        "way": way,
        "model": loaded,
        "type": f"{type(model).__module__}.{type(model).__qualname__}",
        "attention": str(model.config._attn_implementation),
        "dtype": str(model.dtype),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processor": [describe()["cpu"], platform.machine(), sorted(cpu_flags())],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": [torch.__version__, str(torch.version.cuda), torch.get_float32_matmul_precision()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "settings": {n: v for n, v in sorted(os.environ.items()) if n.startswith(SETTINGS)},
        "code": _code(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _code() -> str:
    """SHA-256 over all our own code that takes part in running a model."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for file in sorted(file for room in ROOMS for file in (root / room).rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
