"""How often the product's own verdicts are wrong, and how often they find what is there."""

import numpy as np
import pytest

from qaq.evidence.claims import FOUND, Margin, decide, differences, margin_of, noninferiority
from qaq.evidence.power import Design
from qaq.evidence.runs import Arm

SUITES = np.array(["humaneval"] * 164 + ["mbpp"] * 378, dtype=object)
RUN_SD = 0.005  # of pass@1 between runs; the 270M model has 0.002
BITS_SD, BITS_NOISE = 0.0054, 0.024  # of bits per byte: between runs, and of a task in a run


def superiority(arms, contrasts):
    return decide(differences(arms, contrasts))


def passes(rng, ease, runs, lift=0.0, trained=True, sd=RUN_SD):
    """An arm whose runs are each lucky or not, on tasks that are each easy or not."""
    room = ease * (1 - ease)
    chance = ease[:, None] + lift + (room / room.mean())[:, None] * rng.normal(0, sd, runs)
    passed = rng.random((len(ease), runs)) < np.clip(chance, 0, 1)
    return Arm(passed.astype(float), SUITES, samples=1, trained=trained)


def bits(rng, base, runs):
    """An arm by a continuous outcome, with the SDs measured of bits per byte."""
    noise = rng.normal(0, BITS_NOISE, (len(base), runs))
    return Arm(base[:, None] + rng.normal(0, BITS_SD, runs) + noise, SUITES)


def family(arms):
    """The usual family: random with full, every other arm with both."""
    full, random, *others = arms
    return [(random, full), *((arm, base) for arm in others for base in (full, random))]


SEEDS = {
    "5 comparisons, 3 runs each": (3, 3, 3, 3),
    "9 comparisons, 3 runs each": (3, 3, 3, 3, 3, 3),
    "7 comparisons, one run of most arms": (3, 3, 1, 1, 1),
    "11 comparisons, as in small_code": (3, 3, 3, 1, 1, 1, 1),
    "one run of every arm": (1, 1, 1, 1, 1),
}


@pytest.mark.parametrize("runs", SEEDS.values(), ids=SEEDS)
@pytest.mark.parametrize("outcome", ["pass@1", "continuous"])
def test_equal_arms_are_found_to_differ_in_at_most_seven_of_a_hundred_experiments(runs, outcome):
    rng = np.random.default_rng(11)
    wrong = []
    for _ in range(150):
        ease, base = rng.beta(0.4, 1.2, 542), rng.gamma(20, 0.03, 542)
        arms = {
            f"arm {i}": passes(rng, ease, n) if outcome == "pass@1" else bits(rng, base, n)
            for i, n in enumerate(runs)
        }
        tests = superiority(arms, family(arms))
        wrong.append(any(one.finding in FOUND for one in tests))
    assert np.mean(wrong) <= 0.07


def test_arms_whose_runs_vary_unlike_are_found_to_differ_in_at_most_fifteen_of_a_hundred():
    rng = np.random.default_rng(23)
    wrong = []
    for _ in range(150):
        ease = rng.beta(1.2, 2.4, 542)
        sds = (0.005, 0.012, 0.058, 0.03, 0.03, 0.048)
        arms = {f"arm {i}": passes(rng, ease, 3, sd=sd) for i, sd in enumerate(sds)}
        contrasts = [*((f"arm {i}", "arm 5") for i in range(5)), ("arm 2", "arm 3")]
        wrong.append(any(one.finding in FOUND for one in superiority(arms, contrasts)))
    assert np.mean(wrong) <= 0.15


def test_families_of_eight_comparisons_with_one_baseline_hold_their_level():
    rng = np.random.default_rng(12)
    wrong = []
    for _ in range(150):
        base = rng.gamma(20, 0.03, 542)
        arms = {f"arm {i}": bits(rng, base, 3) for i in range(9)}
        tests = superiority(arms, [(name, "arm 0") for name in list(arms)[1:]])
        wrong.append(any(one.finding in FOUND for one in tests))
    assert np.mean(wrong) <= 0.07


def test_intervals_hold_all_differences_of_a_family_at_once():
    rng = np.random.default_rng(13)
    held = []
    for _ in range(150):
        base = rng.gamma(20, 0.03, 542)
        arms = {f"arm {i}": bits(rng, base, n) for i, n in enumerate((3, 3, 3, 1))}
        tests = superiority(arms, family(arms))
        held.append(all(one.low <= 0 <= one.high for one in tests))
    assert np.mean(held) >= 0.92


@pytest.mark.parametrize("lift", [0.04, 0.06])
def test_a_real_difference_is_found_about_as_often_as_the_plan_says(lift):
    rng = np.random.default_rng(14)
    found, planned = [], []
    for _ in range(200):
        ease = rng.beta(0.3, 1.6, 542) * 0.9
        within = float(np.mean(2 * ease * (1 - ease)))  # two runs of one arm disagree
        arms = {name: passes(rng, ease, 3) for name in ("full", "random", "x", "y")}
        arms["better"] = passes(rng, ease, 3, lift)
        contrasts = [*family(list(arms))[:4], ("better", "random")]
        found.append(superiority(arms, contrasts)[-1].finding == "better")
        planned.append(Design(542, 3, 5, within, within, RUN_SD, df=10).power(lift))
    assert np.mean(found) == pytest.approx(np.mean(planned), abs=0.12)


def test_with_one_run_of_each_arm_only_models_differ_and_never_rules():
    rng = np.random.default_rng(15)
    ease = rng.beta(0.4, 1.2, 542) * 0.7
    arms = {"full": passes(rng, ease, 1), "better": passes(rng, ease, 1, 0.2)}
    (one,) = superiority(arms, [("better", "full")])
    assert one.finding == "ahead on these tasks"
    assert "luck of training is unknown" in one.reason
    arms["random"] = passes(rng, ease, 3)  # now the luck is known, for all arms
    (one,) = superiority(arms, [("better", "full")])
    assert one.finding == "better"


def test_an_arm_of_one_run_has_a_wider_interval_than_one_of_three():
    rng = np.random.default_rng(16)
    base = rng.gamma(20, 0.03, 542)
    arms = {name: bits(rng, base, n) for name, n in (("full", 3), ("three", 3), ("one", 1))}
    three, one = superiority(arms, [("three", "full"), ("one", "full")])
    assert one.high - one.low > 1.3 * (three.high - three.low)


def test_what_is_compared_with_itself_has_no_interval_and_no_finding():
    arm = passes(np.random.default_rng(17), np.full(542, 0.3), 3)
    (one,) = superiority({"a": arm, "b": arm}, [("a", "b")])
    assert (one.low, one.high, one.p_value, one.finding) == (None, None, 1.0, "no difference shown")
    assert one.reason == "they agree on every task"


def test_a_small_p_without_a_finding_has_its_reason_beside_it():
    rng = np.random.default_rng(18)
    ease = rng.beta(0.4, 1.2, 542) * 0.9
    arms = {f"arm {i}": passes(rng, ease, 3) for i in range(9)}
    arms["ahead"] = passes(rng, ease, 3, 0.045)
    contrasts = [("ahead", "arm 0"), *((f"arm {i}", "arm 0") for i in range(1, 9))]
    one = superiority(arms, contrasts)[0]
    assert one.p_value < 0.05 <= one.p_holm
    assert one.reason == "not after correction for 9 comparisons"


TRUE_MARGIN = 0.05


def as_good(rng, lift, gain=0.2, declared=TRUE_MARGIN):
    """One experiment: two arms that lie `lift` beside full, which gains over the untuned model."""
    ease = np.clip(rng.beta(0.5, 1.2, 542) * 0.7, 0.02, 0.75)
    arms = {"full": passes(rng, ease, 3, gain), "untuned": passes(rng, ease, 1, trained=False)}
    arms |= {name: passes(rng, ease, 3, gain + lift) for name in ("a", "b")}
    return noninferiority(arms, ["a", "b"], "full", margin_of(arms, "full", "untuned", declared))


def test_arms_that_lose_the_margin_are_rarely_called_non_inferior():
    rng = np.random.default_rng(19)
    wrong = [
        any(one.shown == "non-inferior" for one in as_good(rng, -TRUE_MARGIN)) for _ in range(200)
    ]
    assert np.mean(wrong) <= 0.06


def test_arms_that_lose_nothing_are_mostly_shown_to_be_as_good_and_never_inferior():
    rng = np.random.default_rng(20)
    shown = [one.shown for _ in range(60) for one in as_good(rng, 0.0, declared=0.08)]
    assert shown.count("non-inferior") > 0.8 * len(shown)
    assert "inferior" not in shown
    lost = [one.shown for _ in range(20) for one in as_good(rng, -0.15)]
    assert lost.count("inferior") > 0.8 * len(lost)


def test_without_a_gain_of_training_there_is_no_assay_sensitivity():
    shown = {one.shown for one in as_good(np.random.default_rng(21), 0.0, gain=0.0)}
    assert shown == {"no assay sensitivity"}


def test_the_margin_is_half_of_the_lower_bound_of_the_gain_unless_declared():
    rng = np.random.default_rng(22)
    ease = rng.beta(0.4, 1.2, 542) * 0.7
    arms = {"full": passes(rng, ease, 3, 0.2), "untuned": passes(rng, ease, 1, trained=False)}
    found = margin_of(arms, "full", "untuned", None)
    assert found.sensitive and not found.declared
    assert found.value == pytest.approx(found.gain_low / 2)
    assert 0.05 < found.value < 0.1
    assert margin_of(arms, "full", "untuned", 0.03).value == 0.03
    assert margin_of({"full": arms["full"]}, "full", "untuned", 0.03) == Margin(
        0.03, True, None, None, False
    )
