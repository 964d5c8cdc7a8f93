"""The compiled loops behind `passes`: each reads its numbers once and writes once.

Arrays are float32, or bfloat16 as the 16-bit numbers that hold them; arithmetic is float32. The
compiler is left no choice that changes a bit: a loop just compiled and the same one read from the
cache are optimised differently, and a resumed run must give the numbers of an uninterrupted one.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange, types
from numba.extending import overload

from qaq.host.compiled import spread

Numbers = npt.NDArray[Any]  # float32 or uint16
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

PARTS = 64  # of a sum, each of every 64th number: what a processor can add at a time, and more
f32, i16, i32, u16, u32 = np.float32, np.int16, np.int32, np.uint16, np.uint32
LOWEST = f32(-87.0)  # whose exponential is still a normal number
PER_LN2 = f32(1.4426950408889634)
LN2 = f32(0.693359375), f32(-2.12194440e-4)  # in two parts: the first times a small whole is exact
# of exp(r) = 1 + r + r² p(r) for |r| <= ln(2) / 2, highest power first (Cephes, expf)
TERMS = tuple(
    f32(x) for x in (1.98756915e-4, 1.39819995e-3, 8.33345191e-3, 4.16657959e-2, 1.66666655e-1, 0.5)
)


@spread
def normalise(x: Numbers, weight: Floats, eps: float, out: Numbers) -> None:
    """x / sqrt(mean(x²) + eps) * weight over the last axis of [rows, width]."""
    rows, width = x.shape
    for i in prange(rows):
        total = _square_sum(x[i], f32(0), np.empty(PARTS, f32))
        scale = f32(1) / np.sqrt(total / f32(width) + f32(eps))
        for j in range(width):
            out[i, j] = _narrow(_wide(x[i, j]) * scale * weight[j], out)


@spread
def gather(x: Numbers, order: Indices, out: Floats) -> None:
    """Heads of x [tokens, heads, width] in the order asked for, in float32.

    `order` counts groups of heads, token * groups + group; out [n, heads of a group, width].
    """
    group, width = out.shape[1:]
    groups = x.shape[1] // group
    for i in prange(len(order)):
        token, first = order[i] // groups, order[i] % groups * group
        for head in range(group):
            source, target = x[token, first + head], out[i, head]
            for j in range(width):
                target[j] = _wide(source[j])


@spread
def masked_softmax(scores: Floats, last: Indices, window: int, group: int, out: Numbers) -> None:
    """Softmax over the keys that a query sees, 0 for the others.

    Args:
        scores: [rows, keys], a row for each block, key head, query and head of a group, in this
            order; overwritten.
        last: [blocks, queries], the last key that a query sees.
        window: how many keys a query sees.
        group: heads of a group.
        out: as scores, or scores itself.
    """
    rows = len(scores)
    blocks, queries = last.shape
    for i in prange(rows):
        end = last[i // (rows // blocks), i // group % queries] + 1
        start = max(end - window, 0)
        seen, weights = scores[i, start:end], out[i]
        _exponentials(seen, _highest(seen))
        total = _sum(seen, f32(0), np.empty(PARTS, f32))
        weights[:start] = 0
        _scaled(seen, f32(1) / total, weights[start:end])
        weights[end:] = 0


@spread
def token_nll(logits: Numbers, targets: Indices, out: Floats) -> None:
    """-log softmax(logits [rows, words])[target] of each row."""
    for i in prange(len(logits)):
        row = logits[i]
        top = _highest(row)
        total = _exponential_sum(row, top, np.empty(PARTS, f32))
        out[i] = np.log(total) + top - _wide(row[targets[i]])


# Of their own, not inlined: LLVM works on many numbers at once in these, but not in their callers.


@njit(inline="never")
def _highest(row: Any) -> Any:
    highest = _lowest(row)
    for j in range(len(row)):
        highest = max(highest, _ordered(row[j]))
    return _value(highest, row)


@njit(inline="never")
def _exponentials(row: Any, top: Any) -> None:
    """Puts exp(row - top) in the place of row."""
    for j in range(len(row)):
        row[j] = _exp(row[j] - top)


@njit(inline="never")
def _scaled(row: Any, factor: Any, out: Any) -> None:
    for j in range(len(row)):
        out[j] = _narrow(row[j] * factor, out)


@njit(fastmath={"contract"})  # each sum has one product, so there is one way to contract it
def _exp(x: Any) -> Any:
    """exp(x) to the last bit or two of float32 for x <= 0; NaN stays NaN."""
    x = LOWEST if x < LOWEST else x
    whole = np.floor(x * PER_LN2 + f32(0.5))
    r = x - whole * LN2[0] - whole * LN2[1]
    p = TERMS[0]
    p = p * r + TERMS[1]
    p = p * r + TERMS[2]
    p = p * r + TERMS[3]
    p = p * r + TERMS[4]
    p = p * r + TERMS[5]
    power = u32(u32(i32(whole) + i32(127)) << u32(23)).view(f32)
    return (p * r * r + r + f32(1)) * power


def _sum_of(term: Any) -> Any:
    """A loop for the sum of term(element, origin) over a row, in an order that is written down."""

    @njit(inline="never")
    def total(row: Any, origin: Any, parts: Any) -> Any:  # parts [PARTS] are overwritten
        parts[:] = 0
        whole = len(row) // PARTS * PARTS
        for start in range(0, whole, PARTS):
            for j in range(PARTS):
                parts[j] += term(_wide(row[start + j]), origin)
        for j in range(len(row) - whole):
            parts[j] += term(_wide(row[whole + j]), origin)
        for j in range(32):  # halves of PARTS: short rows spend much of their time here
            parts[j] += parts[32 + j]
        for j in range(16):
            parts[j] += parts[16 + j]
        for j in range(8):
            parts[j] += parts[8 + j]
        for j in range(4):
            parts[j] += parts[4 + j]
        return (parts[0] + parts[2]) + (parts[1] + parts[3])

    return total


_sum = _sum_of(njit(lambda x, origin: x))
_square_sum = _sum_of(njit(lambda x, origin: x * x))
_exponential_sum = _sum_of(njit(lambda x, origin: _exp(x - origin)))


# Compiled by the kind of element, below; Python itself never calls these.


def _wide(x: Any) -> Any:
    """The number that an element of an array holds, in float32."""


def _narrow(value: Any, out: Any) -> Any:
    """A float32 as an element of the array `out`, rounded to the nearest, ties to even."""


def _ordered(x: Any) -> Any:
    """A whole number that orders elements as their values do; positive NaN is above all.

    Maxima of floating-point numbers are not taken many at a time, since NaN is in their way.
    """


def _value(ordered: Any, row: Any) -> Any:
    """The float32 value of an element of `row` that `_ordered` gave this number."""


def _lowest(row: Any) -> Any:
    """What `_ordered` gives no element of `row` less than."""


@overload(_wide, inline="always", strict=False)
def _(x: Any) -> Any:
    if x == types.uint16:
        return lambda x: u32(u32(x) << u32(16)).view(f32)
    return lambda x: x


@overload(_narrow, inline="always", strict=False)
def _(value: Any, out: Any) -> Any:
    if out.dtype != types.uint16:
        return lambda value, out: value

    def rounded(value: Any, out: Any) -> Any:
        bits = f32(value).view(u32)
        return u16((bits + u32(0x7FFF) + ((bits >> u32(16)) & u32(1))) >> u32(16))

    return rounded


@overload(_ordered, inline="always", strict=False)
def _(x: Any) -> Any:
    if x == types.uint16:

        def from_half(x: Any) -> Any:
            bits = i16(x)
            return i16(bits ^ ((bits >> i16(15)) & i16(0x7FFF)))

        return from_half

    def from_float(x: Any) -> Any:
        bits = f32(x).view(i32)
        return i32(bits ^ i32((bits >> i32(31)) & i32(0x7FFFFFFF)))

    return from_float


@overload(_value, inline="always", strict=False)
def _(ordered: Any, row: Any) -> Any:
    if row.dtype == types.uint16:

        def from_half(ordered: Any, row: Any) -> Any:
            bits = u16(ordered ^ ((ordered >> i16(15)) & i16(0x7FFF)))
            return u32(u32(bits) << u32(16)).view(f32)

        return from_half

    def from_float(ordered: Any, row: Any) -> Any:
        return i32(ordered ^ i32((ordered >> i32(31)) & i32(0x7FFFFFFF))).view(f32)

    return from_float


@overload(_lowest, inline="always", strict=False)
def _(row: Any) -> Any:
    if row.dtype == types.uint16:
        return lambda row: i16(-0x8000)
    return lambda row: i32(-0x80000000)
