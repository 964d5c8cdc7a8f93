"""The words of many texts as 64-bit numbers.

A word is a run of ASCII letters (whose case does not count), digits and underscores, or of bytes
beyond ASCII. Bytes are worked on eight or sixty-four at a time (the first one lowest, as processors
keep them): one by one, the branch at each word's end would cost more than all the rest.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from qaq.host.compiled import compiled
from qaq.selection.ranks import IntArray

Hashes = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Plain = tuple[Hashes, Hashes, IntArray]
Number = np.uint64

PADDING = 128  # bytes, since whoever reads many at a time reads past the end


def plain(texts: pa.Table) -> Plain:
    """Texts without what does not count: small letters only, and 0 for bytes between words.

    Args:
        texts: columns of strings, which make up a row's text together.

    Returns:
        The bytes of all texts, one column after the other, eight to a number; which of them belong
        to words, sixty-four to a number; and where the texts begin and end [columns, texts + 1].
    """
    columns = [_bytes(column) for column in texts.columns]
    starts = np.cumsum([0, *(len(data) for data, _ in columns)])
    eights = np.zeros((starts[-1] + PADDING) // 64 * 8, np.uint64)
    for start, (data, _) in zip(starts[:-1], columns, strict=True):
        _fill_plain(data, eights.view(np.uint8)[start : start + len(data)])
    edges = [start + edges for start, (_, edges) in zip(starts[:-1], columns, strict=True)]
    return eights, _insides(eights), np.stack(edges)


def most_words(edges: IntArray, rows: IntArray) -> IntArray:
    """No text of these rows has more words than this."""
    return np.asarray(((np.diff(edges)[:, rows] + 1) // 2).sum(axis=0))


def _bytes(column: pa.ChunkedArray) -> tuple[Bytes, IntArray]:
    """The bytes of a column, with small letters for capitals beyond ASCII, and their edges."""
    texts = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies
    data, edges = _buffers(texts)
    if data.max(initial=0) < 128:  # `_fill_plain` lowers these
        return data, edges
    return _buffers(pc.utf8_lower(texts))


def _buffers(texts: pa.Array) -> tuple[Bytes, IntArray]:
    texts = texts.cast(pa.large_string())
    edges = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset :][: len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[edges[0] : edges[-1]]
    data.flags.writeable = False  # of any array: what is compiled depends on it
    return data, edges - edges[0]


@compiled
def _fill_plain(data: Bytes, out: Bytes) -> None:
    for i in range(len(data)):
        byte = data[i]
        small = np.uint8(byte | np.uint8(32))
        letter = (small >= np.uint8(97)) & (small <= np.uint8(122))
        digit = (byte >= np.uint8(48)) & (byte <= np.uint8(57))
        other = digit | (byte == np.uint8(95)) | (byte >= np.uint8(128))
        out[i] = small if letter else (byte if other else np.uint8(0))


@compiled
def _insides(eights: Hashes) -> Hashes:
    """Which bytes are not 0, sixty-four to a number."""
    low = Number(0x7F7F7F7F7F7F7F7F)
    found = np.zeros(len(eights) // 8, np.uint64)
    for i in range(len(found)):
        for j in range(8):
            eight = eights[8 * i + j]
            high = ((eight & low) + low | eight) & ~low  # the highest bit of each such byte
            bits = (high >> Number(7)) * Number(0x0102040810204080) >> Number(56)
            found[i] |= bits << Number(8 * j)
    return found


@compiled
def _bits(numbers: Hashes, first: Number) -> Number:
    """Sixty-four bits from one on, the first one lowest."""
    i, shift = first >> Number(6), first & Number(63)
    high = (numbers[i + Number(1)] << Number(1)) << (Number(63) - shift)
    return Number(numbers[i] >> shift | high)


@compiled
def _eight(eights: Hashes, place: Number) -> Number:
    """The bytes from a place on, the first one lowest."""
    return _bits(eights, place << Number(3))


@compiled
def _lowest(bits: Number) -> int:
    """The number of the lowest bit that is set, or 64; compiled to one instruction."""
    number = 64
    while bits != Number(0):
        bits <<= Number(1)
        number -= 1
    return number


@compiled
def _edges(inside: Hashes, start: int, stop: int, found: IntArray) -> int:
    """Write where the words of a text begin and end, in turn; how many words there are."""
    count, before = Number(0), Number(0)
    for place in range(start, stop, 64):
        here = _bits(inside, Number(place))
        if stop - place < 64:
            here &= (Number(1) << Number(stop - place)) - Number(1)
        change = here ^ (here << Number(1) | before)
        before = here >> Number(63)
        while change != Number(0):
            found[count] = place + _lowest(change)
            count += Number(1)
            change &= change - Number(1)
    found[count] = stop  # where the last word ends, if it ends there
    return int(count + before) // 2


@compiled
def _blend(word: Number, eight: Number) -> Number:
    word = (word ^ eight) * Number(0xD6E8FEB86659FD93)
    return word ^ word >> Number(32)


@compiled
def _word(eights: Hashes, start: int, stop: int) -> Number:
    """The hash of a word's bytes, without a branch unless the word is very long."""
    place, length = Number(start), Number(stop - start)
    word = Number(0)
    while length > Number(15):
        word = _blend(word, _eight(eights, place))
        place, length = place + Number(8), length - Number(8)
    first = min(length, Number(8)) << Number(3)
    second = (length << Number(3)) - first
    word = _blend(word, _eight(eights, place) << (Number(64) - first))
    rest = (_eight(eights, place + Number(8)) << Number(1)) << (Number(63) - second)
    return _blend(word, rest)


@compiled
def write_words(
    eights: Hashes, inside: Hashes, edges: IntArray, row: int, room: IntArray, words: Hashes
) -> int:
    """Write the hashes of a plain text's words to the beginning of `words`; how many there are.

    `room` is for where they begin and end, one place more than twice the words.
    """
    count = 0
    for column in range(len(edges)):
        here = _edges(inside, edges[column, row], edges[column, row + 1], room)
        for i in range(here):
            words[count + i] = _word(eights, room[2 * i], room[2 * i + 1])
        count += here
    return count
