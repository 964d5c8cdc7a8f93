"""The tables that cross a stage, and the only functions that read and write them.

A schema here is the contract between two stages. Reading checks it, so that a stage never works
on a table of another meaning; writing goes to a temporary name first, so that a reader never sees
half a file.
"""

import contextlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.host.errors import StoreError

Span = Literal["q", "q_given_a", "a", "a_given_q"]
SPANS: tuple[Span, ...] = get_args(Span)

PAIRS = pa.schema(
    [
        ("row_id", pa.string()),  # first 16 hex digits of SHA-256 over the texts (qaq.data.rows)
        ("question", pa.string()),
        ("answer", pa.string()),
        ("source", pa.string()),
        ("defect", pa.string()),  # null, or the kind of noise planted; no selector may read it
        ("input_start", pa.int32()),  # character of the question where its `input` part begins
        ("position", pa.int64()),  # of its record, as in the quarantine
        ("file", pa.int32()),  # of its record, as in the quarantine
    ]
)

# A pool in which a row has a system turn of its own has it in one more column.
PAIRS_WITH_SYSTEM = PAIRS.append(pa.field("system", pa.string()))

QUARANTINE = pa.schema(
    [
        ("position", pa.int64()),  # line of a JSONL file, else place in the list or table; from 1
        ("file", pa.int32()),  # which of the files of counts.json, from 1; null: from no file
        ("reason", pa.string()),  # from the short list in qaq.data.rows
        ("detail", pa.string()),
        ("raw", pa.string()),
    ]
)

PLANTED = pa.schema(
    [
        ("row_id", pa.string()),  # of the damaged row in pairs
        ("defect", pa.string()),
        ("original_row_id", pa.string()),  # of the row it was made from
    ]
)

OVERLAPS = pa.schema(
    [
        ("row_id", pa.string()),
        ("benchmark", pa.string()),
        ("task_id", pa.string()),
        ("kind", pa.string()),  # exact, prompt_run, solution_run or entry_point
        ("evidence", pa.string()),  # the text or name that both share
    ]
)

SCORES = pa.schema(
    [("row_id", pa.string())]
    + [(f"nll_{span}", pa.float64()) for span in SPANS]  # sums over the span's tokens, nats
    + [(f"tokens_{span}", pa.int32()) for span in SPANS]
    + [(f"bytes_{span}", pa.int32()) for span in SPANS]  # UTF-8 bytes of the scored text
    + [("truncated", pa.bool_()), ("reason", pa.string())]  # reason: null, or why unscored
)

PREFERENCES = pa.schema(
    [
        ("task_id", pa.string()),
        ("corruption", pa.string()),  # a key of qaq.evaluation.preference.CORRUPTIONS
        ("right", pa.float64()),  # bits per byte of the canonical solution
        ("wrong", pa.float64()),  # of the corrupted one, behind the same prompt
    ]
)


def scores_schema(spans: Collection[str]) -> pa.Schema:
    """The score table of these spans only: the columns of the others are not there."""
    parts = {f"{part}_{span}" for part in ("nll", "tokens", "bytes") for span in SPANS}
    wanted = {f"{part}_{span}" for part in ("nll", "tokens", "bytes") for span in spans}
    return pa.schema([f for f in SCORES if f.name in wanted or f.name not in parts])


def with_system(pairs: Path, columns: Sequence[str]) -> list[str]:
    """The columns, and `system` where the pool of this `pairs.parquet` has it."""
    return [*columns, *({"system"} & set(pq.read_schema(pairs).names))]


def spans_scored(path: Path) -> tuple[Span, ...]:
    """The spans of a score table; of a folder of shards, those that all of them have."""
    held = set(SPANS)
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        names = pq.read_schema(file).names
        held &= {span for span in SPANS if f"nll_{span}" in names}
    return tuple(span for span in SPANS if span in held)


def read_scores(folder: Path) -> pa.Table:
    """The score table in a `scores` artifact, with the columns of the spans that it has."""
    return read_table(folder / "shards", scores_schema(spans_scored(folder / "shards")))


EMBEDDED = pa.schema([("row_id", pa.string())])  # of the rows of rows.npy, in its order

SUBSET = pa.schema(
    [
        ("row_id", pa.string()),
        ("score", pa.float64()),  # what the rule ranks by; null where it has no score
        ("stratum", pa.int32()),  # bin of log PPL(Q), cluster or other group of rows, or null
        ("rank", pa.float64()),  # in [0, 1], inside the stratum or among all, as the rule has it
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why kept or not, from a short fixed list per rule
    ]
)

PER_PROBLEM = pa.schema(
    [
        ("benchmark", pa.string()),
        ("task_id", pa.string()),
        ("sample", pa.int32()),
        ("base_passed", pa.bool_()),
        ("plus_passed", pa.bool_()),
        ("failure", pa.string()),  # null, wrong, error, timeout, syntax, killed
        ("suspect", pa.bool_()),  # passed against false expected values: it cheats
        ("prompt_sha", pa.string()),
        ("completion_sha", pa.string()),
        ("new_tokens", pa.int32()),
        ("solution_bits_per_byte", pa.float64()),  # of the canonical solution given the prompt
    ]
)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; what is there becomes `path`, whole and on disk, or not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table, schema: pa.Schema) -> None:
    """Write `table` as Parquet under `path`, cast to `schema`, visible only when complete."""
    table = table.select(schema.names).cast(schema)
    with appearing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, or a folder of shards in name order, and check it against `schema`."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise StoreError(f"no table at {path}")
    wanted = columns or schema.names
    tables = []
    for file in files:
        with open_table(file, wanted) as parquet:
            tables.append(parquet.read(columns=wanted).select(wanted))
    expected = pa.schema([schema.field(name) for name in wanted])
    return pa.concat_tables([t.cast(expected) for t in tables])


def open_table(path: Path, columns: list[str]) -> pq.ParquetFile:
    """Open one Parquet file to read it in parts, and check that it has these columns."""
    if not path.exists():
        raise StoreError(f"no table at {path}")
    parquet = pq.ParquetFile(path)
    found = parquet.schema_arrow.names
    missing = [name for name in columns if name not in found]
    if missing:
        parquet.close()
        raise StoreError(f"{path}: columns {missing} are missing; found {found}")
    return parquet


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write a list of rows as a table; every row must have every column of `schema`."""
    write_table(path, pa.Table.from_pylist(rows, schema=schema), schema)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with sorted keys, visible only when complete."""
    with appearing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; ValueError where it is not one."""
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """`json.loads`; ValueError, in words, also for deep nesting and for integers too long."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # Python's limit
        most = sys.get_int_max_str_digits()
        raise ValueError(f"it holds an integer of more than {most} digits") from None


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, visible only when complete."""
    with appearing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def cut_torn_line(path: Path) -> None:
    """Remove what a killed writer left of a file's last line, so that the next starts afresh."""
    with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSONL file; a torn last line (a killed writer) ends the reading."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            yield json.loads(line)
