"""The questions and answers of a pool, in the order of their file and never all of them twice.

Ten million rows are gigabytes of text. They are taken block by block as they lie in the file, each
row with its place in the pool; whoever needs a few rows in the pool's order asks for those. A small
file is read once and kept.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.artifacts import PAIRS, read_batches
from qaq.selection.ranks import IntArray

COLUMNS = ["question", "answer"]
TEXTS = pa.schema([PAIRS.field(name) for name in COLUMNS])
KEPT_BYTES = 1 << 30
ABSENT = -1

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Texts:
    """Rows of strings: those of `source` whose `place`, their index in the pool, is not ABSENT.

    `source` gives runs of rows, the same ones whenever it is gone through.
    """

    source: Iterable[pa.Table]
    place: IntArray

    def blocks(self) -> Iterator[tuple[IntArray, pa.Table]]:
        """Runs of rows in the order of the source, each row with its place in the pool."""
        start = 0
        for block in self.source:
            place = self.place[start : start + len(block)]
            start += len(block)
            there = place != ABSENT
            yield place[there], block if there.all() else block.filter(pa.array(there))

    def rows(self, mask: Mask) -> pa.Table:
        """The rows of the pool where `mask` is true, in its order."""
        places, tables = [np.empty(0, np.int64)], []
        for place, block in self.blocks():
            wanted = mask[place]
            tables.append(block.filter(pa.array(wanted)))
            places.append(place[wanted])
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places))))

    def take(self, mask: Mask) -> "Texts":
        """The texts of a pool of the rows where `mask` is true."""
        place = np.append(np.where(mask, np.cumsum(mask) - 1, ABSENT), ABSENT)
        return Texts(self.source, place[self.place])


@dataclass(frozen=True)
class File:
    """The texts of a pairs table, read anew each time."""

    path: Path

    def __iter__(self) -> Iterator[pa.Table]:
        """Runs of rows in their order; one run at least."""
        yield TEXTS.empty_table()
        yield from read_batches(self.path, PAIRS, COLUMNS)


@dataclass
class Kept:
    """What is read is kept, so that a second look costs nothing, and the first need not wait."""

    rest: Iterator[pa.Table]
    read: list[pa.Table] = field(default_factory=list)

    def __iter__(self) -> Iterator[pa.Table]:
        """Runs of rows in their order."""
        yield from self.read
        for block in self.rest:
            self.read.append(block)
            yield block


def texts_of(pairs: Path, place: IntArray) -> Texts:
    """The texts of a pairs table, kept in memory where they are not many.

    Args:
        pairs: the Parquet file.
        place: for each of its rows the index in the pool.
    """
    found = pq.read_metadata(pairs)
    size = sum(found.row_group(n).total_byte_size for n in range(found.num_row_groups))
    file = File(pairs)
    return Texts(Kept(iter(file)) if size <= KEPT_BYTES else file, place)
