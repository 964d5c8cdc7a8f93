"""What an experiment claims, declared before it runs."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PrimaryConfig:
    """The primary family of an experiment; all else that its report shows is descriptive.

    `outcome`: pass@1 by the plus tests or the base tests, over all tasks of all suites.
    `comparisons`: pairs (arm, baseline); null = every arm with `full` and with the random arm of
    its ratio, those of its own recipe where there are such, and the assay. `seeds`: training runs
    of each arm; what is trained beyond them is recorded as added later and takes no part in the
    family; null = all that there are. `as_good`: arms that may lose at most `margin` of pass@1
    against `full`; null = every arm but `full`. `margin` null = half of what training on all rows
    gains over the untuned model (the lower bound of its 95% interval). `assay`: the comparison
    that shows that this experiment can tell arms apart; unless its arm is found to be better,
    nothing is found in the others.
    """

    outcome: Literal["plus", "base"] = "plus"
    comparisons: tuple[tuple[str, str], ...] | None = None
    seeds: int | None = Field(default=None, ge=1)
    as_good: tuple[str, ...] | None = None
    margin: Share | None = None
    assay: tuple[str, str] | None = None
