"""From records to the rows of a pool: refusals counted, duplicates found, a sample drawn."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from qaq.data.rows import Entry, Pair, Reason, Rejected, raw_text, read_row


@dataclass
class Counts:
    """What became of the rows: `read` = `kept` + all of `quarantined`."""

    read: int = 0
    kept: int = 0
    quarantined: Counter[Reason] = field(default_factory=Counter)
    first: dict[Reason, Rejected] = field(default_factory=dict)  # an example of each reason


def screen(entries: Iterable[Entry | Rejected], source: str) -> Iterator[Pair | Rejected]:
    """Read every record; a row whose question and answer came before is a duplicate."""
    seen: dict[str, int] = {}
    for entry in entries:
        row = entry if isinstance(entry, Rejected) else read_row(entry, source)
        if isinstance(row, Pair) and isinstance(entry, Entry):
            before = seen.setdefault(row.row_id, entry.position)
            if before != entry.position:
                detail = f"question and answer are those of row {before}"
                row = Rejected(entry.position, "duplicate", detail, raw_text(entry))
        yield row


def kept(
    rows: Iterable[Pair | Rejected], counts: Counts, refuse: Callable[[Rejected], None]
) -> Iterator[Pair]:
    """The pairs among `rows`; hands the others to `refuse` and counts both."""
    for row in rows:
        counts.read += 1
        if isinstance(row, Pair):
            counts.kept += 1
            yield row
        else:
            counts.quarantined[row.reason] += 1
            counts.first.setdefault(row.reason, row)
            refuse(row)


def sample(pairs: Iterable[Pair], limit: int | None, seed: int) -> list[Pair]:
    """At most `limit` pairs, in their order: those with the lowest hashes of seed and id.

    The draw does not depend on the order of the pairs, and a smaller sample is part of a larger
    one of the same seed.
    """
    if limit is None:
        return list(pairs)
    drawn = heapq.nsmallest(limit, enumerate(pairs), key=lambda item: _draw(seed, item[1]))
    return [pair for _, pair in sorted(drawn, key=lambda item: item[0])]


def _draw(seed: int, pair: Pair) -> str:
    return hashlib.sha256(f"{seed}/{pair.row_id}".encode()).hexdigest()
