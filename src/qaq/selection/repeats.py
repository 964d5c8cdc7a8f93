"""Which of many sets repeat an earlier one, by the Jaccard index: shared / all, of the two sets.

Sets that reach the threshold have one of their rarest members in common, among the first
n - ceil(jaccard n) + 1 of each (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007).
So what many sets have in common brings no two of them together, unless it is nearly all they have:
sets just below the threshold are compared each with each. Who meets is compared exactly.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from qaq.host.compiled import compiled
from qaq.host.hardware import cores
from qaq.selection.ranks import IntArray
from qaq.selection.words import Hashes

COUNTED_BITS = 20
NOT_DUPLICATE = -1


def first_repeated(
    members: Hashes, sizes: IntArray, order: IntArray, jaccard: float, threads: ThreadPoolExecutor
) -> IntArray:
    """For each set the first kept one before it that it repeats, or NOT_DUPLICATE.

    Sets are visited in an order, and one that repeats a set kept before it is not kept.

    Args:
        members: of all sets, one set after the other; repeated members count once. Overwritten.
        sizes: how many members each set has there.
        order: the sets in the order in which they are visited.
        jaccard: from which two sets count as one.
    """
    starts, counts = np.cumsum(sizes) - sizes, _counts(members)
    parts = np.array_split(np.arange(len(sizes)), cores())
    found = threads.map(
        lambda sets: _rarest_first(members, starts[sets], sizes[sets], counts), parts
    )
    sizes = np.concatenate(list(found))
    repeated = np.full(len(sizes), NOT_DUPLICATE, np.int64)
    _compare(members, starts, sizes, order, jaccard, repeated)
    return repeated


@compiled
def _counts(members: Hashes) -> IntArray:
    """How many members begin with the same bits, by these bits."""
    counts = np.zeros(1 << COUNTED_BITS, np.int64)
    for member in members:
        counts[member >> np.uint64(64 - COUNTED_BITS)] += 1
    return counts


@compiled
def _rarest_first(members: Hashes, starts: IntArray, sizes: IntArray, counts: IntArray) -> IntArray:
    """Sort each set by how often its members occur, and leave repeated ones out; the new sizes.

    Members become numbers that begin with a count: that of all whose hashes begin alike, which is
    near enough for an order.
    """
    distinct = np.zeros(len(sizes), np.int64)
    for one in range(len(sizes)):
        mine = members[starts[one] : starts[one] + sizes[one]]
        for i, member in enumerate(mine):
            count = min(counts[member >> np.uint64(64 - COUNTED_BITS)], (1 << 20) - 1)
            mine[i] = np.uint64(count) << np.uint64(44) | member & np.uint64((1 << 44) - 1)
        mine.sort()
        size = 0
        for member in mine:
            if size == 0 or mine[size - 1] != member:
                mine[size] = member
                size += 1
        distinct[one] = size
    return distinct


@compiled
def _compare(
    members: Hashes,
    starts: IntArray,
    sizes: IntArray,
    order: IntArray,
    jaccard: float,
    repeated: IntArray,
) -> None:
    """Fill `repeated`.

    Kept sets are entered under their rarest members in a table of chains. Two members may share a
    chain; that costs a look at an entry, and no set is taken for another.
    """
    rarest = np.empty(len(sizes), np.int64)
    for one, size in enumerate(sizes):
        rarest[one] = size - math.ceil(jaccard * size - 1e-9) + 1 if size else 0
    entries = rarest.sum()
    slots = 1
    while slots < 2 * entries:
        slots *= 2
    head = np.full(slots, -1, np.int64)
    before = np.empty(entries, np.int64)  # the entry that was there before in the same chain
    member_of, set_of = np.empty(entries, np.uint64), np.empty(entries, np.int64)
    compared = np.full(len(sizes), -1, np.int64)  # the set that was last compared with this one
    rank = np.empty(len(sizes), np.int64)
    entered = 0
    for place, one in enumerate(order):
        rank[one] = place
        mine = members[starts[one] : starts[one] + sizes[one]]
        for member in mine[: rarest[one]]:
            entry = head[member & np.uint64(slots - 1)]
            while entry >= 0:
                other = set_of[entry]
                if member_of[entry] == member and compared[other] != one:
                    compared[other] = one
                    theirs = members[starts[other] : starts[other] + sizes[other]]
                    first = repeated[one] == NOT_DUPLICATE or rank[other] < rank[repeated[one]]
                    if first and _reaches(mine, theirs, jaccard):
                        repeated[one] = other
                entry = before[entry]
        if repeated[one] == NOT_DUPLICATE:
            for member in mine[: rarest[one]]:
                slot = member & np.uint64(slots - 1)
                member_of[entered], set_of[entered], before[entered] = member, one, head[slot]
                head[slot] = entered
                entered += 1


@compiled
def _reaches(one: Hashes, two: Hashes, jaccard: float) -> bool:
    """Whether two sets, as sorted numbers, have at least this Jaccard index."""
    both = len(one) + len(two)
    needed = jaccard / (1 + jaccard) * both - 1e-6  # shared ones, for an early end
    i = j = shared = 0
    while i < len(one) and j < len(two):
        if shared + min(len(one) - i, len(two) - j) < needed:
            return False
        if one[i] == two[j]:
            shared += 1
            i += 1
            j += 1
        elif one[i] < two[j]:
            i += 1
        else:
            j += 1
    return shared / (both - shared) >= jaccard
