"""From records to the rows of a pool: refusals counted, duplicates found, a sample drawn."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qaq.data.config import DataConfig
from qaq.data.refusals import READABLE
from qaq.data.rows import Entry, Pair, Reason, Rejected, raw_text, read_rows


@dataclass
class Counts:
    """What became of the rows: `read` = `kept` + all of `quarantined`."""

    read: int = 0
    kept: int = 0
    quarantined: Counter[Reason] = field(default_factory=Counter)
    first: dict[Reason, Rejected] = field(default_factory=dict)  # an example of each reason
    dropped: Counter[str] = field(default_factory=Counter)  # kept rows without `Pair.dropped`
    files: list[str] = field(default_factory=list)  # their names, where the source has files
    parts: Counter[str] = field(default_factory=Counter)  # kept rows with an input, a system turn

    @property
    def unreadable(self) -> int:
        """Rows that may hold a pair which was not found."""
        return sum(n for reason, n in self.quarantined.items() if reason not in READABLE)

    @property
    def reasons(self) -> str:
        """Each reason with its number, and its first row."""
        return "; ".join(
            f"{number} {reason} (first: row {self._where(self.first[reason])}, "
            f"{self.first[reason].detail})"
            for reason, number in self.quarantined.most_common()
        )

    def _where(self, row: Rejected) -> str:
        file = f" of {self.files[row.file - 1]}" if row.file and len(self.files) > 1 else ""
        return f"{row.position}{file}"


def lost(counts: Mapping[str, Any]) -> str | None:
    """What of a source is not in the pool, in a sentence, from `counts.json`; None: nothing."""
    reasons: dict[str, int] = counts.get("quarantined", {})
    dropped: dict[str, int] = counts.get("dropped", {})
    said = []
    if reasons:
        listed = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
        total = sum(reasons.values())
        said.append(f"{total} of {counts['read']} rows of the source are not in the pool: {listed}")
    if turns := dropped.get("turns"):
        said.append(f"of {turns} conversations the first exchange is taken (data.turns)")
    if system := dropped.get("system"):
        said.append(f"the system turns of {system} rows are left out (data.system=drop)")
    return "; ".join(said) + "." if said else None


def screen(
    entries: Iterable[Entry | Rejected], source: str, data: DataConfig
) -> Iterator[Pair | Rejected]:
    """Read every record; a row whose question and answer came before is a duplicate."""
    seen: dict[str, tuple[int, int | None]] = {}
    for entry in entries:
        if isinstance(entry, Rejected):
            yield entry
            continue
        for row in read_rows(entry, source, data.fields, data.turns, data.system):
            if isinstance(row, Pair) and row.row_id in seen:
                position, file = seen[row.row_id]
                where = "" if file == entry.file else f" of file {file}"
                detail = f"question and answer are those of row {position}{where}"
                yield Rejected(entry.position, "duplicate", detail, raw_text(entry), entry.file)
                continue
            if isinstance(row, Pair):
                seen[row.row_id] = entry.position, entry.file
            yield row


def kept(
    rows: Iterable[Pair | Rejected], counts: Counts, refuse: Callable[[Rejected], None]
) -> Iterator[Pair]:
    """The pairs among `rows`; hands the others to `refuse` and counts both."""
    for row in rows:
        counts.read += 1
        if isinstance(row, Pair):
            counts.kept += 1
            counts.dropped.update(row.dropped)
            counts.parts["input"] += row.input_start is not None
            counts.parts["system"] += row.system is not None or "system" in row.dropped
            yield row
        else:
            counts.quarantined[row.reason] += 1
            counts.first.setdefault(row.reason, row)
            refuse(row)


def sample(pairs: Iterable[Pair], limit: int | None, seed: int) -> Iterable[Pair]:
    """At most `limit` pairs, in their order: those with the lowest hashes of seed and id.

    Without a limit the pairs as they come.

    The draw does not depend on the order of the pairs, and a smaller sample is part of a larger
    one of the same seed.
    """
    if limit is None:
        return pairs
    drawn = heapq.nsmallest(limit, enumerate(pairs), key=lambda item: _draw(seed, item[1]))
    return [pair for _, pair in sorted(drawn, key=lambda item: item[0])]


def _draw(seed: int, pair: Pair) -> str:
    return hashlib.sha256(f"{seed}/{pair.row_id}".encode()).hexdigest()
