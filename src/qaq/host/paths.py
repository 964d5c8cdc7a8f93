"""Where the user's cache lies."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache: `$QAQ_CACHE`, else `$XDG_CACHE_HOME/qaq`, else `~/.cache/qaq`; made if
    missing. Everything in it can be deleted at any time; it is made again when needed.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("QAQ_CACHE") or Path(base) / "qaq")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
