"""A draw that has as many rows of each length (or perplexity) as another rule keeps.

A control: what the other rule gains over this, it does not gain by preferring, say, long answers.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import METRICS, spans_of
from qaq.selection.config import FORBID, RULES, InnerConfig, Selector, own_share, rule
from qaq.selection.cuts import cut_highest
from qaq.selection.decision import KEPT, UNSCORED, Decision, Size, decide, nested
from qaq.selection.pool import Pool
from qaq.selection.ranks import NO_STRATUM, equal_count_bins, finite, ranks_within
from qaq.selection.rules.random import draw


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RandomMatched:
    """Rows drawn at random, as many from each stratum of `by` as the rule `like` keeps there.

    The strata are `bins` equal-count bins of the strong model's metric `by`. Rows that have no
    value of it, or to which `like` gives no score, take no part.
    """

    example: ClassVar[dict[str, object]] = {"like": {"method": "rmi_band"}}
    seeded: ClassVar[bool] = True
    method: Literal["random_matched"] = "random_matched"
    like: InnerConfig
    by: Literal["length_q", "length_a", "log_perplexity_q", "perplexity_a", "perplexity_pair"] = (
        "length_a"
    )
    bins: int = Field(default=10, ge=1, le=10_000)

    @property
    def parts(self) -> tuple[Selector, ...]:
        """The rule whose choice is matched."""
        return (self.like,)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the other rule reads, and the strong model's scores."""
        return tuple(dict.fromkeys(("strong", *self.like.needs)))

    @property
    def spans(self) -> frozenset[str]:
        """Those of the metric that is matched."""
        return spans_of(self.by)

    @property
    def uses_ratio(self) -> bool:
        """Whether the other rule's size is asked for."""
        return self.like.uses_ratio

    @property
    def share(self) -> float | None:
        """The other rule's own."""
        return own_share(self.like)


@rule(RandomMatched)
def random_matched(config: RandomMatched, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep a draw; the score is the number drawn, the stratum that of the metric."""
    value = finite(METRICS[config.by](pool.scores["strong"]))
    there = ~np.isnan(value)
    inner = pool.take(there)
    like = RULES[config.like.method].apply(config.like, inner, size, seed)
    without = [number for number, text in enumerate(like.labels) if text.startswith("no score")]
    takes_part = ~np.isin(like.label, without)
    stratum = equal_count_bins(np.where(takes_part, value[there], np.nan), config.bins)
    score = np.where(takes_part, draw(inner.keys, seed), np.nan)
    label = np.where(takes_part, 1, UNSCORED).astype(np.int32)
    for one in np.unique(stratum[stratum != NO_STRATUM]):
        here = np.flatnonzero(stratum == one)
        chosen = cut_highest(score[here], int(like.kept[here].sum()))
        label[here[chosen == KEPT]] = KEPT
    labels = ("kept: drawn in its stratum", "dropped: not drawn in its stratum")
    decision = decide(
        inner,
        labels,
        label,
        score=score,
        stratum=stratum,
        rank=ranks_within(score),
        selectable=like.selectable,
        roles=[role for role in config.needs if role in inner.scores],
    )
    return nested(there, decision, (f"no score: no {config.by}",), np.zeros(len(pool), np.int32))
