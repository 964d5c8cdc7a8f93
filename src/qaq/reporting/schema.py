"""The form of `results.json`: typed, versioned, checked when written.

Rates are shares in [0, 1], differences too; seconds are wall time. What was not measured is null or
an empty list, never 0. `SCHEMA_VERSION` is raised when the meaning of a field changes.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from qaq.evidence.claims import AsGood, Finding
from qaq.evidence.estimate import STRICT, Estimate
from qaq.evidence.power import Power
from qaq.page.provenance import Provenance

SCHEMA_VERSION: Literal[2] = 2

Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal["base", "plus", "bits_per_byte"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SeedResult:
    """One training run on one suite."""

    seed: int
    base: Share
    plus: Share
    bits_per_byte: float | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnswerCounts:
    """How many answers hit the length limit, define no such function, were ended by their text."""

    at_limit: int = Field(ge=0)
    no_code: int | None = Field(ge=0)  # null in outcomes from before it was counted
    cut: int = Field(ge=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SuiteResult:
    """One arm on one suite, all seeds as one result."""

    suite: str
    tasks: int = Field(ge=1)
    samples: int = Field(ge=1)
    base: Estimate
    plus: Estimate
    bits_per_byte: Estimate | None
    failures: dict[str, int]
    suspects: int = Field(ge=0)
    seeds: tuple[SeedResult, ...]
    answers: AnswerCounts | None = None
    benchmark_md5: str | None = None  # of the file it was judged on


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Cost:
    """What an arm took, means over its seeds; null where the device or the stage does not tell."""

    training_seconds: float | None
    scoring_seconds: float | None
    tokens: float | None
    flops: float | None
    energy_joules: float | None
    peak_gib: float | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Holdings:
    """What a subset is made of (the mean over its seeds where chance plays a part)."""

    rows: float
    share: Share
    defects: dict[str, float]  # rows of each planted defect
    sources: dict[str, float] = Field(default_factory=dict)  # rows of each source
    question_characters: float  # medians
    answer_characters: float
    rmi: float | None
    log_ppl_q: float | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArmResult:
    """One way of choosing. `method` "untuned" is the model before any training."""

    name: str
    method: str
    ratio: float | None
    seeds: tuple[int, ...]
    suites: tuple[SuiteResult, ...]
    holdings: Holdings | None
    cost: Cost


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Comparison:
    """`arm` against `baseline` on the same tasks.

    `difference` is arm minus baseline; `low` and `high` bound it (null: no task differs). In the
    primary family they hold for all of it at once and `p_holm` is corrected over it; elsewhere they
    are single 95% intervals, `p_holm` is null and the finding is "descriptive". `ahead` and
    `behind` count the tasks on which the arm did so; `seeds` are those of the arm and the baseline.
    """

    family: str
    metric: Metric
    suite: str  # "all" = every task of every suite
    arm: str
    baseline: str
    tasks: int
    seeds: tuple[int, int]
    difference: float
    low: float | None
    high: float | None
    ahead: int
    behind: int
    p_value: Share
    p_holm: Share | None
    finding: Finding
    reason: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss:
    """The margin of non-inferiority and whether the run could show a loss; `AsGood` by arm."""

    margin: float | None
    declared: bool
    gain: float | None
    gain_low: float | None
    sensitive: bool
    arms: tuple[AsGood, ...]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Separation:
    """How well a score tells rows of one defect from clean rows.

    `auroc` is the chance that a defective row has the `direction` score of the two.
    """

    model: str
    score: Literal["rmi", "ifd"]
    defect: str
    direction: Literal["low", "high"]
    rows: int
    auroc: Estimate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelFree:
    """How well what is seen without a model tells rows of one defect from clean rows.

    `auroc` is the chance that a defective row has the higher value (`qaq.selection.controls`).
    """

    control: str
    defect: str
    auroc: Estimate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Retention:
    """Share of the rows of one defect (or "clean") that an arm keeps."""

    arm: str
    defect: str
    rows: int
    kept: Estimate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Correlation:
    """Spearman's rank correlation of two scores over the pool."""

    first: str
    second: str
    rho: Estimate
    paper: float | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetricSpread:
    """Where the values of a metric lie by one model: how many there are, 5%, median, 95%."""

    name: str
    title: str
    model: str
    rows: int
    low: float | None
    median: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Overlap:
    """Two subsets: shared rows over the smaller one, and over their union (Jaccard)."""

    first: str
    second: str
    of_smaller: Share
    of_union: Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReferenceCell:
    """One cell of the paper's tables beside ours; the difference is ours minus the paper's."""

    table: str
    row: str
    arm: str | None
    suite: str
    metric: Literal["base", "plus"]
    paper: Share
    ours: Estimate | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Departure:
    """One point where this run differs from the paper, or a choice the paper leaves open."""

    topic: str
    paper: str
    here: str


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Pool:
    """The pool of pairs."""

    rows: int
    sources: dict[str, int]
    defects: dict[str, int]
    unscored: dict[str, int]  # by model role


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Contamination:
    """Rows of the pool, or of an arm's subset, that touch a benchmark's problems.

    `rows` by kind of overlap (`qaq.data.contamination`), means over an arm's seeds; `touched` has
    rows that touch a problem in another way than by a function's name, `tasks` those problems.
    """

    subset: str  # "pool" or an arm
    benchmark: str
    rows: dict[str, float]
    touched: float
    share: Share
    tasks: float


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preference:
    """On how many tasks an arm finds the right solution likelier than one corrupted in one way."""

    arm: str
    suite: str
    corruption: str
    share: Estimate


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Untouched:
    """pass@1 of an arm over the problems of a suite that no row of the pool touches."""

    arm: str
    suite: str
    left_out: int = Field(ge=0)
    base: Estimate | None  # null: every problem is touched
    plus: Estimate | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Results:
    """Everything a report says, as numbers."""

    schema_version: Literal[2]
    experiment: str
    subject: dict[str, str]  # the names of the pool and of the models
    verdict: tuple[str, ...]
    pool: Pool | None
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    loss: Loss | None
    power: tuple[Power, ...]
    separations: tuple[Separation, ...]
    model_free: tuple[ModelFree, ...] = ()
    retentions: tuple[Retention, ...]
    correlations: tuple[Correlation, ...]
    metrics: tuple[MetricSpread, ...] = ()
    overlaps: tuple[Overlap, ...]
    preferences: tuple[Preference, ...] = ()
    contamination: tuple[Contamination, ...] = ()
    untouched: tuple[Untouched, ...] = ()
    reference: tuple[ReferenceCell, ...]
    departures: tuple[Departure, ...]
    notes: tuple[str, ...]
    provenance: tuple[Provenance, ...]
    packages: dict[str, str]
    hardware: tuple[str, ...]


FORM = TypeAdapter(Results)
