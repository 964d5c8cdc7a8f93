"""The `pairs` stage: from a source to the pool, with nothing lost on the way.

    source --> row reader --> sample --> planted noise --> pairs.parquet, planted.parquet
                   |
                   +--> quarantine.parquet (every row that cannot be used, and why)

The pool keeps the order of the source. `counts.json` adds up: `read` = `kept` + `quarantined`, and
`kept` = `pool` + `not_sampled`; `planted` says how many rows of the pool carry which defect. Rows
are written as they are read; only a sample and a pool with planted noise are held as a whole.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.data import sources
from qaq.data.config import DataConfig, PairsStage
from qaq.data.identity import FORMS, data_files, identity
from qaq.data.intake import Counts, kept, sample, screen
from qaq.data.noise import Planted, plant
from qaq.data.rows import Pair, Rejected
from qaq.host.errors import DataError
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, PAIRS_WITH_SYSTEM, PLANTED, QUARANTINE, write_json

GROUP_ROWS = 5_000


def run(job: Job) -> dict[str, Any]:
    """Build the pool.

    Raises:
        DataError: the source cannot be had or holds no usable row, or too few rows for the noise.
    """
    config = job.parse(PairsStage)
    data = config.data
    if written := job.inputs.get("synthesis"):
        data = replace(data, path=written / "pairs.jsonl")
    counts = Counts()
    pool: Iterable[Pair] = _take_in(job, data, counts)
    planted: list[Planted] = []
    if config.noise.shares:
        pool, planted = plant(list(pool), config.noise.shares, config.noise.seed)
    rows, systems = _write_pool(job, pool)
    _write_planted(job, planted)
    facts = {
        "read": counts.read,
        "kept": counts.kept,
        "quarantined": dict(counts.quarantined),
        "unreadable": counts.unreadable,
        "dropped": dict(counts.dropped),
        "not_sampled": counts.kept - rows,
        "pool": rows,
        "planted": dict(Counter(row.pair.defect for row in planted)),
    }
    if systems:
        facts["system"] = systems
    facts |= {"source": identity(config.data), "files": counts.files}
    write_json(job.out / "counts.json", facts)
    summary = {
        "rows": rows,
        "read": counts.read,
        "quarantined": counts.quarantined.total(),
        "not_sampled": counts.kept - rows,
        "planted": len(planted),
    }
    record = job.record()
    record.log(**summary)
    record.close()
    return summary


def _take_in(job: Job, data: DataConfig, counts: Counts) -> Iterator[Pair]:
    """Read the source once: the sampled rows; counts the others, and writes the quarantine.

    Raises:
        DataError: behind the last row, where what was read as a whole makes no pool.
    """
    before = identity(data)
    if data.source in FORMS:
        counts.files = [file.name for file in data_files(data)]
    with Writer(job, "quarantine", QUARANTINE) as quarantine:

        def refuse(row: Rejected) -> None:
            quarantine.add(
                position=row.position,
                file=row.file,
                reason=row.reason,
                detail=row.detail,
                raw=row.raw,
            )

        rows = kept(screen(sources.read(data), sources.label(data), data), counts, refuse)
        yield from sample(rows, data.limit, data.sample_seed)
    if identity(data) != before:
        raise DataError(f"{_where(data)} was changed while it was read; run the command again")
    if not counts.kept:
        raise DataError(_nothing_usable(data, counts))
    for part in ("input", "system"):
        name = getattr(data.fields, part, None)
        if name and not counts.parts[part]:
            raise DataError(
                f"{_where(data)}: data.fields names {part}={name}, where no row has a text; "
                "correct the name, or leave it out"
            )
    if counts.unreadable > data.max_unreadable * counts.read:
        raise DataError(
            f"{_where(data)}: {counts.unreadable} of {counts.read} rows cannot be read, more than "
            f"data.max_unreadable={data.max_unreadable:g} allows: {counts.reasons}. Correct them, "
            "name the fields (data.fields.question, data.fields.answer), or raise the bound to "
            "leave them out"
        )


def _write_pool(job: Job, pool: Iterable[Pair]) -> tuple[int, int]:
    """Write the pool; how many rows it has, and how many of them a system turn of their own."""
    rows = systems = 0
    with Writer(job, "pairs", PAIRS) as table:
        for pair in pool:
            if pair.system and not systems:
                table.widen(PAIRS_WITH_SYSTEM)
            rows += 1
            systems += pair.system is not None
            table.add(
                row_id=pair.row_id,
                question=pair.question,
                answer=pair.answer,
                source=pair.source,
                defect=pair.defect,
                input_start=pair.input_start,
                position=pair.position,
                file=pair.file,
                system=pair.system,
            )
    return rows, systems


def _write_planted(job: Job, planted: list[Planted]) -> None:
    with Writer(job, "planted", PLANTED) as table:
        for row in planted:
            table.add(
                row_id=row.pair.row_id,
                defect=row.pair.defect,
                original_row_id=row.original_row_id,
            )


def _where(data: DataConfig) -> Any:
    if isinstance(data.path, tuple):
        return ", ".join(map(str, data.path))
    return data.path or data.hub_id or data.source


def _nothing_usable(data: DataConfig, counts: Counts) -> str:
    """One sentence: what was read, and why none of it can be used."""
    if not counts.read:
        return f"{_where(data)} holds no rows; expected at least one question with its answer"
    return f"{_where(data)} holds no usable row of the {counts.read} read: {counts.reasons}"


class Writer:
    """Writes one table row by row, in groups, so that memory holds a group at a time.

    The file appears in `job.out` when it is complete.
    """

    def __init__(self, job: Job, name: str, schema: pa.Schema):
        self._path = job.scratch / f"{name}.parquet"
        self._final = job.out / f"{name}.parquet"
        self._rows: list[dict[str, object]] = []
        self._open(schema)

    def _open(self, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(self._path, schema, compression="zstd")
        self._schema = schema

    def widen(self, schema: pa.Schema) -> None:
        """Go on with more columns behind the others; the rows written so far are null there."""
        self._file.close()
        before = self._path.rename(self._path.with_suffix(".before"))
        self._open(schema)
        with pq.ParquetFile(before) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                for field in list(schema)[rows.num_columns :]:
                    rows = rows.append_column(field, pa.nulls(len(rows), field.type))
                self._file.write_table(rows)
        before.unlink()

    def add(self, **row: object) -> None:
        """Append one row."""
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._rows:
            self._write_group()
        self._file.close()
        if kind is None:
            self._path.replace(self._final)
