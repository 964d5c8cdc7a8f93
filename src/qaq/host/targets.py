"""Files that a command cannot make or read: one sentence, and what to do."""

import errno
import os
from collections.abc import Collection
from pathlib import Path

from qaq.host.errors import UserError


def check_target(file: Path) -> None:
    """Refuse a file to be written whose folder is not there, before any work is done for it."""
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; make it, or name another")
    if not os.access(file.absolute().parent, os.W_OK):
        raise UserError(
            f"{file}: nothing may be written into {file.absolute().parent}; name another"
        )


def refuse_to_replace(file: Path, force: bool) -> None:
    """Refuse a file that is there already, unless `force`."""
    if file.exists() and not force:
        raise UserError(f"{file} is there already; choose another name, or replace it with --force")


def check_targets(targets: Collection[Path | None], inputs: Collection[Path], force: bool) -> None:
    """Refuse files that cannot be written, before any work is done for them; None is no file.

    Raises:
        UserError: there is no such folder, two are the same file, or one is there already (without
            `force`) or is to be read.
    """
    read, seen = {file.resolve() for file in inputs}, set[Path]()
    for file in filter(None, targets):
        check_target(file)
        if file.resolve() in read:
            raise UserError(f"{file} is one of the files to choose from; name another")
        if file.resolve() in seen:
            raise UserError(f"{file} is named for two outputs; name another for one of them")
        seen.add(file.resolve())
        refuse_to_replace(file, force)


def file_trouble(error: OSError) -> str | None:
    """One sentence for a file that cannot be made or read, and the cure; None if it names none."""
    if not isinstance(error.filename, str | Path):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
        return f"{error}; make room, or correct the folder's permissions" if full else None
    path = Path(error.filename)
    said = f"{path}: {error.strerror}"
    if not path.parent.is_dir():
        return f"{said}; there is no folder {path.parent}, make it or name another"
    return f"{said}; correct the path or the folder's permissions (runtime.store, --store, --out)"
