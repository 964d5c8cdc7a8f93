"""What may be claimed: which arm is better, and which is as good up to a margin.

The only place where a word is decided. `decide` and `noninferiority` each test one family;
tests/evidence/test_claims.py simulates how often they are wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic.dataclasses import dataclass as checked

from qaq.evidence.estimate import STRICT
from qaq.evidence.runs import Arm, Difference, Luck, difference, holm, luck

ALPHA = 0.05
Finding = Literal[
    "better",
    "worse",
    "no difference shown",
    "ahead on these tasks",
    "behind on these tasks",
    "descriptive",
]
FOUND: tuple[Finding, ...] = ("better", "worse")
Shown = Literal["non-inferior", "inferior", "not shown", "no assay sensitivity"]
RULE = (
    "What makes a finding: the difference counts both tasks and training runs as chance (Student's "
    "t with the variance between runs pooled over all arms that have several, and beside it the "
    "exact sign-flip test over tasks; the larger p decides), corrected by Holm over the family, "
    "below 0.05. All else is descriptive: its intervals are single and nothing follows from them."
)
NO_ASSAY = "no assay sensitivity: "  # begins the reason
ONE_RUN = (
    "no arm has two training runs, so the luck of training is unknown: this is about these two "
    "models, not about the rules"
)


@dataclass(frozen=True)
class Tested:
    """One comparison of a family: `low` and `high` hold for all of the family at once."""

    arm: str
    baseline: str
    difference: Difference
    low: float | None
    high: float | None
    p_value: float
    p_holm: float
    finding: Finding
    reason: str


Made = tuple[str, str, Difference]


def differences(arms: Mapping[str, Arm], contrasts: Sequence[tuple[str, str]]) -> list[Made]:
    """The contrasts whose arms have common data, with the variance of runs pooled over all arms."""
    pooled = luck(arms.values())
    return [
        (arm, baseline, found)
        for arm, baseline in contrasts
        if arm in arms
        and baseline in arms
        and (found := difference(arms[arm], arms[baseline], pooled)) is not None
    ]


def decide(made: Sequence[Made], declared: int | None = None) -> list[Tested]:
    """Test contrasts and correct over all: Holm's p values, intervals by Bonferroni.

    `declared` is the size of the family: a comparison that was declared and could not be made
    counts as one with p = 1, so that a missing arm makes nothing else significant. `ALPHA` is the
    chance of one false finding or more in the family, 1 - ALPHA the coverage of all intervals at
    once. Holm's later steps ask a little less than the intervals do, so that a finding may have an
    interval that reaches 0; the p value decides.
    """
    size = len(made) if declared is None else declared
    unmade = [1.0] * (size - len(made))
    corrected = holm([found.p_value for *_, found in made] + unmade)[: len(made)]
    tested = []
    for (arm, baseline, found), p_holm in zip(made, corrected.tolist(), strict=True):
        low, high = found.interval(ALPHA / size) or (None, None)
        finding, reason = _finding(found, p_holm, size)
        tested.append(
            Tested(arm, baseline, found, low, high, found.p_value, p_holm, finding, reason)
        )
    return tested


def _finding(found: Difference, p_holm: float, size: int) -> tuple[Finding, str]:
    if found.empty:
        return "no difference shown", "they agree on every task"
    if p_holm >= ALPHA:
        if found.p_value < ALPHA:
            return "no difference shown", f"not after correction for {size} comparisons"
        missing = "" if found.counted else f"; {ONE_RUN}"
        return "no difference shown", f"p is not below {ALPHA:g}{missing}"
    ahead = found.value > 0
    if not found.counted:
        return ("ahead on these tasks" if ahead else "behind on these tasks"), ONE_RUN
    return ("better" if ahead else "worse"), f"p corrected is below {ALPHA:g}"


@dataclass(frozen=True)
class Margin:
    """How much worse still counts as good, and whether this run could show a loss at all.

    `value` is None where no margin can be stated. `gain_low` is the lower 97.5% bound of what
    training on all rows gains over the untuned model; `sensitive` says that it lies above 0.
    """

    value: float | None
    declared: bool
    gain: float | None
    gain_low: float | None
    sensitive: bool


@checked(frozen=True, config=STRICT)
class AsGood:
    """Whether an arm is as good as the baseline up to the margin.

    `low` bounds the difference from below with 97.5% confidence for all arms at once.
    """

    arm: str
    baseline: str
    difference: float
    low: float | None
    p_value: float | None
    p_holm: float | None
    shown: Shown


def margin_of(arms: Mapping[str, Arm], full: str, untuned: str, declared: float | None) -> Margin:
    """The declared margin, or half of what all rows are shown to gain over the untuned model."""
    pooled = luck(arms.values())
    gain = None
    if full in arms and untuned in arms:
        gain = difference(arms[full], arms[untuned], pooled)
    bounds = None if gain is None or not gain.counted else gain.interval(ALPHA)
    if gain is None or bounds is None:
        return Margin(declared, declared is not None, gain.value if gain else None, None, False)
    half = bounds[0] / 2 if bounds[0] > 0 else None
    value = declared if declared is not None else half
    return Margin(value, declared is not None, gain.value, bounds[0], bounds[0] > 0)


def noninferiority(
    arms: Mapping[str, Arm], names: Sequence[str], full: str, margin: Margin
) -> list[AsGood]:
    """Test for each arm, one-sided at ALPHA / 2, that it loses less than the margin to `full`.

    Holm's correction over the arms, for "non-inferior" and for "inferior" each. Without a run that
    shows all rows to be better than the untuned model (`Margin.sensitive`) nothing is claimed: an
    experiment in which training on everything gains nothing cannot show a loss.
    """
    pooled: Luck | None = luck(arms.values())
    made = [
        (name, found)
        for name in names
        if name in arms and full in arms
        if (found := difference(arms[name], arms[full], pooled)) is not None
    ]
    bound = margin.value
    if not margin.sensitive or bound is None or not all(found.counted for _, found in made):
        return [
            AsGood(name, full, found.value, None, None, None, "no assay sensitivity")
            for name, found in made
        ]
    sides = [found.above(-bound) for _, found in made]
    as_good, worse = holm([p for p, _ in sides]), holm([p for _, p in sides])
    results = []
    for place, (name, found) in enumerate(made):
        shown: Shown = "not shown"
        if as_good[place] < ALPHA / 2:
            shown = "non-inferior"
        elif worse[place] < ALPHA / 2:
            shown = "inferior"
        limits = found.interval(ALPHA / len(made))
        results.append(
            AsGood(
                name,
                full,
                found.value,
                limits[0] if limits else None,
                sides[place][0],
                float(as_good[place]),
                shown,
            )
        )
    return results
