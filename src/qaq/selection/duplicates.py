"""Near-duplicates: rows whose word 5-grams overlap with an earlier row's.

A row's text (question and answer, in lower case) is the set of its runs of five words. Two rows
are near-duplicates if the Jaccard index of their sets, shared / all, reaches the threshold. Rows
are visited in the order given, and one that is a near-duplicate of a row kept before it goes; so
of a group one row stays, and no chain of small changes removes more than it should.

Candidates come from MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, chapter 3):
bands of four minima, as many as are needed so that a pair exactly at the threshold s is overlooked
once in a thousand, (1 - s^4)^bands. That is 13 bands at 0.8, where a pair at 0.9 is overlooked once
in a million. Every candidate is then compared exactly, so what is found is true. Texts are read
twice as they lie in the file, for the buckets and for the candidates' sets, a run of rows in each
core.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from qaq.host.hardware import cores
from qaq.selection.ranks import IntArray, Mask
from qaq.selection.repeats import NOT_DUPLICATE, first_repeated
from qaq.selection.shingles import PER_BAND, fill_buckets, shingles
from qaq.selection.texts import ABSENT, Texts
from qaq.selection.words import Hashes

OVERLOOKED = 1e-3


def near_duplicates(texts: Texts, among: Mask, jaccard: float) -> IntArray:
    """For each row of the pool the earlier kept row that it repeats, or NOT_DUPLICATE.

    Args:
        texts: the columns of strings that make up a row's text together.
        among: the rows of the pool that count; the others repeat nothing and nothing repeats them.
        jaccard: the share of 5-grams in common from which two texts count as one.
    """
    with ThreadPoolExecutor(cores()) as threads:
        meets = _meeting(texts, among, _bands(jaccard), threads)

        def sets(_: int, place: IntArray, rows: pa.Table) -> tuple[Hashes, IntArray, IntArray]:
            wanted = _where(meets, place)
            return *shingles(rows, wanted), place[wanted]

        nothing = (np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        found = zip(nothing, *texts.each(sets, threads), strict=True)
        members, sizes, places = map(np.concatenate, found)
        repeated = first_repeated(members, sizes, np.argsort(places), jaccard, threads)
    original = np.full(len(among), NOT_DUPLICATE, np.int64)
    repeats = repeated != NOT_DUPLICATE
    original[places[repeats]] = places[repeated[repeats]]
    return original


def _meeting(texts: Texts, among: Mask, bands: int, threads: ThreadPoolExecutor) -> Mask:
    """The rows of the pool that share a bucket with another one."""
    found = np.zeros((bands, len(texts.place)), np.uint64)  # in the order of the file

    def fill(start: int, place: IntArray, rows: pa.Table) -> None:
        fill_buckets(rows, _where(among, place), found[:, start : start + len(rows)])

    for _ in texts.each(fill, threads):
        pass
    shared = np.any(list(threads.map(_shared, found)), axis=0)
    meets = np.zeros(len(among), np.bool_)
    meets[texts.place[shared]] = True
    return meets


def _where(mask: Mask, place: IntArray) -> IntArray:
    """The rows whose places in the pool are in the mask."""
    return np.flatnonzero((place != ABSENT) & mask[place])


def _bands(jaccard: float) -> int:
    """So many that a pair at the threshold is overlooked no more often than OVERLOOKED."""
    if jaccard == 1:
        return 1
    return math.ceil(math.log(OVERLOOKED) / math.log1p(-(jaccard**PER_BAND)))


def _shared(buckets: Hashes) -> Mask:
    """Where a text's bucket in one band also holds another text; `buckets` is overwritten.

    A text's number takes the place of its bucket's last bits, so that sorting the values says whose
    they are: much faster than `argsort`. What is left of a bucket is enough: who meets by chance is
    found out later.
    """
    bits = np.uint64(len(buckets).bit_length())
    some = buckets != 0
    buckets >>= bits
    np.maximum(buckets, 1, out=buckets, where=some)
    buckets <<= bits
    buckets |= np.arange(len(buckets), dtype=np.uint64)
    buckets.sort()
    text = buckets & ((np.uint64(1) << bits) - np.uint64(1))
    buckets >>= bits
    same = (buckets[1:] == buckets[:-1]) & (buckets[1:] != 0)
    shared = np.zeros(len(buckets), np.bool_)
    shared[text[1:][same]] = True
    shared[text[:-1][same]] = True
    return shared
