"""The questions and answers of a pool, taken in runs of rows as they lie in the file.

Ten million rows are gigabytes of text, too much to hold and to put in order. So each row comes with
its place in the pool, and whoever needs a few rows in the pool's order asks for those.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from qaq.artifacts import PAIRS, read_batches
from qaq.selection.ranks import IntArray, Mask

COLUMNS = ["question", "answer"]
TEXTS = pa.schema([(name, pa.large_string()) for name in COLUMNS])  # a column may pass 2 GiB
KEPT_BYTES = 1 << 30
ABSENT = -1


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


@dataclass
class File:
    """The texts of a pairs table; those of a small one are kept when they were read once."""

    path: Path
    kept: list[pa.Table] | None = None

    def __iter__(self) -> Iterator[pa.Table]:
        """Runs of rows in their order; one run at least."""
        if self.kept is not None:
            yield from self.kept
            return
        read, size = [TEXTS.empty_table()], 0
        yield from read
        for rows in read_batches(self.path, PAIRS, COLUMNS):
            block = rows.cast(TEXTS)
            size += block.nbytes
            read = [*read, block] if size <= KEPT_BYTES else []
            yield block
        if size <= KEPT_BYTES:
            self.kept = read
