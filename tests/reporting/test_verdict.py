"""What the verdict says, and when it may say it."""

import pytest

from qaq.evidence.statistics import Interval
from qaq.reporting.analysis import finding
from qaq.reporting.power import planned, statement
from qaq.reporting.schema import Comparison, Metric
from qaq.reporting.verdict import BITS, PRIMARY, verdict


def comparison(
    arm: str, difference: float, found: str, family: str = PRIMARY, seeds: int = 3
) -> Comparison:
    return Comparison(
        family=family,
        metric="plus" if family == PRIMARY else "bits_per_byte",
        suite="all",
        arm=arm,
        baseline="full",
        tasks=542,
        seeds=seeds,
        difference=difference,
        low=difference - 0.01,
        high=difference + 0.01,
        ahead=10,
        behind=5,
        p_value=0.01,
        p_holm=0.02,
        finding=found,
    )


NONE = "not told apart"


@pytest.mark.parametrize(
    ("metric", "difference", "interval", "p", "expected"),
    [
        ("plus", 0.05, (0.01, 0.09), 0.01, "better"),
        ("plus", -0.05, (-0.09, -0.01), 0.01, "worse"),
        ("bits_per_byte", -0.05, (-0.09, -0.01), 0.01, "better"),
        ("bits_per_byte", 0.05, (0.01, 0.09), 0.01, "worse"),
        ("plus", 0.05, (0.01, 0.09), 0.05, NONE),
        ("plus", 0.05, (-0.01, 0.09), 0.01, NONE),
        ("plus", 0.0, (0.0, 0.0), 0.01, NONE),
    ],
)
def test_better_takes_the_corrected_test_and_the_interval(
    metric: Metric, difference: float, interval: tuple[float, float], p: float, expected: str
) -> None:
    assert finding(metric, difference, Interval(*interval), p) == expected


def test_without_a_finding_the_verdict_says_what_could_have_been_missed() -> None:
    measured = planned(542, 3, 2).__class__(
        tasks=542, seeds=3, comparisons=2, discordance=0.2, assumed=False, difference=0.042
    )
    said = verdict([comparison("ifd", 0.01, NONE), comparison("rmi_band", 0.01, NONE)], [measured])
    assert said == (
        "On 542 tasks (3 seeds), none of the 2 arms can be told apart from full by pass@1 "
        "(plus tests).",
        "A true difference below 4.2 points would probably be missed (80% power, 2 comparisons).",
    )


def test_findings_are_named_the_surest_first_and_the_rest_counted() -> None:
    primary = [
        comparison("a", -0.02, "worse"),
        comparison("b", 0.06, "better"),
        comparison("c", -0.04, "worse"),
        comparison("d", 0.0, NONE),
    ]
    first, *_ = verdict(primary, [])
    assert first == (
        "On 542 tasks (3 seeds), by pass@1 (plus tests), b is better than full by 6.0 points (95% "
        "interval +5.0 to +7.0) and c is worse than full by 4.0 points (95% interval −5.0 to "
        "−3.0); 1 more difference holds after Holm's correction and 1 comparison shows none."
    )


def test_one_seed_is_said_to_leave_the_luck_of_training_out() -> None:
    first, *_ = verdict([comparison("a", 0.0, NONE, seeds=1)], [])
    assert "(1 seed, so the luck of training is not in the intervals)" in first


def test_bits_per_byte_make_the_second_sentence() -> None:
    tests = [comparison("a", 0.0, NONE), comparison("a", -0.0123, "better", family=BITS)]
    assert verdict(tests, [])[1] == (
        "By bits per byte of the reference solutions, a is better than full (−0.0123)."
    )


def test_many_findings_by_bits_are_named_by_what_they_are_compared_with() -> None:
    bits = [
        comparison("a", -0.01, "better", family=BITS),
        comparison("b", 0.02, "worse", family=BITS, seeds=1),
        comparison("c", -0.02, "better", family=BITS),
        comparison("d", 0.0, NONE, family=BITS),
    ]
    assert verdict([comparison("a", 0.0, NONE), *bits], [])[1] == (
        "By bits per byte of the reference solutions, after Holm's correction: better than full: "
        "a, c; worse than full: b*; not told apart from full: d (* one adapter, not several seeds)."
    )


def test_the_power_is_stated_before_the_run() -> None:
    said = statement(planned(tasks=542, seeds=3, comparisons=8))
    assert said.startswith("A true difference below ")
    assert "(80% power, 8 comparisons)" in said
    assert "no difference would be found" in statement(planned(5, 1, 8))
