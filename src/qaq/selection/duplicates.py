"""Near-duplicates: rows whose word 5-grams overlap with an earlier row's.

A row's text (question and answer, in lower case) is the set of its runs of five words. Two rows
are near-duplicates if the Jaccard index of their sets, shared / all, reaches the threshold. Rows
are visited in the order given, and one that is a near-duplicate of a row kept before it goes; so
of a group one row stays, and no chain of small changes removes more than it should.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3):
bands of four minima, as many as are needed so that a pair exactly at the threshold s is overlooked
once in a thousand, (1 - s^4)^bands. That is 13 bands at 0.8, where a pair at 0.9 is overlooked once
in a million. Every candidate is then checked exactly, so what is found is true. Words are found,
hashed and joined in arrays over whole blocks of text, a block on each core: no loop over rows but
for the candidates, and there only texts that share something rare are compared.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qaq.hardware import cores
from qaq.selection.hashing import mix
from qaq.selection.ranks import IntArray, Mask
from qaq.selection.texts import Texts

Hashes = npt.NDArray[np.uint64]
T = TypeVar("T")
R = TypeVar("R")

WORDS = 5
PER_BAND = 4
OVERLOOKED = 1e-3
COUNTED_BITS = 20
BLOCK_BYTES = 3 << 19  # so that a block's arrays stay near the processor
BASE = 0x9E3779B97F4A7C15
INVERSE = pow(BASE, -1, 1 << 64)
NOT_DUPLICATE = -1


def near_duplicates(texts: Texts, among: Mask, jaccard: float) -> IntArray:
    """For each row of the pool the earlier kept row that it repeats, or NOT_DUPLICATE.

    Args:
        texts: the columns of strings that make up a row's text together.
        among: the rows of the pool that count; the others repeat nothing and nothing repeats them.
        jaccard: the share of 5-grams in common from which two texts count as one.
    """
    with ThreadPoolExecutor(cores()) as threads:
        meets = _meeting(texts, among, _bands(jaccard), threads)
        found = _ahead(threads, lambda block: shingles(_joined(block)), _blocks(texts.rows(meets)))
        repeated = _repeated(_sets(list(found)), jaccard)
    original = np.full(len(among), NOT_DUPLICATE, np.int64)
    repeats = repeated != NOT_DUPLICATE
    candidates = np.flatnonzero(meets)
    original[candidates[repeats]] = candidates[repeated[repeats]]
    return original


def _meeting(texts: Texts, among: Mask, bands: int, threads: ThreadPoolExecutor) -> Mask:
    """The rows that share a bucket with another one."""
    buckets = np.zeros((bands, len(among)), np.uint64)

    def fill(part: tuple[IntArray, pa.Table]) -> None:
        place, block = part
        buckets[:, place] = _buckets(*shingles(_joined(block)), bands)

    for _ in _ahead(threads, fill, _parts(texts)):
        pass
    buckets[:, ~among] = 0
    shared: Mask = np.any(list(threads.map(_shared, buckets)), axis=0)
    return shared


def _bands(jaccard: float) -> int:
    """So many that a pair at the threshold is overlooked no more often than OVERLOOKED."""
    if jaccard == 1:
        return 1
    return math.ceil(math.log(OVERLOOKED) / math.log1p(-(jaccard**PER_BAND)))


def shingles(texts: pa.Array) -> tuple[Hashes, IntArray]:
    """The word 5-grams of each text as 64-bit hashes, in order, and where each text's begin.

    A text of fewer words has one shingle, of all its words; one without a word has none.

    Returns:
        The hashes, a repeated one as often as it stands there, and `starts` of len(texts) + 1.
    """
    words, size = _words(texts)
    room = np.where(size > 0, np.maximum(size, WORDS), 0)  # short texts are filled up with zeros
    ends = np.cumsum(room)
    filled = np.zeros(room.sum(), np.uint64)
    filled[np.arange(len(words)) + np.repeat(ends - room - np.cumsum(size) + size, size)] = words
    grams = filled.copy()
    for k in range(1, WORDS):
        grams[:-k] += filled[k:] * _powers(BASE, WORDS)[k]
    whole = np.ones(len(grams), np.bool_)
    for k in range(1, WORDS):
        whole[ends[room > 0] - k] = False  # these reach into the next text
    return mix(grams[whole]), np.r_[0, np.cumsum(np.maximum(room - WORDS + 1, 0))]


def _words(texts: pa.Array) -> tuple[Hashes, IntArray]:
    """The hash of every word, in order, and the number of words of each text.

    A word is a run of ASCII letters, digits and underscores, or of bytes beyond ASCII. Its hash is
    a polynomial in its bytes modulo 2^64, with powers that run on through the block and are taken
    back at the word's first byte: two passes, whatever the lengths.
    """
    ascii_only = pc.all(pc.string_is_ascii(texts)).as_py()  # the table of hashes lowers these
    lowered = (texts if ascii_only else pc.utf8_lower(texts)).cast(pa.large_string())
    edges = np.frombuffer(lowered.buffers()[1], np.int64)[lowered.offset :][: len(texts) + 1]
    data = np.frombuffer(lowered.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    edges = edges - edges[0]
    values = np.empty(len(data), np.uint64)
    np.take(_BYTE_HASH, data, out=values, mode="clip")  # no mode but this one is fast
    inside = values != 0
    begins = inside.copy()
    begins[1:] &= ~inside[:-1]
    heads = edges[edges < len(data)]
    begins[heads] = inside[heads]
    starts = np.flatnonzero(begins)
    if len(starts) == 0:
        return np.empty(0, np.uint64), np.zeros(len(texts), np.int64)
    values *= _powers(BASE, len(data))
    sums = np.cumsum(values, out=values)  # a word is what it adds, up to the next word
    words = np.diff(sums[np.r_[starts[1:], len(data)] - 1], prepend=np.uint64(0))
    return mix(words * _powers(INVERSE, len(data))[starts]), np.diff(np.searchsorted(starts, edges))


def _powers(base: int, count: int) -> Hashes:
    """The first powers of an odd number modulo 2^64."""
    return _power_table(base, count.bit_length())[:count]


@lru_cache
def _power_table(base: int, bits: int) -> Hashes:
    powers = np.full(1 << bits, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _buckets(grams: Hashes, starts: IntArray, bands: int) -> Hashes:
    """Buckets by band and text: texts that agree on a band's four minima share one.

    A text without a word gets bucket 0, which `_shared` leaves out. Minima of 32 bits are enough:
    who meets by chance is found out by the exact comparison.
    """
    counts = np.diff(starts)
    some = np.flatnonzero(counts)
    buckets = np.zeros((bands, len(counts)), np.uint64)
    if len(some) == 0:
        return buckets
    short = grams.astype(np.uint32)
    product = np.empty_like(short)
    odd = (mix(np.arange(bands * PER_BAND, dtype=np.uint64)) | np.uint64(1)).astype(np.uint32)
    for band in range(bands):
        together = np.full(len(some), band, np.uint64)  # so that no two bands share a bucket
        for factor in odd[band * PER_BAND : (band + 1) * PER_BAND]:
            minima = np.minimum.reduceat(np.multiply(short, factor, out=product), starts[some])
            together = mix(together ^ minima)
        buckets[band, some] = np.maximum(together, 1)
    return buckets


def _shared(buckets: Hashes) -> npt.NDArray[np.bool_]:
    """Where a text's bucket in one band also holds another text."""
    order = np.argsort(buckets)
    ordered = buckets[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    shared = np.zeros(len(buckets), np.bool_)
    shared[order[1:][same]] = True
    shared[order[:-1][same]] = True
    return shared


def _sets(found: list[tuple[Hashes, IntArray]]) -> list[Hashes]:
    """The distinct shingles of each text, the rarest first: sorted numbers that begin with a count.

    Counts are of all shingles whose hashes begin alike, which is near enough for an order.
    """
    grams = np.concatenate([np.empty(0, np.uint64), *(grams for grams, _ in found)])
    sizes = np.concatenate([np.empty(0, np.int64), *(np.diff(starts) for _, starts in found)])
    kind = (grams >> np.uint64(64 - COUNTED_BITS)).astype(np.int32)
    counts = np.minimum(np.bincount(kind, minlength=1 << COUNTED_BITS), (1 << 20) - 1)
    numbers = counts.astype(np.uint64)[kind] << np.uint64(44) | grams & np.uint64((1 << 44) - 1)
    edges = np.r_[0, np.cumsum(sizes)]
    for a, b in pairwise(edges.tolist()):
        numbers[a:b].sort()
    new = np.r_[True, numbers[1:] != numbers[:-1]][: len(numbers)]
    new[edges[:-1]] = True
    distinct, edges = numbers[new], np.r_[0, np.cumsum(new)][edges]
    return [distinct[a:b] for a, b in pairwise(edges.tolist())]


def _repeated(sets: list[Hashes], jaccard: float) -> IntArray:
    """For each set the first kept one before it that it repeats, or NOT_DUPLICATE.

    Sets that reach the threshold have one of their rarest shingles in common, among the first
    n - ceil(jaccard n) + 1 of each (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant
    2007). So what many texts begin with brings no two of them together.
    """
    repeated = np.full(len(sets), NOT_DUPLICATE, np.int64)
    kept: dict[int, list[int]] = {}  # by shingle
    for place, mine in enumerate(sets):
        shared_at_least = math.ceil(jaccard * len(mine) - 1e-9)
        rarest = mine[: len(mine) - shared_at_least + 1].tolist()
        before = sorted({one for shingle in rarest if shingle in kept for one in kept[shingle]})
        if before:
            reached = _jaccard(mine, [sets[one] for one in before]) >= jaccard
            if reached.any():
                repeated[place] = before[reached.argmax()]
                continue
        for shingle in rarest:
            kept.setdefault(shingle, []).append(place)
    return repeated


def _jaccard(mine: Hashes, others: list[Hashes]) -> npt.NDArray[np.float64]:
    """The Jaccard index of a set, as sorted numbers, with each of the others (one at least)."""
    sizes = np.array([len(other) for other in others])
    joined = np.concatenate(others)
    same = mine.take(mine.searchsorted(joined), mode="clip") == joined
    shared = np.add.reduceat(same, np.cumsum(sizes) - sizes, dtype=np.int64)
    return np.asarray(shared / (len(mine) + sizes - shared))


def _parts(texts: Texts) -> Iterator[tuple[IntArray, pa.Table]]:
    """All rows in runs of about BLOCK_BYTES, with their places in the pool."""
    for place, rows in texts.blocks():
        start = 0
        for block in _blocks(rows):
            yield place[start : start + len(block)], block
            start += len(block)


def _blocks(texts: pa.Table) -> Iterator[pa.Table]:
    """The rows in runs of about BLOCK_BYTES."""
    ends = np.cumsum(sum(pc.binary_length(column).to_numpy() for column in texts.columns))
    cuts = np.flatnonzero(np.diff(ends // BLOCK_BYTES)) + 1
    edges = [0, *cuts.tolist(), len(texts)]
    return (texts.slice(a, b - a) for a, b in pairwise(edges) if b > a)


def _ahead(threads: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results in order, while few more items are taken than are being worked on."""
    under_way: deque[Future[R]] = deque()
    for item in items:
        under_way.append(threads.submit(work, item))
        if len(under_way) > 2 * cores():
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _joined(block: pa.Table) -> pa.Array:
    """The columns' texts, a line break between them."""
    columns = [column.combine_chunks() for column in block.columns]
    return pc.binary_join_element_wise(*columns, pa.scalar("\n", columns[0].type))


# 0 for bytes between words and for no other; capitals as small letters
_BYTES = np.frombuffer(bytes(range(256)).lower(), np.uint8)
_IN_WORDS = np.isin(_BYTES, np.frombuffer(b"0123456789_abcdefghijklmnopqrstuvwxyz", np.uint8))
_BYTE_HASH = np.where(_IN_WORDS | (_BYTES >= 128), mix(_BYTES.astype(np.uint64)), np.uint64(0))
