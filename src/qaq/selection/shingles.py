"""The word 5-grams of texts as 64-bit numbers, and the buckets where MinHash puts them.

A word is a run of ASCII letters (whose case does not count), digits and underscores, or of bytes
beyond ASCII. A text of fewer than five words has one shingle, of all its words; one without a word
has none. The loops are compiled at their first use and kept in the user's cache.
"""

import contextlib
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qaq.cache import cache_dir
from qaq.selection.hashing import mix
from qaq.selection.ranks import IntArray

Hashes = npt.NDArray[np.uint64]
Column = tuple[npt.NDArray[np.uint8], IntArray]  # bytes, and where each text begins and ends
Columns = tuple[Column, ...]
F = TypeVar("F", bound=Callable[..., object])

WORDS = 5
PER_BAND = 4
NONE = np.uint64(0)

# 0 for bytes between words and for no other; capitals as small letters
_BYTES = np.frombuffer(bytes(range(256)).lower(), np.uint8)
_IN_WORDS = np.isin(_BYTES, np.frombuffer(b"0123456789_abcdefghijklmnopqrstuvwxyz", np.uint8))
_BYTE_HASH = np.where(_IN_WORDS | (_BYTES >= 128), mix(_BYTES.astype(np.uint64)), np.uint64(0))

with contextlib.suppress(OSError, RuntimeError):  # no home, or one that cannot be written
    numba.config.CACHE_DIR = str(cache_dir() / "compiled")  # type: ignore[attr-defined]


def compiled(function: F) -> F:
    """Compile a loop over arrays; it leaves the other threads alone while it runs."""
    try:
        made = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep it; each process compiles for itself
        made = numba.njit(nogil=True)(function)
    return cast(F, made)


def shingles(texts: pa.Table, rows: IntArray) -> tuple[Hashes, IntArray]:
    """The shingles of some of the texts, in order; a row's columns make up its text together.

    Returns:
        The shingles, a repeated one as often as it stands there, and how many each text has.
    """
    columns = _columns(texts)
    room = sum((len(data) + 1) // 2 + len(edges) for data, edges in columns)
    found, sizes = np.empty(room, np.uint64), np.empty(len(rows), np.int64)
    return found[: _shingles(columns, rows, _BYTE_HASH, found, sizes)].copy(), sizes


def fill_buckets(texts: pa.Table, found: Hashes) -> None:
    """Write buckets to `found` [bands, texts]: who agrees on a band's four minima shares one.

    Zeros stay where a text has no word. Minima of 32 bits are enough: who meets by chance is found
    out by the exact comparison.
    """
    numbers = mix(np.arange(len(found) * PER_BAND, dtype=np.uint64))
    _buckets(_columns(texts), _BYTE_HASH, (numbers | np.uint64(1)).astype(np.uint32), found)


def _columns(texts: pa.Table) -> Columns:
    return tuple(_column(_one_array(column)) for column in texts.columns)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array; copied only if it is several (`combine_chunks` always copies)."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _column(texts: pa.Array) -> Column:
    """The bytes of an array of texts; letters beyond ASCII are made small ones."""
    data, edges = _bytes(texts.cast(pa.large_string()))
    if data.max(initial=0) < 128:  # the table of hashes lowers these
        return data, edges
    return _bytes(pc.utf8_lower(texts).cast(pa.large_string()))


def _bytes(texts: pa.Array) -> Column:
    edges = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    data.flags.writeable = False  # of any array: what is compiled depends on it
    return data, edges - edges[0]


@compiled
def _mix(x: np.uint64) -> np.uint64:
    """`qaq.selection.hashing.mix` of one number."""
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@compiled
def _shingles_of(columns: Columns, row: int, byte_hash: Hashes, found: Hashes) -> int:
    """Write the shingles of one text to the beginning of `found`; how many there are.

    A word's hash is a polynomial in the hashes of its bytes, a shingle's one in those of its words.
    """
    base = np.uint64(0x9E3779B97F4A7C15)
    one = two = three = four = shingle = np.uint64(0)  # the last four words; the last five together
    words = count = 0
    for data, edges in columns:
        place, end = edges[row], edges[row + 1]
        while place < end:
            byte = byte_hash[data[place]]
            place += 1
            if byte == NONE:
                continue
            word = NONE
            while byte != NONE:
                word = (word + byte) * base
                if place == end:
                    break
                byte = byte_hash[data[place]]
                place += 1
            word = _mix(word)
            shingle = (((one * base + two) * base + three) * base + four) * base + word
            one, two, three, four = two, three, four, word
            words += 1
            if words >= WORDS:
                found[count] = _mix(shingle)
                count += 1
    if 0 < words < WORDS:
        found[0] = _mix(shingle)
        count = 1
    return count


@compiled
def _shingles(
    columns: Columns, rows: IntArray, byte_hash: Hashes, found: Hashes, sizes: IntArray
) -> int:
    """Write the shingles of the rows one after the other; how many there are."""
    count = 0
    for i, row in enumerate(rows):
        sizes[i] = _shingles_of(columns, row, byte_hash, found[count:])
        count += sizes[i]
    return count


@compiled
def _buckets(
    columns: Columns, byte_hash: Hashes, factors: npt.NDArray[np.uint32], found: Hashes
) -> None:
    """Fill `found` [bands, texts]; of each factor times the shingles the least counts."""
    longest = 0
    for row in range(found.shape[1]):
        longest = max(longest, sum([edges[row + 1] - edges[row] for _, edges in columns]))
    room = np.empty(longest // 2 + 2, np.uint64)
    minima = np.empty(len(factors), np.uint32)
    for row in range(found.shape[1]):
        count = _shingles_of(columns, row, byte_hash, room)
        minima[:] = 0xFFFFFFFF
        for shingle in room[:count]:
            short = np.uint32(shingle)
            for i in range(len(factors)):
                minima[i] = min(minima[i], np.uint32(short * factors[i]))
        for band in range(found.shape[0] if count else 0):
            together = np.uint64(band)  # so that no two bands share a bucket
            for minimum in minima[band * PER_BAND : (band + 1) * PER_BAND]:
                together = _mix(together ^ np.uint64(minimum))
            found[band, row] = max(together, np.uint64(1))
