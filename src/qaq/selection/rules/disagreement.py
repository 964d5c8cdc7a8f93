"""Two models: where the strong and the weak one rank a row differently, or alike.

Claim 5 of the paper: Diff = rank by the strong model - rank by the weak model. Whose log PPL(Q)
makes the strata of the ranks is not stated: by default both rank RMI inside those of the strong
model; `strata=own` ranks each model's RMI inside that model's own. The authors' README ranks
globally and keeps `int(rows * ratio)`.
"""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import METRICS, Columns, spans_of
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import HIGHEST, LOWEST, cut_above, cut_highest
from qaq.selection.decision import Decision, Rounding, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import (
    NO_STRATUM,
    FloatArray,
    Strata,
    equal_count_bins,
    finite,
    ranks_within,
)
from qaq.selection.rules.rmi import stratified_by

MIDDLE = {"diff": 0.0, "sum": 1.0}
DECIMALS = 12  # of ranks' sums: equal fractions stay equal whatever the order of rounding


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Disagreement:
    """Difference or sum of the ranks that the strong and the weak model give by RMI, or by IFD.

    `cut=share` keeps the share asked for. `cut=threshold` keeps every row that lies more than
    `threshold` beyond the middle of the scale (0 for the difference, 1 for the sum), on the high
    or the low side; for diff_high that is the paper's Diff > 0.1. `strata`: whose log PPL(Q) a
    model's ranks are stratified by.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong", "weak")
    seeded: ClassVar[bool] = False
    method: Literal["diff_high", "diff_low", "sum_high", "sum_low"]
    cut: Literal["share", "threshold"] = "share"
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ranks: Literal["stratified", "global"] = "stratified"
    strata: Literal["strong", "own"] = "strong"
    rounding: Rounding = "nearest"
    bins: int = Field(default=10, ge=1, le=10_000)
    metric: Literal["rmi", "rmi_authors", "ifd_loss_ratio", "ifd_ppl_ratio"] = "rmi"

    @property
    def spans(self) -> frozenset[str]:
        """Those of the metric and of the strata."""
        return spans_of(self.metric, "log_perplexity_q")

    @property
    def uses_ratio(self) -> bool:
        """A threshold keeps what it keeps."""
        return self.cut == "share"


@rule(Disagreement)
def disagreement(config: Disagreement, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Rows with a high or a low difference (or sum) of the two models' RMI ranks.

    Only rows that both models scored take part, in the bins, in the ranks and in the size. The
    rank in the audited table is that of the difference (or sum) itself, among all rows.
    """
    strong, weak = (pool.scores[role] for role in config.needs)
    bins = config.bins if config.ranks == "stratified" else 1
    own = config.strata == "own"
    *ranks, stratum = paired_ranks(strong, weak, metric=config.metric, bins=bins, own=own)

    kind, side = config.method.split("_")
    score = np.round(ranks[0] - ranks[1] if kind == "diff" else ranks[0] + ranks[1], DECIMALS)
    towards = score - MIDDLE[kind] if side == "high" else MIDDLE[kind] - score
    if config.cut == "threshold":
        labels = (f"kept: beyond {config.threshold:g}", f"dropped: within {config.threshold:g}")
        label = cut_above(np.round(towards, DECIMALS), config.threshold)
    else:
        labels = HIGHEST if side == "high" else LOWEST
        known = int((stratum != NO_STRATUM).sum())
        label = cut_highest(towards, size.rows(known, config.method, config.rounding))
    return decide(
        pool,
        labels,
        label,
        score=score,
        stratum=stratum,
        rank=ranks_within(score),
        roles=config.needs,
    )


def paired_ranks(
    strong: Columns, weak: Columns, *, metric: str = "rmi", bins: int = 10, own: bool = False
) -> tuple[FloatArray, FloatArray, Strata]:
    """Both models' ranks inside strata of log PPL(Q), and the strong model's strata.

    The strata are the strong model's, or with `own` each model's. NaN (and no stratum) where a
    model has no score.
    """
    first, second = finite(METRICS[metric](strong)), finite(METRICS[metric](weak))
    questions = [stratified_by(table, bins) for table in (strong, weak if own else strong)]
    missing = np.isnan([first, second, *questions]).any(axis=0)
    ours, theirs = (equal_count_bins(np.where(missing, np.nan, q), bins) for q in questions)
    return ranks_within(first, ours), ranks_within(second, theirs), ours
