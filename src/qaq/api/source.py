"""From the files that somebody names to one source of records: their form is found by content."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from qaq.data.config import Fields
from qaq.data.identity import FORMS, bare_name, files_of
from qaq.data.sources import BLANK, opened
from qaq.host.errors import UserError

STDIN = "-"
ENDS = tuple(end for ends in FORMS.values() for end in ends)


@contextmanager
def gathered(names: list[str]) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """The form of the named files, and the files, each once, in the order of the names.

    Args:
        names: files, folders (whose files of a known form are taken), patterns, or `-`: standard
            input, which is kept in a temporary file in here.

    Raises:
        UserError: they are of several forms, or of none that is known.
        DataError: there is no such file.
    """
    with TemporaryDirectory(prefix="qaq-") as folder:
        found: list[Path] = []
        for name in names:
            if not name.strip():
                raise UserError("a file's name is empty; is a variable of the shell not set?")
            found += (
                [_standard_input(Path(folder))] if name == STDIN else files_of(Path(name), ENDS)
            )
        forms = {path: form_of(path) for path in found}
        if len(set(forms.values())) > 1:
            listed = ", ".join(f"{path.name} is {form}" for path, form in forms.items())
            raise UserError(f"the files are of several forms ({listed}); name those of one form")
        yield next(iter(forms.values())), tuple(forms)


def form_of(path: Path) -> str:
    """The source that reads a file: json, jsonl, csv or parquet.

    Raises:
        UserError: neither its first bytes nor its name tell.
    """
    bare = bare_name(path).lower()
    if bare.endswith(FORMS["csv"]):
        return "csv"
    with opened(path) as file:
        start = file.peek(1 << 12)
    if start.startswith(b"PAR1"):
        return "parquet"
    first = start.lstrip(BLANK)[:1]
    by_content = {b"[": "json", b"{": "jsonl"}.get(first)
    by_name = next((form for form, ends in FORMS.items() if bare.endswith(ends)), None)
    form = by_content or by_name or ("csv" if first and bare == "stdin" else None)
    if form is None:
        raise UserError(f"{path}: neither a name in {', '.join(ENDS)} nor text that begins as JSON")
    return form


def fields_of(text: str | None) -> Fields | None:
    """`question=NAME,answer=NAME[,input=NAME][,system=NAME]` as the names of a record's fields.

    Raises:
        UserError: it is something else.
    """
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    named = {key.strip(): value.strip() for key, _, value in parts}
    known = {"question", "answer", "input", "system"}
    once = len(parts) == len(set(named)) == len(set(named.values()))
    if not ({"question", "answer"} <= set(named) <= known and all(named.values()) and once):
        raise UserError(
            f"--fields {text}: expected question=NAME,answer=NAME, and perhaps input=NAME and "
            "system=NAME, each once"
        )
    return Fields(**named)


def _standard_input(folder: Path) -> Path:
    path = folder / "stdin"
    if path.exists():
        raise UserError("standard input can be read once; name - once")
    with path.open("wb") as file:
        while block := sys.stdin.buffer.read(1 << 20):
            file.write(block)
    return path
