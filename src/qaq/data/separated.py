"""CSV: records under a header, each with its text as it stands in the file."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from qaq.data.rows import Entry, Rejected
from qaq.host.errors import DataError

DELIMITERS = ",;\t|"


def read_records(path: Path, text: TextIO) -> Iterator[Entry | Rejected]:
    """The records behind the header, without blank lines; cells are text.

    Args:
        path: what messages call the file.
        text: the file, opened with `newline=""`.

    Raises:
        DataError: it has no usable header, is not UTF-8, or a quote is never closed.
    """
    try:
        rows, lines, header = _begun(path, text)
        lines.taken()
        if len(set(header)) < len(header) or len(header) < 2:
            raise DataError(
                f"{path}: its first line must name two or more columns, each once; found {header}"
            )
        yield from _rows(path, rows, header, lines)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); convert it first") from None


def header_text(path: Path, text: TextIO) -> str:
    """The header as it stands in the file, with its end."""
    return _begun(path, text)[1].waiting()


def _begun(path: Path, text: TextIO) -> tuple[Iterator[list[str]], "_Lines", list[str]]:
    """The rows behind the header, the lines that they are read from, and the header."""
    csv.field_size_limit(sys.maxsize)
    first = text.readline()
    lines = _Lines(first, text)
    rows = csv.reader(lines, delimiter=delimiter_of(first), strict=True)
    try:
        return rows, lines, next(rows, [])
    except csv.Error as error:
        raise DataError(
            f"{path}: the quotes of its header are wrong ({error}); correct it"
        ) from None


def delimiter_of(header: str) -> str:
    """The separator that the header holds most often."""
    return max(DELIMITERS, key=header.count)


class _Lines:
    """The lines of a file, and those that were read since the last record."""

    def __init__(self, first: str, following: TextIO):
        self._first, self._following = first, following
        self._read: list[str] = []
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        yield self._noted(self._first)
        for line in self._following:
            yield self._noted(line)

    def _noted(self, line: str) -> str:
        self._read.append(line)
        self.count += 1
        return line

    def waiting(self) -> str:
        """The lines since the last record was taken."""
        return "".join(self._read)

    def taken(self) -> str:
        """The lines since the last call, without the last one's end."""
        text = self.waiting()
        self._read = []
        return text.removesuffix("\n").removesuffix("\r")


def _rows(
    path: Path, rows: Iterator[list[str]], header: list[str], lines: _Lines
) -> Iterator[Entry | Rejected]:
    position = 0
    while True:
        start = lines.count + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    f"{path}: the record of line {start} opens a quote that is never closed; "
                    "everything behind it would be one cell"
                ) from None
            if lines.count > start:  # how many records it swallowed cannot be known
                raise DataError(
                    f"{path}: the quotes of the record of line {start} are wrong ({error}), and it "
                    f"goes on to line {lines.count}; correct them (a quote inside is doubled)"
                ) from None
            position += 1
            yield Rejected(position, "broken_csv", f"line {start}: {error}", lines.taken())
            continue
        raw = lines.taken()
        if not cells:
            continue
        position += 1
        if len(cells) == len(header):
            yield Entry(position, dict(zip(header, cells, strict=True)), raw)
        else:
            detail = f"line {start} has {len(cells)} cells, the header {len(header)}"
            yield Rejected(position, "broken_csv", detail, raw)
