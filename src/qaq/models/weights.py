"""What the weight files of a model folder hold, read from their headers; nothing is loaded.

A file that is not what its name says is refused here, with its name, before any stage starts:
`safetensors` keeps names, shapes and byte ranges at the front of a file, so a missing, truncated or
replaced one is known from a few kilobytes. No torch: planning looks at every model.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from qaq.host.errors import ModelError
from qaq.store.tables import parse_json, read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
LFS = b"version https://git-lfs"
SHOWN = 4


def tensors(folder: Path, label: str) -> dict[str, list[int]]:
    """The name and shape of every tensor that a model folder holds.

    Raises:
        ModelError: no weights are there in safetensors, or a file is not what it should be.
    """
    refuse_pointers(folder, label)
    found: dict[str, list[int]] = {}
    for file in weight_files(folder, label):
        header = read_header(file, label)
        if twice := sorted(found.keys() & header.keys()):
            raise ModelError(f"{label}: {file} repeats tensors of another file: {several(twice)}")
        found |= header
    return found


def weight_files(folder: Path, label: str) -> list[Path]:
    """The files that hold the weights: one, or the shards that the index names.

    Raises:
        ModelError: there is none, a shard is missing, or it is not clear which are meant.
    """
    single, index = folder / SINGLE, folder / INDEX
    if index.is_file():
        try:
            shards = sorted(set(read_json(index)["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{label}: {index} is no index of shards: {error}") from None
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"{label}: {len(missing)} of {len(shards)} shards are not in {folder}: "
                f"{several(missing)}. Fetch the whole model again"
            )
        if single.is_file() and shards != [SINGLE]:
            raise ModelError(
                f"{label}: {folder} holds {SINGLE} and, in {INDEX}, other shards; remove those "
                "that are not meant"
            )
        return [folder / name for name in shards]
    if single.is_file():
        return [single]
    raise ModelError(f"{label}: {_nothing_to_load(folder)}")


def _nothing_to_load(folder: Path) -> str:
    """Why a folder without `model.safetensors` cannot be used, and what would help."""
    others = sorted(f.name for f in folder.glob("*.safetensors"))
    if others:
        return (
            f"{folder} holds {several(others)}, but neither {SINGLE} nor {INDEX}; save the model "
            "with save_pretrained, which writes one of them"
        )
    pickled = sorted(f.name for pattern in PICKLED for f in folder.glob(pattern))
    if pickled:
        return (
            f"{folder} holds its weights as {several(pickled)} only, a form that can run code as "
            "it is read; give safetensors (load the model once where you trust it and call "
            "save_pretrained)"
        )
    return (
        f"{folder} holds no weights; expected {SINGLE} (or shards and {INDEX}) beside config.json. "
        "Point `id` at a complete model folder"
    )


def refuse_pointers(folder: Path, label: str) -> None:
    """Refuse files that Git LFS has not fetched. Raises ModelError: with their names."""
    pointers = [f.name for f in sorted(folder.iterdir()) if f.is_file() and is_pointer(f)]
    if pointers:
        raise ModelError(
            f"{label}: {several(pointers)} in {folder} are pointers of Git LFS, not the files "
            "themselves; fetch them with: git lfs pull"
        )


def is_pointer(file: Path) -> bool:
    """Whether Git LFS stands here for a file that was not fetched."""
    with file.open("rb") as opened:
        return opened.read(len(LFS)) == LFS


def read_header(file: Path, label: str) -> dict[str, list[int]]:
    """The name and shape of every tensor in a safetensors file whose length is the promised one.

    Raises:
        ModelError: it is not safetensors, or shorter or longer than its header says.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = opened.read(length) if 0 < length <= size - 8 else b""
    try:
        header = parse_json(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {str(name): list(entry["shape"]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise ModelError(
            f"{label}: {file} ({size:,} bytes) is no safetensors file, or its beginning is "
            "damaged; fetch it again"
        ) from None
    expected = 8 + length + end
    if size != expected:
        raise ModelError(
            f"{label}: {file} has {size:,} bytes, its header says {expected:,}: it is truncated or "
            "damaged; fetch it again"
        )
    return shapes


def read_adapter(folder: Path, label: str) -> dict[str, list[int]]:
    """The name and shape of every tensor of an adapter whose files are what they should be.

    Raises:
        ModelError: they are missing, truncated, pickled or pointers of Git LFS.
    """
    refuse_pointers(folder, label)
    if not (folder / ADAPTER).is_file():
        raise ModelError(f"{label}: {folder} holds no {ADAPTER}; give the adapter as safetensors")
    return read_header(folder / ADAPTER, label)


def several(names: Iterable[str]) -> str:
    """The first few of some names, and how many there are more."""
    found = list(names)
    more = len(found) - SHOWN
    return ", ".join(found[:SHOWN]) + (f" and {more} more" if more > 0 else "")
