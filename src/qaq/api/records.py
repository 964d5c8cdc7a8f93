"""The kept records of a source as they came, in their form and order: what `qaq select -o` writes.

JSON and CSV records are their own text; a Parquet file keeps columns, schema and compression. The
output appears when it is complete, and only if the source is still what was scored.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.identity import FORMS, PACKED, bare_name, data_files, identity
from qaq.data.rows import Entry
from qaq.data.separated import delimiter_of, header_text
from qaq.host.errors import DataError, UserError
from qaq.store.tables import appearing

Place = tuple[int | None, int]  # file and position
Notes = Mapping[Place, dict[str, Any]]

KEY = "qaq"
BATCH_ROWS = 1 << 14


def check_form(out: Path, form: str, files: Collection[Path]) -> None:
    """Refuse an output whose name says another form than its records have.

    Raises:
        UserError: it does.
    """
    own = [end for file in files if (end := Path(bare_name(file)).suffix.lower())]
    # a file of lines may be named .json; what a .csv has between its cells is no .tsv
    ends = tuple(dict.fromkeys(own if form == "csv" and own else (*FORMS[form], *own)))
    if not bare_name(out).lower().endswith(ends):
        raise UserError(
            f"-o {out}: the records are {form.upper()} and stay what they are; end the name in "
            f"{' or '.join(ends)}" + ("" if form == "parquet" else " (and .gz, .zst or .bz2)")
        )
    if form == "parquet" and out.suffix.lower() in PACKED:
        raise UserError(f"-o {out}: Parquet packs its own columns; end the name in .parquet")


def write_records(
    data: DataConfig,
    out: Path,
    kept: Collection[Place],
    read: Mapping[str, str],
    notes: Notes | None = None,
) -> None:
    """Write the records at these places, in the order of the source.

    Args:
        data: the source, of a form in `FORMS`.
        out: the file to write, packed where its name says so.
        kept: which of the records.
        read: what identified the source when the places were found (`qaq.data.identity`), and
            perhaps more.
        notes: what each is to carry under the key `qaq`; null leaves it as it is.

    Raises:
        UserError: a record has the key `qaq` already, or Parquet files have other columns.
        DataError: the source is not what it was when the work began.
    """
    if not identity(data).items() <= read.items():
        raise _changed(data)
    with appearing(out) as temporary:
        if data.source == "parquet":
            _write_tables(data, temporary, kept, notes)
        else:
            with pa.output_stream(temporary, compression=PACKED.get(out.suffix.lower())) as stream:
                WRITERS[data.source](data, stream, kept, notes)
        if not identity(data).items() <= read.items():
            raise _changed(data)


def _changed(data: DataConfig) -> DataError:
    return DataError(
        f"{', '.join(map(str, data_files(data)))}: changed between reading and writing; nothing "
        "was written, run the same command again"
    )


def _kept_entries(data: DataConfig, kept: Collection[Place]) -> Iterator[tuple[Place, Entry]]:
    """The records at these places; a source in which they are not all there has changed."""
    found = 0
    for entry in sources.read(data):
        place = (entry.file, entry.position)
        if isinstance(entry, Entry) and place in kept:
            found += 1
            yield place, entry
    if found != len(kept):
        raise _changed(data)


def _write_lines(
    data: DataConfig, stream: Any, kept: Collection[Place], notes: Notes | None
) -> None:
    ends = [_line_end(path) for path in data_files(data)]
    for place, entry in _kept_entries(data, kept):
        stream.write(_json_text(place, entry, notes).encode() + ends[(entry.file or 1) - 1])


def _line_end(path: Path) -> bytes:
    """How the lines of a file end, by its first."""
    with sources.opened(path) as file:
        return b"\r\n" if file.readline().endswith(b"\r\n") else b"\n"


def _write_list(
    data: DataConfig, stream: Any, kept: Collection[Place], notes: Notes | None
) -> None:
    for number, (place, entry) in enumerate(_kept_entries(data, kept)):
        stream.write(b",\n" if number else b"[\n")
        stream.write(_json_text(place, entry, notes).encode())
    stream.write(b"\n]\n")


def _json_text(place: Place, entry: Entry, notes: Notes | None) -> str:
    raw = str(entry.raw)
    if notes is None:
        return raw
    _refuse_key(list(entry.record) if isinstance(entry.record, dict) else [])
    note = json.dumps(notes[place], ensure_ascii=False, allow_nan=False)
    return f'{raw.rstrip().removesuffix("}")}, "{KEY}": {note}}}'


def _write_csv(data: DataConfig, stream: Any, kept: Collection[Place], notes: Notes | None) -> None:
    headers = {file: csv_header(file) for file in data_files(data)}
    if len({header.rstrip("\r\n") for header in headers.values()}) > 1:
        raise UserError(f"the files have other columns: {', '.join(map(str, headers))}; take one")
    first = next(iter(headers.values()))
    header = first.rstrip("\r\n")
    end = first[len(header) :] or "\n"
    separator = delimiter_of(header.partition("\n")[0])

    def cell(text: str) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, lineterminator="").writerow([text])
        return f"{separator}{buffer.getvalue()}"

    if notes is not None:
        _refuse_key(next(csv.reader(io.StringIO(header, newline=""), delimiter=separator)))
    stream.write(f"{header}{'' if notes is None else cell(KEY)}{end}".encode())
    for place, entry in _kept_entries(data, kept):
        note = "" if notes is None else cell(json.dumps(notes[place], ensure_ascii=False))
        stream.write(f"{entry.raw}{note}{end}".encode())


def csv_header(path: Path) -> str:
    """The header of a CSV file as it stands there, with its end; a name may hold a line's end."""
    with sources.opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        return header_text(path, text)


def _write_tables(
    data: DataConfig, temporary: Path, kept: Collection[Place], notes: Notes | None
) -> None:
    files = data_files(data)
    with pq.ParquetFile(files[0]) as first:
        schema = _plain(first.schema_arrow)
        codec = first.metadata.row_group(0).column(0).compression if first.num_row_groups else ""
    note_type = None
    if notes is not None:
        _refuse_key(schema.names)
        note_type = pa.array(list(notes.values())).type
        # what other tools note of the columns would deny the new one
        meta = {k: v for k, v in (schema.metadata or {}).items() if k.startswith(b"ARROW")}
        schema = schema.append(pa.field(KEY, note_type)).with_metadata(meta)
    written = 0
    packing = codec.lower() if codec.lower() in ("snappy", "gzip", "zstd", "brotli") else "none"
    with pq.ParquetWriter(temporary, schema, compression=packing) as writer:
        for number, file in enumerate(files, start=1):
            with pq.ParquetFile(file) as table:
                columns = [name for name in schema.names if name != KEY or notes is None]
                _refuse_other_columns(_plain(table.schema_arrow), schema, columns, file, files[0])
                position = 0
                for batch in table.iter_batches(BATCH_ROWS):
                    places = [(number, position + 1 + n) for n in range(batch.num_rows)]
                    position += batch.num_rows
                    mask = np.array([place in kept for place in places])
                    chosen = batch.cast(_plain(batch.schema)).filter(pa.array(mask))
                    arrays = [chosen.column(name) for name in columns]
                    if notes is not None:
                        own = [notes[place] for place in places if place in kept]
                        arrays.append(pa.array(own, note_type))
                    if chosen.num_rows:
                        writer.write_batch(pa.record_batch(arrays, schema=schema))
                    written += chosen.num_rows
    if written != len(kept):
        raise _changed(data)


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema without views, which Arrow cannot filter; they are stored as texts and bytes."""
    types = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    for n, field in enumerate(schema):
        schema = schema.set(n, field.with_type(types.get(field.type, field.type)))
    return schema


def _refuse_other_columns(
    found: pa.Schema, wanted: pa.Schema, columns: list[str], file: Path, first: Path
) -> None:
    expected = pa.schema([wanted.field(name) for name in columns])
    if not found.equals(expected):
        raise UserError(f"{file} has other columns than {first}; choose from each alone")


def _refuse_key(names: list[str]) -> None:
    if KEY in names:
        raise UserError(f"the records have a field {KEY} already; leave out --with-scores")


WRITERS: dict[str, Callable[[DataConfig, Any, Collection[Place], Notes | None], None]] = {
    "jsonl": _write_lines,
    "json": _write_list,
    "csv": _write_csv,
}
