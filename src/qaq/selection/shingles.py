"""The word 5-grams of texts as 64-bit numbers, and the buckets where MinHash puts them.

A text of fewer than five words has one shingle, of all its words; one without a word has none.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qaq.host.compiled import compiled
from qaq.selection.hashing import mix
from qaq.selection.ranks import IntArray
from qaq.selection.words import Hashes, most_words, plain, write_words

WORDS = 5
PER_BAND = 4
AT_ONCE = 4  # shingles, whose minima are then loaded and stored once


def shingles(texts: pa.Table, rows: IntArray) -> tuple[Hashes, IntArray]:
    """The shingles of some of the texts, in order; a row's columns make up its text together.

    Returns:
        The shingles, a repeated one as often as it stands there, and how many each text has.
    """
    eights, inside, edges = plain(texts)
    most = most_words(edges, rows)
    found, sizes = np.empty(int(most.sum()), np.uint64), np.empty(len(rows), np.int64)
    room = int(most.max(initial=0))
    count = _shingles(eights, inside, edges, rows, room, found, sizes)
    return found[:count].copy(), sizes


def fill_buckets(texts: pa.Table, rows: IntArray, found: Hashes) -> None:
    """Write the buckets of some of the texts to `found` [bands, all texts].

    Texts that agree on a band's four minima share one. Where a text has no word, what was there
    stays. Minima of 32 bits are enough: who meets by chance is found out by the exact comparison.
    """
    eights, inside, edges = plain(texts)
    most = int(most_words(edges, rows).max(initial=0))
    numbers = mix(np.arange(len(found) * PER_BAND, dtype=np.uint64))
    factors = (numbers | np.uint64(1)).astype(np.uint32)
    _buckets(eights, inside, edges, rows, most, factors, found)


@compiled
def _mix(x: np.uint64) -> np.uint64:
    """`qaq.selection.hashing.mix` of one number."""
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _write_shingles(words: Hashes, found: Hashes) -> int:
    """Write the shingles of a text's words to the beginning of `found`; how many there are.

    A shingle's hash is a polynomial in those of its words.
    """
    base = np.uint64(0x9E3779B97F4A7C15)
    if len(words) < WORDS:
        shingle = np.uint64(0)
        for word in words:
            shingle = shingle * base + word
        found[:1] = _mix(shingle)
        return min(len(words), 1)
    for i in range(len(words) - WORDS + 1):
        shingle = (words[i] * base + words[i + 1]) * base + words[i + 2]
        shingle = (shingle * base + words[i + 3]) * base + words[i + 4]
        found[i] = _mix(shingle)
    return len(words) - WORDS + 1


@compiled
def _shingles(
    eights: Hashes,
    inside: Hashes,
    edges: IntArray,
    rows: IntArray,
    most: int,
    found: Hashes,
    sizes: IntArray,
) -> int:
    """Write the shingles of the rows one after the other; how many there are."""
    room, words = np.empty(2 * most + 1, np.int64), np.empty(most, np.uint64)
    count = 0
    for i, row in enumerate(rows):
        number = write_words(eights, inside, edges, row, room, words)
        sizes[i] = _write_shingles(words[:number], found[count:])
        count += sizes[i]
    return count


@compiled
def _buckets(
    eights: Hashes,
    inside: Hashes,
    edges: IntArray,
    rows: IntArray,
    most: int,
    factors: npt.NDArray[np.uint32],
    found: Hashes,
) -> None:
    """Fill `found` [bands, texts]; of each factor times the shingles the least counts."""
    room, words = np.empty(2 * most + 1, np.int64), np.empty(most, np.uint64)
    shingles = np.empty(most + AT_ONCE, np.uint64)
    minima = np.empty(len(factors), np.uint32)
    for row in rows:
        number = write_words(eights, inside, edges, row, room, words)
        if number == 0:
            continue
        count = _write_shingles(words[:number], shingles)
        shingles[count : count + AT_ONCE] = shingles[0]
        minima[:] = 0xFFFFFFFF
        for first in range(0, count, AT_ONCE):
            a, b = np.uint32(shingles[first]), np.uint32(shingles[first + 1])
            c, d = np.uint32(shingles[first + 2]), np.uint32(shingles[first + 3])
            for i in range(len(factors)):
                factor = factors[i]
                left = min(np.uint32(a * factor), np.uint32(b * factor))
                right = min(np.uint32(c * factor), np.uint32(d * factor))
                minima[i] = min(minima[i], left, right)
        for band in range(found.shape[0]):
            together = np.uint64(band)  # so that no two bands share a bucket
            for minimum in minima[band * PER_BAND : (band + 1) * PER_BAND]:
                together = _mix(together ^ np.uint64(minimum))
            found[band, row] = max(together, np.uint64(1))
