"""Text for a terminal: what data or foreign names hold must not steer it."""

import codecs
import os
import re
import sys

from qaq.host.errors import OutputClosed

# C0 but tab and newline, DEL and C1; marks that turn or hide text; lone surrogates.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    r"""The text with every character that steers a terminal as `\uXXXX` (as JSON writes it)."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# What our tables and sentences hold beyond ASCII, as the nearest that any terminal shows
PLAIN = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "─": "-", "…": "...", "×": "x", "→": "->", "≥": ">=",
        "≤": "<=", "\u2009": " ", "\u00a0": " ", "·": ".", "“": '"', "”": '"', "’": "'", "±": "+-",
    }
)  # fmt: skip


def speak_plainly() -> None:
    """Have this process's output never fail on a terminal or log that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not so where a notebook or a test stands in
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end].translate(PLAIN)
    return found.encode("ascii", "backslashreplace").decode(), error.end


def show(text: object, *, error: bool = False) -> None:
    """Print a line that may hold data, at once; with `error` to standard error.

    What the terminal's encoding does not have is shown by the nearest character, or escaped.

    Raises:
        OutputClosed: nobody reads that stream any more.
    """
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = plain(str(text)).encode(encoding, "plain").decode(encoding)
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what Python flushes at its end
        raise OutputClosed("the reader of the output went away") from None


NOTICES: list[str] = []  # of this process; a stage's worker writes them into its artifact


def notice(text: str) -> None:
    """Show a line about how the work is done that its record keeps, too."""
    NOTICES.append(text)
    show(text, error=True)


codecs.register_error("plain", _plain)
