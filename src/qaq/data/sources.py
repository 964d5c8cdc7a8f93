"""Where rows come from: one reader per kind of source, under the decorator `source`.

A reader gives every record of its source once, in order, with its position; it judges nothing but
what makes a record unreadable at all (`Rejected`). Files are streamed, except a JSON list, which
has to be parsed as a whole. The sources that a user can fix (a missing file, a data set that
cannot be had offline) raise `DataError`.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.data import stdlib
from qaq.data.config import SOURCES, DataConfig, Source
from qaq.data.identity import data_files, hub_revision
from qaq.data.rows import Entry, Rejected
from qaq.data.separated import read_records
from qaq.host.errors import DataError
from qaq.host.plugins import guarded, owner
from qaq.store import hub

Entries = Iterator[Entry | Rejected]
Reader = Callable[[DataConfig], Iterable[Any]]

BATCH_ROWS = 1024
SPACE = re.compile(r"[ \t\n\r]*")
BLANK = b"\xef\xbb\xbf \t\r\n"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how such a file begins
PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}  # by first bytes


class KeyTwice(ValueError):
    """An object has a key twice: which of the two a reader takes is the reader's choice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise KeyTwice(f"the key {twice!r} stands in it twice")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)
LAX = json.JSONDecoder()


def read(config: DataConfig) -> Entries:
    """Every record of the configured source, in its order."""
    made = SOURCES[config.source].read(config)
    numbered = enumerate(SOURCES.guard_items(config.source, made), start=1)
    return (one if isinstance(one, Entry | Rejected) else Entry(at, one) for at, one in numbered)


def source(
    name: str, identity: Callable[[DataConfig], Mapping[str, str]] | None = None
) -> Callable[[Reader], Reader]:
    """Register a function as the source `name`.

    It gets the configuration and gives records one by one: mappings in one of the forms of
    `qaq.data.forms`, or `Entry` and `Rejected` where it knows better where a record stands.

    Args:
        name: what `data.source` says.
        identity: hashes of the content that the records come from, for the pool's key; without it
            and beside it that is the content of `data.path`, if one is given. A source that reads
            anything else needs it: the pool is not made again while the key is the same.
    """

    def register(function: Reader) -> Reader:
        module = owner(function.__module__)
        kept = guarded(identity, module) if identity else None
        SOURCES.add(name, Source(guarded(function, module), kept), module)
        return function

    return register


def label(config: DataConfig) -> str:
    """The `source` of rows that do not name one: only what enters the artifact's key."""
    return config.hub_id if config.source == "hub" and config.hub_id else config.source


@source("synthetic")  # what the `synthesis` stage wrote
@source("jsonl")
def read_jsonl(config: DataConfig) -> Entries:
    """One JSON value a line; lines without any character but whitespace are no records.

    A file that is one JSON list, which people also name .jsonl, gives its items.
    """
    return _one_after_another(data_files(config), _lines)


def _lines(path: Path) -> Entries:
    with opened(path) as file:
        if file.peek(1 << 12).lstrip(BLANK)[:1] == b"[":
            with contextlib.suppress(ValueError, RecursionError):
                yield from listed(file.read().decode("utf-8-sig"))
                return
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_line(number, line.removesuffix(b"\n").removesuffix(b"\r"))


def _parse_line(number: int, line: bytes) -> Entry | Rejected:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line is not UTF-8"
        return Rejected(number, "not_utf8", detail, line.decode("utf-8", "backslashreplace"))
    try:
        return Entry(number, DECODER.decode(text), text)
    except (ValueError, RecursionError) as error:
        return Rejected(number, "broken_json", str(error), text)


def _one_after_another(files: list[Path], read: Callable[[Path], Entries]) -> Entries:
    """The records of several files, each with the number of its file."""
    for number, path in enumerate(files, start=1):
        for entry in read(path):
            yield replace(entry, file=number)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """A file for reading, unpacked where its first bytes say that it is packed.

    Raises:
        DataError: it is packed and damaged, or UTF-16.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(UTF_16):
        raise DataError(f"{path} is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8 FILE > NEW")
    packing = next((name for magic, name in PACKINGS.items() if start.startswith(magic)), None)
    if packing is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        with pa.input_stream(path, compression=packing) as packed:
            yield io.BufferedReader(packed)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: damaged {packing} file ({error}); fetch or pack it again"
        ) from None


@source("json")
def read_json(config: DataConfig) -> Entries:
    """The items of one JSON list."""
    return _one_after_another(data_files(config), _json_list)


def _json_list(path: Path) -> Entries:
    try:
        with opened(path) as file:
            text = file.read().decode("utf-8-sig")
        if not text.lstrip().startswith("["):
            kind = type(json.loads(text)).__name__
            raise DataError(f"{path} holds one {kind}; expected a list of records")
        return iter(listed(text))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); convert it first") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:
        hint = "; one object a line is data.source=jsonl" if "Extra data" in str(error) else ""
        raise DataError(f"{path} is not JSON: {error}{hint}") from None


def listed(text: str) -> list[Entry | Rejected]:
    """The items of a JSON list, each with its own text; one with a key twice is rejected.

    Raises:
        ValueError: the text is not one JSON list.
        RecursionError: it is nested too deeply.
    """
    entries: list[Entry | Rejected] = []
    at = _behind_space(text, _behind_space(text, 0) + 1)
    more = text[at : at + 1] != "]"
    while more:
        position = len(entries) + 1
        try:
            item, end = DECODER.raw_decode(text, at)
            entries.append(Entry(position, item, text[at:end]))
        except KeyTwice as error:
            _, end = LAX.raw_decode(text, at)
            entries.append(Rejected(position, "broken_json", str(error), text[at:end]))
        at = _behind_space(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _behind_space(text, at + 1)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    if _behind_space(text, at + 1) < len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)
    return entries


def _behind_space(text: str, at: int) -> int:
    found = SPACE.match(text, at)
    return found.end() if found else at


@source("csv")
def read_csv(config: DataConfig) -> Entries:
    """The records of CSV files, each of which begins with a header."""
    return _one_after_another(data_files(config), _separated)


def _separated(path: Path) -> Entries:
    with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        yield from read_records(path, text)


@source("coders")  # the packaged pairs that two embedded coders wrote
@source("parquet")
def read_parquet(config: DataConfig) -> Entries:
    """The rows of Parquet files, batch by batch."""
    return _one_after_another(data_files(config), _table)


def _table(path: Path) -> Entries:
    position = 0
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if len(set(names)) < len(names):
                raise DataError(f"{path} has columns of one name ({names}); rename them")
            for batch in table.iter_batches(BATCH_ROWS):
                for record in batch.to_pylist():
                    position += 1
                    yield Entry(position, record)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} cannot be read as Parquet after row {position}: {error}") from None


@source("hub")
def read_hub(config: DataConfig) -> Any:
    """The rows of one split of a data set on the Hugging Face Hub."""
    import datasets

    revision = hub_revision(config)
    try:
        rows = hub.patiently(
            lambda: datasets.load_dataset(
                config.hub_id,
                name=config.hub_config,
                revision=revision,
                split=config.split,
                keep_in_memory=False,
            )
        )
    except Exception as error:  # the client raises many kinds; each means the same to the user
        raise DataError(
            f"cannot load split {config.split!r} of the data set {config.hub_id} at revision "
            f"{revision[:12]} ({type(error).__name__}: {error}). Look at data.split, at "
            "data.hub_config (which of several configurations) and at the network; offline, use "
            "data=parquet (or jsonl) with data.path=FILE"
        ) from error
    # Without a network the library takes the newest commit in its cache, whichever was asked for.
    found = {Path(file["filename"]).parent.name for file in rows.cache_files} - {revision}
    if found:
        raise DataError(
            f"the data set {config.hub_id} cannot be had at revision {revision}: the Hub did not "
            f"answer, and the local cache holds {', '.join(sorted(found))}. Try again with a "
            "network, or set data.revision to the cached one"
        )
    return rows


@source("stdlib")
def read_stdlib(config: DataConfig) -> Entries:
    """The documented functions of the running Python's library."""
    return iter(stdlib.read())
