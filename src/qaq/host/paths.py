"""Paths that the user names, and where the user's cache lies."""

import errno
import os
from pathlib import Path

from qaq.host.errors import UserError


def expanded(path: str | Path) -> Path:
    """The path with the user's home in place of `~`, which no shell reads within quotes."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (`~nobody` stays as it is)


def cache_dir() -> Path:
    """The user's cache: `$QAQ_CACHE`, else `$XDG_CACHE_HOME/qaq`, else `~/.cache/qaq`; made if
    missing. Everything in it can be deleted at any time; it is made again when needed.

    Raises:
        UserError: it cannot be made or written.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("QAQ_CACHE") or Path(base) / "qaq")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(
            f"the cache {folder} cannot be written ({error.strerror}); set QAQ_CACHE to a folder "
            "that can"
        ) from None
    return folder
