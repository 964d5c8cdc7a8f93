"""What the verdict says, and when it may say it."""

from qaq.evidence.claims import NO_ASSAY, ONE_RUN, Finding
from qaq.evidence.power import Power
from qaq.reporting.family import PRIMARY
from qaq.reporting.schema import AsGood, Comparison, Loss
from qaq.reporting.verdict import BITS, p_text, tag, verdict

NONE: Finding = "no difference shown"
MEASURED = Power(
    tasks=542,
    seeds=3,
    comparisons=2,
    discordance=0.2,
    assumed=False,
    difference=0.039,
    margin=0.031,
    between_rules=True,
)


def comparison(
    arm: str,
    difference: float,
    found: Finding,
    seeds: int = 3,
    reason: str = "",
    family: str = PRIMARY,
) -> Comparison:
    return Comparison(
        family=family,
        metric="plus" if family == PRIMARY else "bits_per_byte",
        suite="all",
        arm=arm,
        baseline="full",
        tasks=542,
        seeds=(seeds, seeds),
        difference=difference,
        low=difference - 0.01,
        high=difference + 0.01,
        ahead=10,
        behind=5,
        p_value=0.01,
        p_holm=0.02 if family == PRIMARY else None,
        finding=found,
        reason=reason,
    )


def loss(sensitive: bool, **shown: str) -> Loss:
    return Loss(
        margin=0.02,
        declared=False,
        gain=0.06,
        gain_low=0.04 if sensitive else -0.01,
        sensitive=sensitive,
        arms=tuple(
            AsGood(
                arm=arm,
                baseline="full",
                difference=0.0,
                low=-0.01,
                p_value=0.01,
                p_holm=0.02,
                shown=word,  # type: ignore[arg-type]
            )
            for arm, word in shown.items()
        ),
    )


def test_without_a_finding_the_verdict_says_what_could_have_been_missed() -> None:
    tests = [comparison("ifd", 0.01, NONE), comparison("rmi_band", 0.01, NONE)]
    assert verdict(tests, None, [MEASURED]) == (
        "On 542 tasks (3 runs), none of the 2 arms differs significantly from full by pass@1 "
        "(plus tests).",
        "A difference below 3.9 points would probably have been missed (80% power, 2 comparisons).",
    )
    held = verdict(tests, loss(True, ifd="non-inferior"), [MEASURED])[-1]
    assert held.endswith("An arm that is as good is shown to lose less than 3.1 points.")


def test_what_could_have_been_missed_is_said_wherever_a_comparison_shows_nothing() -> None:
    found, none = comparison("a", 0.06, "better"), comparison("b", 0.01, NONE)
    assert "would probably have been missed" in verdict([found, none], None, [MEASURED])[-1]
    assert len(verdict([found], None, [MEASURED])) == 1


def test_without_assay_sensitivity_nothing_is_said_of_the_rules() -> None:
    why = f"{NO_ASSAY}clean is not shown to be better than random"
    tests = [comparison("clean", 0.0, NONE, reason=why), comparison("b", -0.2, NONE, reason=why)]
    first, *_ = verdict(tests, None, [])
    assert first == (
        "No assay sensitivity: clean is not shown to be better than random, so nothing is said of "
        "the rules."
    )
    assert tag(tests, None, [MEASURED]) == "underpowered"


def test_findings_are_named_the_surest_first_and_the_rest_counted() -> None:
    primary = [
        comparison("a", -0.02, "worse"),
        comparison("b", 0.06, "better"),
        comparison("c", -0.04, "worse"),
        comparison("d", 0.0, NONE),
    ]
    first, *_ = verdict(primary, None, [])
    assert first == (
        "On 542 tasks (3 runs), by pass@1 (plus tests), b is better than full by 6.0 points "
        "(interval +5.0 to +7.0) and c is worse than full by 4.0 points (interval −5.0 to −3.0); "
        "1 more difference holds after Holm's correction and 1 comparison shows none."
    )


def test_one_run_of_each_arm_is_said_to_find_nothing_between_rules() -> None:
    tests = [comparison("a", 0.05, "ahead on these tasks", seeds=1, reason=ONE_RUN)]
    first, *_ = verdict(tests, None, [])
    assert "(1 run of each arm)" in first
    assert "1 pairs of models differ on these tasks" in first
    assert "nothing can be found between rules" in first
    assert "better" not in first


def test_a_p_value_shows_on_which_side_of_the_level_it_lies() -> None:
    assert [p_text(p) for p in (0.0002, 0.0123, 0.0496, 0.0504, 0.0512, 0.3)] == [
        "< 0.001", "0.012", "0.0496", "0.0504", "0.051", "0.30"
    ]  # fmt: skip


def test_bits_per_byte_decide_nothing() -> None:
    tests = [comparison("a", 0.0, NONE), comparison("a", -0.9, "descriptive", family=BITS)]
    assert len(verdict(tests, None, [])) == 1


def test_arms_as_good_as_all_rows_are_named_with_the_margin() -> None:
    shown = {"a": "non-inferior", "b": "inferior", "c": "not shown"}
    said = verdict([comparison("a", 0.0, NONE)], loss(True, **shown), [])
    assert said[1] == (
        "Against full, up to 2.0 points (half of what training on all rows is shown to gain): "
        "non-inferior: a; inferior: b; not shown: c."
    )


def test_without_assay_sensitivity_no_arm_is_called_as_good() -> None:
    said = verdict([comparison("a", 0.0, NONE)], loss(False, a="no assay sensitivity"), [])
    assert said[1].startswith("No assay sensitivity: full is not shown to gain")
