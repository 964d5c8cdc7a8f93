"""Filter by one rule, then choose by another."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from qaq.selection.config import (
    FORBID,
    RULES,
    InnerConfig,
    Selector,
    ShareOf,
    own_share,
    rule,
)
from qaq.selection.decision import Decision, Size, nested
from qaq.selection.pool import Pool


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Then:
    """Filter by one rule, then choose by another among what is left.

    The filter keeps `filter_ratio`. `share_of`: whether the ratio asked for counts all rows that
    the filter could have kept, or those that it did keep.
    """

    method: Literal["then"] = "then"
    spans: ClassVar[tuple[str, ...]] = ()  # its parts have theirs
    filter: InnerConfig
    filter_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    rank: InnerConfig
    share_of: ShareOf = "all"

    @model_validator(mode="after")
    def _filter_ratio_where_needed(self) -> Self:
        if self.filter.uses_ratio and self.filter_ratio is None:
            raise ValueError(f"filter_ratio must be given: {self.filter.method} keeps a part")
        return self

    @property
    def parts(self) -> tuple[Selector, ...]:
        """The rules that it is made of."""
        return self.filter, self.rank

    @property
    def needs(self) -> tuple[str, ...]:
        """What either rule reads."""
        return tuple(dict.fromkeys((*self.filter.needs, *self.rank.needs)))

    @property
    def seeded(self) -> bool:
        """Whether either rule draws."""
        return self.filter.seeded or self.rank.seeded

    @property
    def uses_ratio(self) -> bool:
        """The ratio asked for is that of the second rule."""
        return self.rank.uses_ratio

    @property
    def share(self) -> float | None:
        """Where the second rule has a size of its own: that share of what the filter keeps."""
        first = self.filter_ratio if self.filter.uses_ratio else own_share(self.filter)
        second = own_share(self.rank)
        return None if first is None or second is None else round(first * second, 12)


@rule(Then)
def then(config: Then, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Filter by one rule, then choose by another; the second sees only what the first kept."""
    first = RULES[config.filter.method].apply(config.filter, pool, Size(config.filter_ratio), seed)
    size = replace(size, of=first.selectable if config.share_of == "all" else None)
    second = RULES[config.rank.method].apply(config.rank, pool.take(first.kept), size, seed)
    labels = [
        text if text.startswith("no score") else f"filtered by {config.filter.method}: {text}"
        for text in first.labels
    ]
    return nested(first.kept, second, labels, first.label)
