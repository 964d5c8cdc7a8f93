"""Planted noise: a known share of the rows is damaged in named ways, reproducibly.

Rows are drawn by a hash of the seed, the kind of damage and the row's own id, so the draw does
not depend on the order of the pool, and a row's damage not on the other rows drawn. Kinds never
share a row. A damaged row is a new row: its id is that of its new text, and `planted.parquet`
says which row it was.
"""

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from qaq.data.config import Defect
from qaq.data.defects import DAMAGES, answers_another_question
from qaq.data.neighbours import Neighbours
from qaq.data.rows import Pair, canonical
from qaq.host.errors import DataError

LEAST_LIKENESS = 0.25  # cosine below which the nearest question is no neighbour


@dataclass(frozen=True)
class Planted:
    """One damaged row of the pool, and where it was planted."""

    position: int
    pair: Pair
    original_row_id: str


def plant(
    pool: Sequence[Pair], shares: Mapping[Defect, float], seed: int
) -> tuple[list[Pair], list[Planted]]:
    """Damage `round(share * rows)` rows by each kind; the other rows and the order stay.

    Returns:
        The pool with the damaged rows in their places, and the damaged rows in order.

    Raises:
        DataError: fewer rows can carry a kind of damage than its share asks for.
    """
    ids = [pair.row_id for pair in pool]
    taken = set(ids)
    free = set(range(len(pool)))
    planted: list[Planted] = []
    for kind in DAMAGES:
        wanted = round(shares.get(kind, 0.0) * len(pool))
        done = 0
        for position, pair in _damaged(kind, pool, ids, free, seed) if wanted else ():
            if pair.row_id not in taken:
                taken.add(pair.row_id)
                free.discard(position)
                planted.append(Planted(position, pair, ids[position]))
                done += 1
            if done == wanted:
                break
        if done < wanted:
            raise DataError(
                f"noise.shares.{kind}={shares[kind]:g} asks for {wanted} of {len(pool)} rows, but "
                f"only {done} can be damaged in this way; lower the share or take a larger pool"
            )
    planted.sort(key=lambda row: row.position)
    noisy = list(pool)
    for row in planted:
        noisy[row.position] = row.pair
    return noisy, planted


def _damaged(
    kind: Defect, pool: Sequence[Pair], ids: Sequence[str], free: set[int], seed: int
) -> Iterator[tuple[int, Pair]]:
    """Damaged forms of the free rows that the damage fits, in the order of the draw.

    The donor of a row is the row after it in the draw, so nearly every answer is given away once;
    for `neighbour_answer` it is the row with the most similar question.
    """
    order = sorted(free, key=lambda position: _draw(seed, kind, ids[position]))
    donors: Iterable[int | None] = order[1:] + order[:1]
    if kind == "neighbour_answer":
        neighbours = Neighbours([pair.question for pair in pool])
        donors = (_neighbour(position, pool, neighbours) for position in order)
    for position, donor in zip(order, donors, strict=True):
        pair = pool[position]
        rng = random.Random(_draw(seed, kind, ids[position]))
        try:
            texts = None if donor is None else DAMAGES[kind](pair, pool[donor], rng)
        except RecursionError:  # a long sum, or a long chain of elif
            texts = None
        if texts is None:
            continue
        question, answer = canonical(texts[0]), canonical(texts[1])
        if question and answer and (question, answer) != (pair.question, pair.answer):
            start = _input_start(pair, question)
            yield (
                position,
                replace(pair, question=question, answer=answer, defect=kind, input_start=start),
            )


def _input_start(pair: Pair, question: str) -> int | None:
    """Where the pair's input part begins in its damaged question; null where it is not there."""
    if pair.input_start is None:
        return None
    end = pair.question[max(0, pair.input_start - 2) :]  # with the blank line before it
    return len(question) - len(pair.question) + pair.input_start if question.endswith(end) else None


def _neighbour(position: int, pool: Sequence[Pair], neighbours: Neighbours) -> int | None:
    """The row with the most similar question whose answer is not much the same as this one's."""
    for other, likeness in neighbours.ranked(position):
        if likeness < LEAST_LIKENESS:
            return None
        if answers_another_question(pool[position], pool[other]):
            return other
    return None


def _draw(seed: int, kind: Defect, row_id: str) -> str:
    return hashlib.sha256(f"{seed}/{kind}/{row_id}".encode()).hexdigest()
