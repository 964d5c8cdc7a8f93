"""The questions and answers of a pool, read in runs of rows as they lie in the file.

Ten million rows are gigabytes of text, too much to hold and to put in order. So each row comes with
its place in the pool.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qaq.selection.ranks import IntArray, Mask
from qaq.store.tables import PAIRS, open_table

R = TypeVar("R")

COLUMNS = ["question", "answer"]
TEXTS = pa.schema([(name, pa.large_string()) for name in COLUMNS])  # a column may pass 2 GiB
FACTS = ["row_id", "source", "defect"]
LENGTHS = [(f"{name}_characters", pa.int32()) for name in COLUMNS]
WITHOUT_TEXTS = pa.schema([*(PAIRS.field(name) for name in FACTS), *LENGTHS])
HELD_BYTES = 1 << 30
ABSENT = -1


class Runs(Protocol):
    """Rows of strings in runs that threads read one by one."""

    @property
    def sizes(self) -> Sequence[int]:
        """How many rows each run has."""

    def read(self, run: int) -> pa.Table:
        """The rows of one run, the same whenever they are asked for."""


@dataclass(frozen=True)
class Texts:
    """Rows of strings and, for each, its index in the pool, or ABSENT where it is not there."""

    runs: Runs
    place: IntArray

    def each(
        self, work: Callable[[int, IntArray, pa.Table], R], threads: ThreadPoolExecutor
    ) -> Iterator[R]:
        """What `work` gives for each run, in order; each thread reads a run and works on it.

        Args:
            work: takes how many rows stand before the run, the places of its rows, and the rows.
            threads: where `work` is done.
        """
        sizes = self.runs.sizes

        def one(run: int, start: int) -> R:
            return work(start, self.place[start : start + sizes[run]], self.runs.read(run))

        return threads.map(one, range(len(sizes)), accumulate(sizes[:-1], initial=0))

    def table(self) -> pa.Table:
        """All texts in the order of the pool."""
        read = [self.runs.read(run) for run in range(len(self.runs.sizes))]
        there = np.flatnonzero(self.place != ABSENT)
        order = there[np.argsort(self.place[there])]
        return pa.concat_tables([TEXTS.empty_table(), *read]).take(pa.array(order))

    def take(self, mask: Mask) -> "Texts":
        """The texts of a pool of the rows where `mask` is true."""
        place = np.append(np.where(mask, np.cumsum(mask) - 1, ABSENT), ABSENT)
        return Texts(self.runs, place[self.place])


def without_texts(pairs: Path) -> pa.Table:
    """The rows of a pairs table with the lengths of their texts (WITHOUT_TEXTS), in its order."""
    with open_table(pairs, [*FACTS, *COLUMNS]) as parquet:
        rows = [
            pa.record_batch(
                [batch[name] for name in FACTS] + [pc.utf8_length(batch[name]) for name in COLUMNS],
                schema=WITHOUT_TEXTS,
            )
            for batch in parquet.iter_batches(columns=[*FACTS, *COLUMNS])
        ]
    return pa.Table.from_batches(rows, WITHOUT_TEXTS)


class File:
    """The texts of a pairs table, a row group at a time; what was read is held while there is room.

    Raises:
        StoreError: the table does not have these columns.
    """

    def __init__(self, path: Path):
        self._path = path
        with open_table(path, COLUMNS) as parquet:
            self._metadata = parquet.metadata
        groups = range(self._metadata.num_row_groups)
        self.sizes = [self._metadata.row_group(group).num_rows for group in groups]
        self._ends = list(accumulate(self.sizes))
        self._held: dict[int, pa.Table] = {}
        self._room = HELD_BYTES
        self._lock = Lock()

    def read(self, run: int) -> pa.Table:
        """The questions and answers of one row group."""
        if run in self._held:
            return self._held[run]
        with pq.ParquetFile(self._path, metadata=self._metadata, pre_buffer=False) as parquet:
            rows = parquet.read_row_group(run, COLUMNS, use_threads=False)
        rows = rows.select(COLUMNS).cast(TEXTS)
        with self._lock:
            if rows.nbytes <= self._room:
                self._room -= rows.nbytes
                self._held[run] = rows
        return rows

    def row(self, place: int) -> tuple[str, str]:
        """The question and the answer of one row."""
        run = bisect(self._ends, place)
        rows = self.read(run).slice(place - self._ends[run] + self.sizes[run], 1)
        return rows["question"][0].as_py(), rows["answer"][0].as_py()
