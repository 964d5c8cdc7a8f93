"""The selection rules and their parameters; one dataclass per family of rules.

Every rule says what it reads and what can change its result:
`needs`: the roles of the inputs that it reads beside the pool: `strong` and `weak` (scores),
`embeddings` and `queries` (vectors), `overlaps` (with the benchmarks).
`seeded`: whether chance plays a part. `uses_ratio`: whether the share asked for plays a part.
They are read from an instance, since some depend on its fields.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1)]
ShareOf = Literal["all", "survivors"]
OverlapKind = Literal["exact", "prompt_run", "solution_run", "entry_point"]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Full:
    """Every row."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = False
    method: Literal["full"] = "full"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Random:
    """Rows drawn uniformly without replacement."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True
    method: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Longest:
    """The longest answers, in tokens of the strong model; cut answers count as cut."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["longest"] = "longest"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Perplexity:
    """The highest perplexities of the pair, or those in the middle of the order."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["perplexity_high", "perplexity_middle"]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdCherry:
    """Highest IFD (ratio of losses); rows above `ceiling` are dropped, as Cherry_LLM does.

    `share_of`: whether the ratio counts all rows with a score, or those that survive the ceiling.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ifd_cherry"] = "ifd_cherry"
    ceiling: float = 1.0
    share_of: ShareOf = "all"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class IfdSuperfiltering:
    """Highest IFD (ratio of perplexities) strictly below `ceiling`, by the weak model."""

    needs: ClassVar[tuple[str, ...]] = ("weak",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ifd_superfiltering"] = "ifd_superfiltering"
    ceiling: float = 1.0
    share_of: ShareOf = "all"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class _Rmi:
    """Ranks of RMI inside `bins` equal-count bins of log PPL(Q); one bin = global ranks."""

    needs: ClassVar[tuple[str, ...]] = ("strong",)
    seeded: ClassVar[bool] = False
    bins: int = Field(default=10, ge=1, le=10_000)
    metric: Literal["rmi", "rmi_authors"] = "rmi"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RmiExtreme(_Rmi):
    """The highest or the lowest RMI ranks."""

    uses_ratio: ClassVar[bool] = True
    method: Literal["rmi_top", "rmi_bottom"]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RmiBand(_Rmi):
    """A band of RMI ranks: the share asked for around `center`, or the fixed `low` to `high`."""

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


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Disagreement:
    """Difference or sum of the strong and the weak model's RMI ranks.

    `cut=share` keeps the share asked for. `cut=threshold` keeps every row that lies more than
    `threshold` beyond the middle of the scale (0 for the difference, 1 for the sum), on the high
    or the low side; for diff_high that is the paper's Diff > 0.1.
    """

    needs: ClassVar[tuple[str, ...]] = ("strong", "weak")
    seeded: ClassVar[bool] = False
    method: Literal["diff_high", "diff_low", "sum_high", "sum_low"]
    cut: Literal["share", "threshold"] = "share"
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ranks: Literal["stratified", "global"] = "stratified"
    bins: int = Field(default=10, ge=1, le=10_000)
    metric: Literal["rmi", "rmi_authors"] = "rmi"

    @property
    def uses_ratio(self) -> bool:
        """A threshold keeps what it keeps."""
        return self.cut == "share"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class RdsPlus:
    """Nearest to target queries by embedding, round robin over the queries (arXiv 2503.01807).

    `queries` is a JSONL file with `question` (and `answer`), or a copy of MBPP; null = MBPP,
    fetched. Of MBPP only the problems that no benchmark uses are taken. `max_tokens` bounds a
    rendered pair.
    """

    # The text of the queries is in the key of the embeddings.
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"queries"})
    needs: ClassVar[tuple[str, ...]] = ("embeddings", "queries")
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["rds_plus"] = "rds_plus"
    queries: Path | None = None
    max_tokens: int = Field(default=2048, ge=16)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Scar:
    """Highest score of SCAR's learned style ranker (arXiv 2406.10882; package scar-tool)."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["scar"] = "scar"
    weights: str = "lizhuang144/scar-gte-base"
    max_tokens: int = Field(default=512, ge=16)
    trust_remote_code: bool = False  # the published encoder brings code of its own


Rule = Annotated[
    Full
    | Random
    | Longest
    | Perplexity
    | IfdCherry
    | IfdSuperfiltering
    | RmiExtreme
    | RmiBand
    | Disagreement
    | RdsPlus
    | Scar,
    Field(discriminator="method"),
]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Then:
    """Filter by one rule, then choose by another among what is left.

    The filter keeps `filter_ratio`. `share_of`: whether the ratio asked for counts all rows that
    the filter could have kept, or those that it did keep.
    """

    method: Literal["then"] = "then"
    filter: Rule
    filter_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    rank: Rule
    share_of: ShareOf = "all"

    @model_validator(mode="after")
    def _filter_ratio_where_needed(self) -> Self:
        if self.filter.uses_ratio and self.filter_ratio is None:
            raise ValueError(f"filter_ratio must be given: {self.filter.method} keeps a share")
        return self

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
        """The share asked for is that of the second rule."""
        return self.rank.uses_ratio


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Exclude:
    """Leave rows out before a rule chooses; the ratio counts the rows that are left.

    `contaminated`: rows that overlap with a benchmark in one of the ways named in `kinds` (see
    `qaq.data.contamination`; a shared function name alone is weak evidence, so it is not among
    them unless asked for).
    `near_duplicates`: rows whose word 5-grams overlap with an earlier row's (by row_id) by at
    least `jaccard`.
    """

    method: Literal["exclude"] = "exclude"
    rule: Annotated[Rule | Then, Field(discriminator="method")]
    contaminated: bool = False
    kinds: tuple[OverlapKind, ...] = ("exact", "prompt_run", "solution_run")
    near_duplicates: bool = False
    jaccard: Annotated[float, Field(ge=0.6, le=1)] = 0.8

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.contaminated or self.near_duplicates):
            raise ValueError("nothing to exclude; set contaminated or near_duplicates to true")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """What the rule reads, and the overlaps with the benchmarks."""
        return (*self.rule.needs, *(("overlaps",) if self.contaminated else ()))

    @property
    def seeded(self) -> bool:
        """Whether the rule draws."""
        return self.rule.seeded

    @property
    def uses_ratio(self) -> bool:
        """Whether the rule's size is asked for."""
        return self.rule.uses_ratio


SelectorConfig = Annotated[
    Full
    | Random
    | Longest
    | Perplexity
    | IfdCherry
    | IfdSuperfiltering
    | RmiExtreme
    | RmiBand
    | Disagreement
    | RdsPlus
    | Scar
    | Then
    | Exclude,
    Field(discriminator="method"),
]


def rules_within(selector: SelectorConfig) -> list[SelectorConfig]:
    """The selector and every rule that it is composed of."""
    if isinstance(selector, Exclude):
        return [selector, *rules_within(selector.rule)]
    if isinstance(selector, Then):
        return [selector, selector.filter, selector.rank]
    return [selector]


def reads_texts(selector: SelectorConfig) -> bool:
    """Whether a rule looks at questions and answers, not only at scores."""
    parts = rules_within(selector)
    return any(isinstance(p, Scar) or getattr(p, "near_duplicates", False) for p in parts)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class SubsetStage:
    """Inputs: `pairs`, and what the selector needs: `strong`, `weak` (scores), `embeddings` and
    `queries` (embeddings of the pool and of the target queries), `overlaps`.

    `ratio` and `seed` are null for rules that do not use them, so that arms which differ only
    there share one subset.
    """

    STAGE: ClassVar[StageKind] = StageKind(
        "subset",
        module="qaq.selection.stage",
        version=2,
        inputs=("pairs", "strong", "weak", "embeddings", "queries", "overlaps"),
    )

    selector: SelectorConfig
    ratio: float | None
    seed: int | None
