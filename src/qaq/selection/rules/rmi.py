"""Reverse mutual information: the ends and the bands of its (stratified) ranks.

Claim 3 of the paper: RMI spreads more where log PPL(Q) is large, so rows are ranked inside
equal-count bins of log PPL(Q). With one bin the ranks are global, as in the authors' README.
"""

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import METRICS, Columns, log_perplexity_q, spans_of
from qaq.selection.config import FORBID, Share, rule
from qaq.selection.cuts import BAND, HIGHEST, LOWEST, cut_band, cut_highest, window
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, Strata, equal_count_bins, finite, ranks_within


@dataclass(frozen=True, kw_only=True, config=FORBID)
class _Rmi:
    """Ranks of RMI inside `bins` equal-count bins of log PPL(Q); one bin = global ranks.

    There are fewer where a bin would hold less than four rows.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    bins: int = Field(default=10, ge=1, le=10_000)
    metric: Literal["rmi", "rmi_authors"] = "rmi"

    @property
    def spans(self) -> frozenset[str]:
        """Those of the metric and of the strata."""
        return spans_of(self.metric, "log_perplexity_q")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RmiExtreme(_Rmi):
    """The highest or the lowest RMI ranks."""

    uses_ratio: ClassVar[bool] = True
    method: Literal["rmi_top", "rmi_bottom"]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RmiBand(_Rmi):
    """A band of RMI ranks: the ratio asked for around `center`, or the fixed `low` to `high`."""

    method: Literal["rmi_band"] = "rmi_band"
    center: Share = 0.625
    low: Share | None = None
    high: Share | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high belong together; give both or neither")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low must be below high; found low={self.low:g} high={self.high:g}")
        return self

    @property
    def uses_ratio(self) -> bool:
        """A fixed band has its own size."""
        return self.low is None

    @property
    def share(self) -> float | None:
        """That of a fixed band."""
        return None if self.low is None or self.high is None else round(self.high - self.low, 12)


@rule(RmiExtreme)
def rmi_extreme(config: RmiExtreme, pool: Pool, size: Size, seed: int | None) -> Decision:
    """The highest or the lowest ranks of RMI."""
    score, stratum, rank = _ranked(config, pool)
    count = size.rows(int((~np.isnan(rank)).sum()), config.method)
    if config.method == "rmi_top":
        labels, label = HIGHEST, cut_highest(rank, count)
    else:
        labels, label = LOWEST, cut_highest(-rank, count)
    return decide(pool, labels, label, score=score, stratum=stratum, rank=rank, roles=config.needs)


@rule(RmiBand)
def rmi_band(config: RmiBand, pool: Pool, size: Size, seed: int | None) -> Decision:
    """A band of RMI ranks.

    All ranks are put in one ascending order. With `low` and `high` the positions from
    round(low * n) to round(high * n) are kept, so that adjoining bands share no row and leave
    none out; else the ratio asked for around `center`.
    """
    score, stratum, rank = _ranked(config, pool)
    n = int((~np.isnan(rank)).sum())
    if config.low is not None and config.high is not None:
        start, stop = round(config.low * n), round(config.high * n)
    else:
        start, stop = window(n, size.rows(n, config.method), config.center)
    label = cut_band(rank, start, stop)
    return decide(pool, BAND, label, score=score, stratum=stratum, rank=rank, roles=config.needs)


def _ranked(config: RmiBand | RmiExtreme, pool: Pool) -> tuple[FloatArray, Strata, FloatArray]:
    """RMI, stratum and rank of each row; the bins are made of the rows that have an RMI."""
    table = pool.scores["strong"]
    score = finite(METRICS[config.metric](table))
    question = np.where(np.isnan(score), np.nan, stratified_by(table, config.bins))
    stratum = equal_count_bins(question, config.bins)
    return score, stratum, ranks_within(score, stratum)


def stratified_by(table: Columns, bins: int) -> FloatArray:
    """log PPL(Q); for global ranks the same of every row, since a framing need not score it."""
    question = finite(log_perplexity_q(table))
    return question if bins > 1 else np.zeros_like(question)
