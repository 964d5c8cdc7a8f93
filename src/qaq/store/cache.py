"""The user's cache: converted models, ground truths, compiled loops, remembered file hashes.

`$QAQ_CACHE`, else `$XDG_CACHE_HOME/qaq`, else `~/.cache/qaq`. Everything in it can be deleted at
any time; it is made again when needed.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from qaq.store.store import file_sha256
from qaq.store.tables import write_json


def cache_dir() -> Path:
    """The cache folder, made if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("QAQ_CACHE") or Path(base) / "qaq")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a named lock of the cache; the kernel drops it when the holder dies."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remembered_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size, inode and both times of change.

    Planning hashes model weights each time it runs; gigabytes are read once, not every time. The
    time of modification can be set to anything, that of the inode's change cannot.
    """
    stat = path.stat()
    times = f"{stat.st_mtime_ns}|{stat.st_ctime_ns}"
    stamp = f"{path.resolve()}|{stat.st_size}|{stat.st_dev}|{stat.st_ino}|{times}"
    memory = cache_dir() / "sha256.json"
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(memory.read_text())
        if stamp in known:
            return str(known[stamp])
    digest = file_sha256(path)
    with locked("sha256.lock"):
        known = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(memory.read_text())
        write_json(memory, known | {stamp: digest})
    return digest
