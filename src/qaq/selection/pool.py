"""The rows that a rule chooses from, with their scores, joined by row id and never by position.

A pool stands in the order of its row ids. A row id is 16 hex digits, read as one 64-bit number
whose order is that of the text; so a stable sort breaks ties by id, on any platform, however the
rows were ordered on disk.
"""

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qaq.host.errors import DataError
from qaq.host.hardware import cores
from qaq.selection.ranks import FloatArray, IntArray, Mask
from qaq.selection.texts import File, Texts
from qaq.store.tables import SCORES

Keys = npt.NDArray[np.uint64]
T = TypeVar("T")


class ScoreTable(Mapping[str, FloatArray]):
    """One model's score table as columns in the order of the pool; null is NaN.

    A column is converted when it is asked for, so that a rule pays only for what it reads.
    """

    def __init__(self, table: pa.Table, order: IntArray):
        self._table = table
        self._order = order

    def __getitem__(self, name: str) -> FloatArray:
        """The column in the order of the pool. Raises DataError: its span was not scored."""
        if name in SCORES.names and name not in self._table.column_names:
            raise DataError(
                f"the scores have no {name}, since no rule was to read that span; a rule of your "
                "own that reads it has to name it (spans, see qaq.selection.config)"
            )
        values = self._table[name].to_numpy()
        return np.asarray(values, dtype=np.float64)[self._order]

    def __contains__(self, name: object) -> bool:
        """Whether the table has the column."""
        return name in self._table.column_names

    def __iter__(self) -> Iterator[str]:
        """The names of the columns."""
        return iter(self._table.column_names)

    def __len__(self) -> int:
        """How many columns there are."""
        return len(list(self._table.column_names))

    def take(self, mask: Mask) -> "ScoreTable":
        """The same table for some of the pool's rows."""
        return ScoreTable(self._table, self._order[mask])

    def reasons(self) -> tuple[npt.NDArray[np.int32], list[str]]:
        """Why a row has no score: a code per row (-1 = none given) and the texts of the codes."""
        column = self._table["reason"].combine_chunks()
        if column.null_count == len(column):
            return np.full(len(self._order), -1, np.int32), []
        encoded = column.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return codes.astype(np.int32)[self._order], encoded.dictionary.to_pylist()


@dataclass(frozen=True)
class Embeddings:
    """Vectors of the target model: `rows` (n x d, may be a memory map), `queries` (q x d).

    `order` gives, for each row of the pool, its place in `rows`.
    """

    rows: npt.NDArray[np.floating]
    order: IntArray
    queries: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Pool:
    """Rows in the order of their ids.

    `keys` are the row ids as numbers. `scores` maps a role (`strong`, `weak`) to its table.
    The rest is there only where a rule asks for it: `texts` (questions and answers), `barred` (for
    each row null, or why it may not be chosen), `embeddings`, and for an oracle `defects` (for each
    row null, or what was planted in it).
    """

    keys: Keys
    scores: Mapping[str, ScoreTable] = field(default_factory=dict)
    texts: Texts | None = None
    barred: pa.ChunkedArray | None = None
    embeddings: Embeddings | None = None
    defects: pa.ChunkedArray | None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.keys)

    def take(self, mask: Mask) -> "Pool":
        """The rows where `mask` is true, as a pool of their own."""
        chosen = pa.array(mask)
        vectors = self.embeddings
        return Pool(
            keys=self.keys[mask],
            scores={role: table.take(mask) for role, table in self.scores.items()},
            texts=self.texts and self.texts.take(mask),
            barred=None if self.barred is None else self.barred.filter(chosen),
            embeddings=vectors and replace(vectors, order=vectors.order[mask]),
            defects=None if self.defects is None else self.defects.filter(chosen),
        )


def given(value: T | None, what: str) -> T:
    """A part of the pool, which is there where a rule says that it reads it."""
    if value is None:
        raise ValueError(f"this rule needs a pool with {what}")
    return value


def build_pool(
    rows: pa.Table, scores: Mapping[str, pa.Table], pairs: Path | None = None
) -> tuple[Pool, pa.ChunkedArray]:
    """Join the pool's rows with the score tables by row id.

    Args:
        rows: has the column `row_id`, and `defect` for an oracle.
        scores: a score table for each role.
        pairs: where texts are needed, the Parquet file of questions and answers, in the order of
            `rows`.

    Returns:
        The pool, and its row ids as text in the same order.

    Raises:
        DataError: a row id is malformed or repeated, or the tables hold different rows.
    """
    owners = ["the pool", *(f"the {role} scores" for role in scores)]
    columns = [table["row_id"] for table in (rows, *scores.values())]
    with ThreadPoolExecutor(cores()) as threads:
        (keys, order), *found = threads.map(_sorted_keys, columns, owners)
    _refuse_different_rows(dict(zip(owners, [keys, *(theirs for theirs, _ in found)], strict=True)))
    tables = {
        role: ScoreTable(table.drop_columns(["row_id"]), places)
        for (role, table), (_, places) in zip(scores.items(), found, strict=True)
    }
    texts = None
    if pairs is not None:
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        texts = Texts(File(pairs), place)
    by_id = pa.array(order)
    defects = rows["defect"].take(by_id) if "defect" in rows.column_names else None
    return Pool(keys, tables, texts, defects=defects), rows["row_id"].take(by_id)


def row_keys(row_ids: pa.ChunkedArray, owner: str) -> Keys:
    """Row ids (16 hex digits each) as numbers of the same order."""
    ids = pa.chunked_array(row_ids.chunks, pa.string()).combine_chunks()
    lengths = pc.binary_length(ids).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != 16)
    if len(wrong) == 0 and len(ids) > 0:
        fixed = ids.cast(pa.binary()).cast(pa.binary(16))
        data = np.frombuffer(fixed.buffers()[1], np.uint8)
        digits = data[16 * fixed.offset : 16 * (fixed.offset + len(fixed))].view(np.uint16)
        wrong = np.flatnonzero(_NOT_HEX[digits].reshape(-1, 8).any(axis=1))
    if len(wrong):
        raise DataError(
            f"{owner}: {len(wrong)} row ids are not 16 hex digits; "
            f"the first is {ids[int(wrong[0])].as_py()!r}. Build the pairs again"
        )
    if len(ids) == 0:
        return np.empty(0, np.uint64)
    return _BYTE[digits].view(">u8").astype(np.uint64)


# Two hex digits at a time: what byte they spell, and whether they are no digits at all.
_PAIRS = np.array([int.from_bytes(f"{byte:02x}".encode(), sys.byteorder) for byte in range(256)])
_BYTE = np.zeros(2**16, np.uint8)
_BYTE[_PAIRS] = np.arange(256)
_NOT_HEX = np.ones(2**16, np.bool_)
_NOT_HEX[_PAIRS] = False


def _sorted_keys(row_ids: pa.ChunkedArray, owner: str) -> tuple[Keys, IntArray]:
    """The keys in order, and where each stood."""
    keys = row_keys(row_ids, owner)
    order = np.argsort(keys)
    keys = keys[order]
    repeats = int((keys[1:] == keys[:-1]).sum())
    if repeats:
        raise DataError(f"{owner}: {repeats} row ids occur more than once; every row needs its own")
    return keys, order


def _refuse_different_rows(sides: Mapping[str, Keys]) -> None:
    """Every table must hold exactly the pool's rows; a row without a score is null, not absent."""
    names = list(sides)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    problems = []
    for a, b in reversed(pairs):
        if np.array_equal(sides[a], sides[b]):
            continue
        only_a = len(np.setdiff1d(sides[a], sides[b], assume_unique=True))
        only_b = len(np.setdiff1d(sides[b], sides[a], assume_unique=True))
        problems.append(f"{only_a} rows are only in {a} and {only_b} only in {b}")
    if problems:
        counts = ", ".join(f"{name} {len(keys)}" for name, keys in sides.items())
        raise DataError(
            f"the tables hold different rows ({counts}): {'; '.join(problems)}. "
            "Score the same pool with every model"
        )
