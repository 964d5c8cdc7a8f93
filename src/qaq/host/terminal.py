"""Text for a terminal: what data or foreign names hold must not steer it."""

import re
import sys

# C0 but tab and newline, DEL and C1; marks that turn or hide text; lone surrogates.
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    r"""The text with every character that steers a terminal as `\uXXXX` (as JSON writes it)."""
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def show(text: object, *, error: bool = False) -> None:
    """Print a line that may hold data, at once; with `error` to standard error.

    What the terminal's encoding does not have is escaped too.
    """
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    line = plain(str(text)).encode(encoding, "backslashreplace").decode(encoding)
    print(line, file=stream, flush=True)
