"""Ranks and strata: the arithmetic that every score-based rule shares.

Arrays are in the order of the rows' ids (see `qaq.selection.pool`), so a stable sort breaks ties
by id, and permuting a pool's rows changes nothing. NaN = no value; such rows get no rank.

Definitions:
    rank     (average 1-based position among the n rows of the stratum - 1/2) / n: always inside
             (0, 1), mean 1/2, equal values share a rank.
    stratum  with m = rows strictly below, floor(m * bins / n): bins of equal counts whose lower
             edge is inclusive; equal values always share a bin. There are no more bins than leave
             each `LEAST` rows: of one row a bin every rank is 1/2, and row ids would choose.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from qaq.host.hardware import cores

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Strata = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

NO_STRATUM = -1
LEAST = 4  # rows of a bin; with so many a middle quarter of the ranks holds no bin's first or last


def ascending(values: FloatArray) -> IntArray:
    """Indices in ascending order, equal values in the order in which they stand, NaN last.

    The same as a stable sort, and two to three times as fast where numpy sorts by vector
    instructions: an unstable sort, after which the runs of equals are put in order.
    """
    order = np.argsort(values)
    arranged = values[order]
    equal = arranged[1:] == arranged[:-1]
    tied = np.flatnonzero(np.r_[equal, False] | np.r_[False, equal])
    if len(tied):
        run = np.cumsum(np.r_[True, ~equal])[tied]
        order[tied] = np.sort(run * len(values) + order[tied]) % len(values)
    return order


def lowest(values: FloatArray, count: int) -> Mask:
    """Which values come first in ascending order, as many as are asked for; NaN never does.

    Of equals those come first that stand first, as in `ascending`, but nothing is sorted.
    """
    known = values[~np.isnan(values)]
    if count == 0:
        return np.zeros(len(values), np.bool_)
    known.partition(count - 1)
    last = known[count - 1]
    chosen: Mask = values < last
    equal = np.flatnonzero(values == last)
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen


def equal_count_bins(values: FloatArray, bins: int) -> Strata:
    """The bin of each value, 0 to bins - 1 from low to high; NO_STRATUM for NaN.

    Fewer bins where there are less than `LEAST` values for each.
    """
    stratum = np.full(len(values), NO_STRATUM, np.int32)
    known = ~np.isnan(values)
    ordered = np.sort(values[known])
    n = len(ordered)
    bins = max(1, min(bins, n // LEAST))
    # A bin is reached by values that have ceil(bin * n / bins) others below them.
    below = -(-np.arange(1, bins) * n // bins)
    stratum[known] = np.searchsorted(ordered[below - 1], values[known])
    return stratum


def ranks_within(values: FloatArray, stratum: Strata | None = None) -> FloatArray:
    """Each value's rank inside its stratum; NaN for NaN and for rows without a stratum."""
    ranks = np.full(len(values), np.nan)
    ranked = ~np.isnan(values)
    if stratum is not None:
        ranked &= stratum != NO_STRATUM
    known = np.flatnonzero(ranked)
    if stratum is None:
        order = known[ascending(values[known])]
        ranks[order] = _ranks_of_sorted(values[order])
        return ranks
    theirs = stratum[known].astype(np.int16)
    known = known[np.argsort(theirs, kind="stable")]
    edges = np.cumsum(np.bincount(theirs))[:-1]

    def rank(rows: IntArray) -> None:
        order = rows[ascending(values[rows])]
        ranks[order] = _ranks_of_sorted(values[order])

    with ThreadPoolExecutor(cores()) as threads:
        list(threads.map(rank, np.split(known, edges)))
    return ranks


def _ranks_of_sorted(values: FloatArray) -> FloatArray:
    first, last = _runs(values)
    return (first + last + 1) / (2 * len(values))


def _runs(values: FloatArray) -> tuple[IntArray, IntArray]:
    """For sorted values: the first and the last position of the run of equals each stands in."""
    n = len(values)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if n else np.empty(0, np.int64)
    lengths = np.diff(np.r_[starts, n])
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


def finite(values: FloatArray) -> FloatArray:
    """The values with everything that is not finite turned into NaN, as a new array."""
    return np.where(np.isfinite(values), values, np.nan)
