"""What the store asks of a file system, and what its errors mean."""

import ctypes
import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any

from qaq.host.errors import StoreError


def explain_os_error(error: OSError, path: Path) -> str:
    """A sentence for the file-system errors that a user can put right."""
    if is_disk_full(error):
        return (
            f"the disk is full while writing {path}; nothing was published. Free some space, "
            "then run the same command again: it continues where it stopped"
        )
    return f"cannot write {path}: {error.strerror or error}"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says so; libraries wrap it, some in errors of their own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(text in str(error) for text in ("No space left on device", "Disk quota exceeded"))


def flock(file: int | IO[Any], how: int, path: Path) -> None:
    """`fcntl.flock` on an open file.

    Raises:
        BlockingIOError: somebody else holds the lock, and it was not to be waited for.
        StoreError: the file system has no such locks.
    """
    try:
        fcntl.flock(file, how)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        raise StoreError(
            f"{path}: its file system has no locks (flock: {error.strerror}); use another, see "
            "docs/running.md: runtime.store is the place of the store, QAQ_CACHE that of the cache"
        ) from error


def exchanged(one: Path, other: Path) -> bool:
    """Let two folders swap their places in one step (Linux); False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(error, os.strerror(error), str(other))


def sync(folder: Path) -> None:
    """Force the folder's files to disk, so that the rename never precedes their contents."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
