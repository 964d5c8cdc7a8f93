"""What stands between a command and the terminal, log or folder that it finds."""

import codecs
import sys
from pathlib import Path

from qaq.host.errors import UserError

# What our tables and sentences hold beyond ASCII, as the nearest that any terminal shows
PLAIN = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "─": "-", "…": "...", "×": "x", "→": "->", "≥": ">=",
        "≤": "<=", "\u2009": " ", "\u00a0": " ", "·": ".", "“": '"', "”": '"', "’": "'", "±": "+-",
    }
)  # fmt: skip


def speak_plainly() -> None:
    """Have this process's output never fail on a terminal or log that is not UTF-8."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not so where a notebook or a test stands in
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end].translate(PLAIN)
    return found.encode("ascii", "backslashreplace").decode(), error.end


def check_target(file: Path) -> None:
    """Refuse a file to be written whose folder is not there, before any work is done for it."""
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; make it, or name another")


def file_trouble(error: OSError) -> str | None:
    """One sentence for a file that cannot be made or read, and the cure; None if it names none."""
    if not isinstance(error.filename, str | Path):
        return None
    path = Path(error.filename)
    said = f"{path}: {error.strerror}"
    if not path.parent.is_dir():
        return f"{said}; there is no folder {path.parent}, make it or name another"
    return f"{said}; correct the path or the folder's permissions (runtime.store, --store, --out)"
