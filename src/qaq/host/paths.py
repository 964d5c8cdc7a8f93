"""Where the program's own files and the user's cache lie."""

import os
from importlib import resources
from pathlib import Path


def conf_dir() -> Path:
    """The folder of Hydra groups: inside the installed package, or at the root of a checkout."""
    inside = Path(str(resources.files("qaq"))) / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"


def cache_dir() -> Path:
    """The user's cache: `$QAQ_CACHE`, else `$XDG_CACHE_HOME/qaq`, else `~/.cache/qaq`; made if
    missing. Everything in it can be deleted at any time; it is made again when needed.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("QAQ_CACHE") or Path(base) / "qaq")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
