"""The artifact store: content keys, manifests, locks, atomic publish.

An artifact is a folder `<root>/<kind>/<name>-<key8>/` that holds `manifest.json` and appears only
when complete: it is built in `<root>/.work/<kind>-<key16>/out` and moved with one rename. The work
folder is named by the key, so a killed build finds its own unfinished shards and checkpoints again
and nobody else's. A lock is an `flock` on a file: the kernel drops it when its last holder dies,
so there are no stale locks to clean up.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaq.artifacts import read_json, write_json
from qaq.errors import StoreError

MANIFEST = "manifest.json"


def content_key(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The content key under which it was built."""
        return str(self.manifest["key"])

    def damage(self) -> list[str]:
        """Names of files that are missing or whose bytes are not those that were published."""
        bad = []
        for name, fact in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file() or file_sha256(file) != fact["sha256"]:
                bad.append(name)
        return bad


class Store:
    """The artifacts under one root folder; any number of processes may use it at once."""

    def __init__(self, root: Path):
        self.root = root.absolute()

    def find(self, kind: str, key: str) -> Artifact | None:
        """The complete artifact of that key, or None. Sizes are checked, not contents."""
        for folder in sorted((self.root / kind).glob(f"*-{key[:8]}")):
            try:
                manifest = read_json(folder / MANIFEST)
            except (OSError, ValueError):
                continue
            if manifest["key"] == key and _sizes_match(folder, manifest):
                return Artifact(folder, manifest)
        return None

    def all(self) -> Iterator[Artifact]:
        """Every complete artifact, by kind and name."""
        for file in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
            with contextlib.suppress(OSError, ValueError):
                yield Artifact(file.parent, read_json(file))

    def work(self, kind: str, key: str) -> Path:
        """The folder in which the artifact is built; made if missing, kept after a kill."""
        folder = self.root / ".work" / f"{kind}-{key[:16]}"
        for part in ("out", "scratch"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def lock(
        self, kind: str, key: str, waiting: Callable[[str], None] | None = None
    ) -> Iterator[int]:
        """Hold the artifact's lock; yields the descriptor, which a child process may inherit.

        The lock lasts until every process that holds the descriptor has closed it. `waiting` is
        called once, with what is known of the holder, if another process holds the lock.
        """
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / f"{kind}-{key[:16]}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    waiting(os.pread(file, 200, 0).decode(errors="replace").strip())
                fcntl.flock(file, fcntl.LOCK_EX)
            os.ftruncate(file, 0)
            os.pwrite(file, f"pid {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            yield file
        finally:
            os.close(file)

    def publish(self, kind: str, name: str, key: str, manifest: dict[str, Any]) -> Artifact:
        """Move the finished `out` folder of a build to its place; all of it appears, or nothing.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        work = self.work(kind, key)
        out = work / "out"
        final = self.root / kind / f"{_slug(name)}-{key[:8]}"
        try:
            manifest = manifest | {"kind": kind, "name": name, "key": key, "files": _inventory(out)}
            write_json(out / MANIFEST, manifest)
            _sync(out)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():  # a damaged artifact of the same key: set aside, then replaced
                shutil.rmtree(final)
            out.rename(final)
        except OSError as error:
            raise StoreError(explain_os_error(error, final)) from error
        shutil.rmtree(work, ignore_errors=True)
        return Artifact(final, manifest)


def explain_os_error(error: OSError, path: Path) -> str:
    """A sentence for the file-system errors that a user can mend."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full while writing {path}; nothing was published. Free some space, "
            "then run the same command again: it continues where it stopped"
        )
    return f"cannot write {path}: {error.strerror or error}"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-")[:80] or "unnamed"


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": file_sha256(p)}
        for p in files
    }


def _sizes_match(folder: Path, manifest: dict[str, Any]) -> bool:
    for name, fact in manifest["files"].items():
        try:
            if (folder / name).stat().st_size != fact["bytes"]:
                return False
        except OSError:
            return False
    return True


def _sync(folder: Path) -> None:
    """Force the folder's files to disk, so that the rename never precedes their contents."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
