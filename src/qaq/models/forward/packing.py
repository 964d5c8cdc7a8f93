"""Sequences packed end to end for one forward pass: no padding, and a common beginning only once.

In a causal model the states of a prefix do not depend on what follows. So sequences are put in
lexicographic order, and each adds only the tokens in which it differs from the one before it: a
system prompt, a template's opening or a whole repeated text is run once per pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """The new tokens `start : start + length` of a pack, which see the tokens `keys`.

    `keys` is the whole sequence from its first token to the segment's last, as indices into the
    pack; the segment's own tokens are its end.
    """

    start: int
    length: int
    keys: Ids

    @property
    def shared(self) -> int:
        """Tokens before the segment that an earlier sequence brought along."""
        return len(self.keys) - self.length


@dataclass(frozen=True)
class Pack:
    """Tokens of several sequences. `paths[i][j]` is where token j of sequence i stands."""

    ids: Ids
    positions: Ids  # of each token in its sequence, from 0
    segments: tuple[Segment, ...]
    paths: tuple[Ids, ...]


def pack(sequences: Sequence[Ids]) -> Pack:
    """Lay sequences end to end, shared beginnings once; `paths` keeps the order given."""
    ids: list[int] = []
    positions: list[int] = []
    segments = []
    paths: list[Ids] = [()] * len(sequences)
    before: Ids = ()
    path: Ids = ()
    for at in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[at]
        shared = common_prefix(before, sequence)
        start, length = len(ids), len(sequence) - shared
        path = path[:shared] + tuple(range(start, start + length))
        if length:
            segments.append(Segment(start, length, path))
        ids += sequence[shared:]
        positions += range(shared, len(sequence))
        paths[at], before = path, sequence
    return Pack(tuple(ids), tuple(positions), tuple(segments), tuple(paths))


def end_to_end(sequences: Sequence[Ids]) -> Pack:
    """Lay sequences end to end in the order given, each with its own beginning."""
    segments = []
    start = 0
    for sequence in sequences:
        keys = tuple(range(start, start + len(sequence)))
        segments.append(Segment(start, len(sequence), keys))
        start += len(sequence)
    ids = tuple(i for sequence in sequences for i in sequence)
    positions = tuple(n for sequence in sequences for n in range(len(sequence)))
    return Pack(ids, positions, tuple(segments), tuple(s.keys for s in segments))


def common_prefix(one: Ids, two: Ids) -> int:
    """How many tokens two sequences have in common at their beginning."""
    shortest = min(len(one), len(two))
    if one[:shortest] == two[:shortest]:
        return shortest
    return next(n for n in range(shortest) if one[n] != two[n])
