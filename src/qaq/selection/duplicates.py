"""Near-duplicates: rows whose word 5-grams overlap with an earlier row's.

A row's text (question and answer, in lower case) is the set of its runs of five words. Two rows
are near-duplicates if the Jaccard index of their sets, shared / all, reaches the threshold. Rows
are visited in the order given, and one that is a near-duplicate of a row kept before it goes; so
of a group one row stays, and no chain of small changes removes more than it should.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3):
128 minima in 32 bands of 4, so a pair at Jaccard s is looked at with probability
1 - (1 - s^4)^32: 0.988 at 0.6, above 0.9999999 at 0.8. Every candidate is then checked exactly, so
what is found is true, and what is missed is rare and near the threshold. Words are found, hashed
and joined in arrays over whole blocks of text: no loop over rows but for the few candidates.
"""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qaq.selection.hashing import mix
from qaq.selection.ranks import IntArray

Hashes = npt.NDArray[np.uint64]

WORDS = 5
BANDS, PER_BAND = 32, 4
BLOCK_BYTES = 4 << 20
NOT_DUPLICATE = -1


def near_duplicates(texts: pa.ChunkedArray, jaccard: float) -> IntArray:
    """For each text the earlier kept text that it repeats, or NOT_DUPLICATE.

    Args:
        texts: strings, in the order in which rows have precedence.
        jaccard: the share of 5-grams in common from which two texts count as one.
    """
    lowered = pc.utf8_lower(texts)
    signatures = [_buckets(*shingles(block)) for block in _blocks(lowered)]
    buckets = np.concatenate(signatures) if signatures else np.empty((0, BANDS), np.uint64)
    shared = _shared(buckets)
    candidates = np.flatnonzero(shared.any(axis=1))
    sets = _sets(lowered.take(pa.array(candidates)))
    original = np.full(len(texts), NOT_DUPLICATE, np.int64)
    heads: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, row in enumerate(candidates.tolist()):
        keys = [(int(band), int(buckets[row, band])) for band in np.flatnonzero(shared[row])]
        earlier = sorted({head for key in keys for head in heads[key]})
        found = next((p for p in earlier if _jaccard(sets[p], sets[place]) >= jaccard), None)
        if found is None:
            for key in keys:
                heads[key].append(place)
        else:
            original[row] = candidates[found]
    return original


def shingles(texts: pa.Array) -> tuple[Hashes, IntArray]:
    """The distinct word 5-grams of each text as 64-bit hashes, and where each text's begin.

    A text of fewer words has one shingle, of all its words; one without a word has none.

    Returns:
        The hashes, sorted inside each text, and `starts` of len(texts) + 1.
    """
    words, row = _words(texts)
    size = np.bincount(row, minlength=len(texts))
    first = np.cumsum(size) - size
    position = np.arange(len(words)) - first[row]  # of the word in its text
    grams = np.zeros(len(words), np.uint64)
    for k in range(WORDS):
        inside = position + k < size[row]
        grams[inside] += mix(words[np.flatnonzero(inside) + k] + np.uint64(k))
    whole = position <= np.maximum(size[row] - WORDS, 0)
    grams, row = mix(grams[whole]), row[whole]
    order = np.lexsort((grams, row))
    grams, row = grams[order], row[order]
    new = np.r_[True, (grams[1:] != grams[:-1]) | (row[1:] != row[:-1])][: len(grams)]
    counts = np.bincount(row[new], minlength=len(texts))
    return grams[new], np.r_[0, np.cumsum(counts)]


def _words(texts: pa.Array) -> tuple[Hashes, IntArray]:
    """The hash of every word, in order, and the text it stands in.

    A word is a run of ASCII letters, digits and underscores, or of bytes beyond ASCII.
    """
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    data = np.frombuffer(b"".join(texts.cast(pa.binary()).to_pylist()), np.uint8)
    row = np.repeat(np.arange(len(texts)), lengths)
    inside = _WORD_BYTE[data]
    begins = inside & ~np.r_[False, inside[:-1] & (row[1:] == row[:-1])][: len(data)]
    starts = np.flatnonzero(begins)
    if len(starts) == 0:
        return np.empty(0, np.uint64), np.empty(0, np.int64)
    word = np.cumsum(begins) - 1
    offset = np.arange(len(data)) - starts[np.maximum(word, 0)]
    powers = _powers(int(offset[inside].max()) + 1)
    values = np.zeros(len(data), np.uint64)
    values[inside] = (data[inside].astype(np.uint64) + np.uint64(1)) * powers[offset[inside]]
    return mix(np.add.reduceat(values, starts)), row[starts]


def _powers(count: int) -> Hashes:
    """Powers of an odd number modulo 2^64."""
    with np.errstate(over="ignore"):
        base = np.full(count, 0x100000001B3, np.uint64)
        base[0] = 1
        return np.multiply.accumulate(base)


def _buckets(grams: Hashes, starts: IntArray) -> Hashes:
    """One bucket per band for each text: texts that agree on a band's four minima share it.

    A text without a word gets bucket 0, which `_shared` leaves out.
    """
    counts = np.diff(starts)
    some = np.flatnonzero(counts)
    buckets = np.zeros((len(counts), BANDS), np.uint64)
    for band in range(BANDS):
        together = np.zeros(len(some), np.uint64)
        for k in range(PER_BAND if len(some) else 0):
            odd = mix(np.array([band * PER_BAND + k], np.uint64)) | np.uint64(1)
            minima = np.minimum.reduceat(grams * odd, starts[some])
            together = mix(together ^ minima)
        buckets[some, band] = np.maximum(together, 1)
    return buckets


def _shared(buckets: Hashes) -> npt.NDArray[np.bool_]:
    """Where a text's bucket also holds another text."""
    shared = np.zeros(buckets.shape, np.bool_)
    for band in range(buckets.shape[1]):
        _, index, counts = np.unique(buckets[:, band], return_inverse=True, return_counts=True)
        shared[:, band] = (counts[index] > 1) & (buckets[:, band] != 0)
    return shared


def _sets(texts: pa.ChunkedArray) -> list[Hashes]:
    """The shingles of each text as an array of its own."""
    found: list[Hashes] = []
    for block in _blocks(texts):
        grams, starts = shingles(block)
        found += np.split(grams, starts[1:-1])
    return found


def _jaccard(first: Hashes, second: Hashes) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _blocks(texts: pa.ChunkedArray) -> list[pa.Array]:
    """The texts in runs of about BLOCK_BYTES."""
    ends = np.cumsum(pc.binary_length(texts).to_numpy())
    cuts = np.flatnonzero(np.diff(ends // BLOCK_BYTES)) + 1
    edges = [0, *cuts.tolist(), len(texts)]
    return [pa.concat_arrays(texts.slice(a, b - a).chunks) for a, b in pairwise(edges) if b > a]


_WORD_BYTE = np.zeros(256, np.bool_)
_WORD_BYTE[128:] = True
_WORD_BYTE[np.frombuffer(b"0123456789_abcdefghijklmnopqrstuvwxyz", np.uint8)] = True
