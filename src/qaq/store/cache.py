"""Locks and remembered file hashes in the user's cache (`qaq.host.paths.cache_dir`)."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from qaq.host.paths import cache_dir
from qaq.store.disk import flock
from qaq.store.manifest import file_sha256
from qaq.store.tables import write_json


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a named lock of the cache; the kernel drops it when the holder dies."""
    folder = cache_dir() / "locks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w") as file:
        flock(file, fcntl.LOCK_EX, folder)
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
