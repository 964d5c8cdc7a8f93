"""What a report is made of."""

from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.evidence.config import PrimaryConfig
from qaq.store.stages import StageKind
from qaq.store.tables import SPANS, Span

FORBID = ConfigDict(extra="forbid")
# The pools that this project's experiments are about (conf/data); the paper is beside no other.
POOLS = ("warriorcoder", "magpie_coder", "gpteacher", "stdlib", "synthetic", "coders")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ReportArm:
    """One trained arm of the comparison. Its inputs are `<kind>/<name>/<seed>[/<suite>]`.

    `recipe` tells recipes of fine-tuning apart: empty for the experiment's own.
    """

    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"recipe"})

    name: str
    method: str
    ratio: float | None
    seeds: tuple[int, ...]
    recipe: str = ""


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ReportStage:
    """Inputs: `pairs`, `overlaps`, `strong`, `weak` (scores, where computed), for each arm and seed
    `subset/<arm>/<seed>`, `adapter/<arm>/<seed>`, `outcomes/<arm>/<seed>/<suite>`; what
    only one arm's rule reads is `read/<arm>/<role>`; for the untuned model
    `outcomes/untuned/0/<suite>`.
    """

    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"spans"})

    STAGE: ClassVar[StageKind] = StageKind(
        "report",
        module="qaq.reporting.stage",
        version=9,
        inputs=(
            *("pairs", "overlaps", "strong", "weak", "read/*/*"),
            *("subset/*/*", "adapter/*/*", "outcomes/*/*/*"),
        ),
        facts=("{comparisons} comparisons",),
    )

    experiment: str
    arms: tuple[ReportArm, ...]  # judged on `suites`; none of these: nothing was trained
    suites: tuple[str, ...]
    untuned: bool
    reference: str | None = None  # the paper's tables as CSV text
    primary: PrimaryConfig = PrimaryConfig()
    spans: tuple[Span, ...] = SPANS  # of the score tables; metrics of others are not shown
    settings: dict[str, object] = Field(default_factory=dict)  # the whole resolved configuration
