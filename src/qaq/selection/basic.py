"""The rules that need no idea of quality: full, random, longest, perplexity."""

import numpy as np

from qaq.scoring.metrics import length_a, perplexity_pair
from qaq.selection.config import Full, Longest, Perplexity, Random
from qaq.selection.cuts import BAND, HIGHEST, cut_band, cut_highest, window
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.hashing import mix
from qaq.selection.pool import Pool
from qaq.selection.ranks import finite, ranks_within


def full(config: Full, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep every row."""
    return decide(pool, ("kept: every row",), np.zeros(len(pool), np.int32))


def random(config: Random, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep a uniform draw without replacement.

    Each row gets a number made from its id and the seed by a 64-bit mixer; the rows with the
    highest numbers are kept. So a draw depends on neither the platform nor the order of the
    rows, and a larger ratio of the same seed keeps all that a smaller one kept. The score is the
    number as a share of 2^64.
    """
    if seed is None:
        raise ValueError("random needs a seed")
    numbers = mix(pool.keys ^ mix(np.array([seed % 2**64], np.uint64)))
    score = (numbers >> np.uint64(11)).astype(np.float64) / 2.0**53
    label = cut_highest(score, size.rows(len(pool), config.method))
    labels = ("kept: drawn", "dropped: not drawn")
    return decide(pool, labels, label, score=score, rank=ranks_within(score))


def longest(config: Longest, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the longest answers."""
    score = finite(length_a(pool.scores["strong"]))
    known = int((~np.isnan(score)).sum())
    label = cut_highest(score, size.rows(known, config.method))
    rank = ranks_within(score)
    return decide(pool, HIGHEST, label, score=score, rank=rank, roles=config.needs)


def perplexity(config: Perplexity, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the pairs with the highest perplexity, or those in the middle of the order."""
    score = finite(perplexity_pair(pool.scores["strong"]))
    known = int((~np.isnan(score)).sum())
    count = size.rows(known, config.method)
    if config.method == "perplexity_high":
        label = cut_highest(score, count)
    else:
        label = cut_band(score, *window(known, count, center=0.5))
    labels = HIGHEST if config.method == "perplexity_high" else BAND
    rank = ranks_within(score)
    return decide(pool, labels, label, score=score, rank=rank, roles=config.needs)
