"""What an audit of one subset, or of the difference of two, consists of; plain values only."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Group:
    """Rows of the pool that have something in common, and how many of them are kept."""

    name: str
    rows: int
    kept: int

    @property
    def share(self) -> float:
        """The share of the group's rows that is kept."""
        return self.kept / self.rows


@dataclass(frozen=True)
class Lengths:
    """Quartiles of the number of characters of questions and answers."""

    name: str
    rows: int
    question: tuple[float, float, float]
    answer: tuple[float, float, float]


@dataclass(frozen=True)
class Example:
    """One row, its texts cut to a few lines."""

    row_id: str
    source: str
    score: float | None
    rank: float | None
    stratum: int | None
    kept: bool
    reason: str
    question: str
    answer: str


@dataclass(frozen=True)
class Audit:
    """What a subset holds and why.

    `lowest` and `highest` are rows from the two ends of the order by rank, then score;
    `kept_at_cut` and `dropped_at_cut` those whose rank is nearest to a row of the other kind.
    """

    name: str
    rule: dict[str, object]
    rows: int
    kept: int
    unscored: int
    by_reason: tuple[Group, ...]
    by_stratum: tuple[Group, ...]
    by_source: tuple[Group, ...]
    by_length: tuple[Group, ...]
    by_defect: tuple[Group, ...]
    lengths: tuple[Lengths, ...]
    lowest: tuple[Example, ...]
    highest: tuple[Example, ...]
    kept_at_cut: tuple[Example, ...] = ()
    dropped_at_cut: tuple[Example, ...] = ()

    @property
    def method(self) -> str:
        """Whose scores, strata and ranks it shows: of a composed rule, the part that chooses."""
        rule: Any = self.rule
        while isinstance(inner := rule.get("rule") or rule.get("rank"), dict):
            rule = inner
        return str(rule.get("method"))

    @property
    def strata(self) -> str:
        """What the rule's strata are."""
        by_question = self.method.startswith(("rmi_", "diff_", "sum_"))
        return "stratum of log PPL(Q)" if by_question else "stratum"

    @property
    def rank_is_of(self) -> str:
        """What a rank is among: all rows, or those of a stratum."""
        inside = self.method.startswith("rmi_") and len(self.by_stratum) > 1
        return f"rank inside its {self.strata}" if inside else "rank"


@dataclass(frozen=True)
class Move:
    """Rows that one subset keeps and the other drops, by the reasons that both give."""

    first_reason: str
    second_reason: str
    rows: int


@dataclass(frozen=True)
class Moved:
    """One row that one subset keeps and the other drops."""

    row_id: str
    first_rank: float | None
    second_rank: float | None
    first_reason: str
    second_reason: str
    question: str
    answer: str


@dataclass(frozen=True)
class SubsetDiff:
    """How two subsets differ: what moved, and the reasons that each gives.

    `left` are rows that only the first keeps, `entered` those that only the second keeps.
    `by_source` groups the rows that moved; its `kept` are those that the second keeps. `absent`
    counts rows that only one of the two pools has; they are in no other figure.
    """

    first: str
    second: str
    rows: int
    absent: int
    kept_first: int
    kept_second: int
    kept_both: int
    rank_correlation: float | None
    moves: tuple[Move, ...]
    lengths: tuple[Lengths, ...]
    by_source: tuple[Group, ...]
    left: tuple[Moved, ...]
    entered: tuple[Moved, ...]

    @property
    def of_union(self) -> float:
        """Shared rows as a share of all rows that either keeps."""
        return self.kept_both / (self.kept_first + self.kept_second - self.kept_both)
