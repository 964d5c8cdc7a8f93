"""The artifact store: content keys, manifests, locks, atomic publish.

An artifact is a folder `<root>/<kind>/<name>-<key8>/` that holds `manifest.json` and appears only
when complete: it is built in `<root>/.work/<kind>-<key16>/out` and moved with one rename. The work
folder is named by the key, so a killed build finds its own unfinished shards and checkpoints again
and nobody else's. A lock is an `flock` on a file: the kernel drops it when its last holder dies,
so there are no stale locks to clean up. A lease names the keys that a living process needs; the
garbage collection (`qaq.run.garbage`) spares them.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from qaq.host.errors import StoreError
from qaq.store.disk import exchanged, explain_os_error, flock, sync
from qaq.store.manifest import MANIFEST, Artifact, complete, inventory, of_other_size, read_manifest
from qaq.store.tables import write_json

SECOND = 1_000_000_000  # nanoseconds


class Store:
    """The artifacts under one root folder; any number of processes may use it at once."""

    def __init__(self, root: Path):
        self.root = root.absolute()
        self._listed: dict[str, tuple[int, dict[str, list[Path]]]] = {}

    def find(self, kind: str, key: str) -> Artifact | None:
        """The complete artifact of that key, or None. Sizes are checked, not contents."""
        for folder in self._folders(kind).get(key[:8], []):
            artifact = complete(folder, key)
            if artifact:
                return artifact
        return None

    def torn(self, kind: str, key: str) -> Path | None:
        """What shows that the folder of that key is there and not whole: a file of it, or None."""
        for folder in self._folders(kind).get(key[:8], []):
            manifest = read_manifest(folder)
            if manifest is None:
                return folder / MANIFEST
            if manifest["key"] == key and (bad := of_other_size(folder, manifest)):
                return bad
        return None

    def _folders(self, kind: str) -> dict[str, list[Path]]:
        """The folders of a kind by the start of their key, listed again when one came or went."""
        place = self.root / kind
        try:
            changed = place.stat().st_mtime_ns
        except OSError:
            return {}
        known = self._listed.get(kind)
        if known and known[0] == changed:
            return known[1]
        found: dict[str, list[Path]] = {}
        for folder in sorted(place.iterdir()):
            found.setdefault(folder.name[-8:], []).append(folder)
        # A folder that comes within the same tick of the clock would not change the time again.
        if time.time_ns() - changed > 2 * SECOND:
            self._listed[kind] = (changed, found)
        return found

    def all(self) -> Iterator[Artifact]:
        """Every complete artifact, by kind and name."""
        for file in sorted(self.root.glob(f"[!.]*/*/{MANIFEST}")):
            if manifest := read_manifest(file.parent):
                yield Artifact(file.parent, manifest)

    def broken(self) -> list[Path]:
        """Folders of artifacts whose manifest cannot be read, or is gone."""
        named = [p for p in sorted(self.root.glob("[!.]*/*")) if re.search("-[0-9a-f]{8}$", p.name)]
        return [folder for folder in named if folder.is_dir() and read_manifest(folder) is None]

    def work_folder(self, kind: str, key: str) -> Path:
        """Where the artifact is or would be built."""
        return self.root / ".work" / f"{kind}-{key[:16]}"

    def work(self, kind: str, key: str) -> Path:
        """The folder in which the artifact is built; made if missing, kept after a kill."""
        folder = self.work_folder(kind, key)
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
        path = self._made(".locks") / f"{kind}-{key[:16]}.lock"
        file = _flocked(path, waiting)
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, f"pid {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
            yield file
        finally:
            os.close(file)

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Hold the lock file of that name, if nobody else does; yields whether it is held."""
        try:
            file = os.open(self._made(".locks") / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            yield False
            return
        try:
            flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, self.root)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(file)

    def busy(self, kind: str, key: str) -> bool:
        """Whether somebody holds the artifact's lock."""
        return self.held(f"{kind}-{key[:16]}.lock")

    def held(self, name: str) -> bool:
        """Whether somebody holds the lock file of that name; asks also where nothing is written."""
        try:
            file = os.open(self.root / ".locks" / name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # nobody can say
        try:
            flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB, self.root)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    @contextlib.contextmanager
    def lease(self, keys: Iterable[str]) -> Iterator[None]:
        """Keep `keys` from the garbage collection for as long as this process lives.

        Where the store cannot be written there is no lease, and nobody collects there either.
        """
        taken = self._take_lease(keys)
        try:
            yield
        finally:
            if taken:
                taken[0].unlink(missing_ok=True)
                os.close(taken[1])

    def _take_lease(self, keys: Iterable[str]) -> tuple[Path, int] | None:
        name = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}.json"
        try:
            with self.collecting(wait=True, shared=True):
                path = self._made(".leases") / name
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
                flock(file, fcntl.LOCK_EX, path)
                os.write(file, json.dumps(sorted(keys)).encode())
                return path, file
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                return None
            raise

    def leased(self) -> set[str]:
        """The keys that living processes need; leases of dead ones are removed."""
        keys: set[str] = set()
        for path in (self.root / ".leases").glob("*.json"):
            with contextlib.suppress(OSError), path.open("r+") as file:
                try:
                    flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
                    path.unlink(missing_ok=True)
                except BlockingIOError:
                    keys |= set(json.load(file))
        return keys

    @contextlib.contextmanager
    def collecting(self, *, wait: bool, shared: bool = False) -> Iterator[None]:
        """Exclude a garbage collection (`shared`), or everybody who would take a lease.

        Raises:
            BlockingIOError: somebody else is there, and `wait` is false.
        """
        file = os.open(self._made(".locks") / ".collecting", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            flock(file, mode if wait else mode | fcntl.LOCK_NB, self.root)
            yield
        finally:
            os.close(file)

    def discard(self, folder: Path) -> None:
        """Delete a folder of the store; it is gone at once, never half there."""
        shutil.rmtree(self.aside(folder), ignore_errors=True)

    def aside(self, folder: Path) -> Path:
        """Move a folder to the trash by one rename; returns where it lies there."""
        place = self._made(".trash") / uuid.uuid4().hex
        with contextlib.suppress(FileNotFoundError):
            folder.rename(place)
        return place

    def _made(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(
        self,
        kind: str,
        name: str,
        key: str,
        manifest: dict[str, Any],
        *,
        replace: Artifact | None = None,
    ) -> Artifact:
        """Move the finished `out` folder of a build to its place; all of it appears, or nothing.

        `replace`: in place of this artifact, under its name; ours holds more. Whoever looks finds
        one or the other. On a file system that cannot exchange two folders in one step (NFS) there
        is a moment without either, and whoever is stopped in it finishes with the next run.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        work = self.work(kind, key)
        out = work / "out"
        final = self.root / kind / f"{_slug(name)}-{key[:8]}"
        if replace:
            name, final = str(replace.manifest["name"]), replace.path
        try:
            for torn in out.rglob(".*.tmp"):  # of writers that were killed
                if torn.is_file():
                    torn.unlink()
            manifest = manifest | {"kind": kind, "name": name, "key": key, "files": inventory(out)}
            write_json(out / MANIFEST, manifest)
            sync(out)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                made = complete(final, key)
                # by a host whose file system showed it late; equal keys, equal content
                if made and not replace:
                    shutil.rmtree(work, ignore_errors=True)
                    return made
                if made and exchanged(out, final):
                    shutil.rmtree(work, ignore_errors=True)
                    return Artifact(final, manifest)
                self.discard(final)
            out.rename(final)
        except OSError as error:
            raise StoreError(explain_os_error(error, final)) from error
        shutil.rmtree(work, ignore_errors=True)
        return Artifact(final, manifest)


def _flocked(path: Path, waiting: Callable[[str], None] | None) -> int:
    """The descriptor of a lock file that is held; waits for whoever holds it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, path)
            except BlockingIOError:
                if waiting:
                    waiting(os.pread(file, 200, 0).decode(errors="replace").strip())
                flock(file, fcntl.LOCK_EX, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the collection removed this file in the meantime; another one counts


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-")[:80] or "unnamed"
