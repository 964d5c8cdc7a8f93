"""What is a signal and what is not, on pools whose truth is known."""

import numpy as np
import pytest

from qaq.evidence.estimate import Estimate
from qaq.selection.rules import select
from qaq.selection.rules.disagreement import Disagreement
from qaq.studies import effects, failure_modes
from qaq.studies.data import difference, metric


@pytest.fixture
def data(world):
    """RMI is of the row in every layout; Diff is drawn anew in each, so it is no signal."""
    made = world()
    made.add("strong", made.rmi()).add("weak", made.rmi())
    made.add("strong", made.rmi(), "plain").add("weak", made.rmi(), "plain")
    return made.data("failure_modes")


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (0.95, 0.9, 1.0, "sees"),
        (0.05, 0.0, 0.1, "sees"),
        (0.7, 0.6, 0.8, "hints"),
        (0.3, 0.2, 0.4, "hints"),
        (0.6, 0.45, 0.75, "misses"),
        (0.85, 0.4, 1.0, "misses"),
    ],
)
def test_a_score_sees_a_defect_only_if_its_interval_leaves_blindness(value, low, high, word):
    assert effects.sees(Estimate(value=value, low=low, high=high, n=9)) == word


def test_what_was_shifted_is_seen_and_what_was_not_is_missed(data):
    seen = effects.areas(data)
    words = {kind: effects.sees(seen["RMI, strong", kind]) for kind in data.kinds}
    assert words == {
        "echo": "sees",
        "swapped_answer": "sees",
        "wrong_constant_or_operator": "misses",
    }
    assert all(effects.sees(seen["Diff", kind]) == "misses" for kind in data.kinds)


def test_another_language_is_compared_with_its_control(world):
    made = world()
    kinds = {"echo": "other_natural_language", "swapped_answer": "rebuilt_question"}
    made.add("strong", made.rmi()).add("weak", made.rmi())
    data = made.data("failure_modes")
    data.defect[:] = [kinds.get(k, k) for k in data.defect]
    control = data.against("other_natural_language")
    np.testing.assert_array_equal(control, data.defect == "rebuilt_question")
    np.testing.assert_array_equal(data.against("rebuilt_question"), data.clean)


def test_disagreement_that_is_drawn_anew_in_each_layout_does_not_agree_with_itself(data):
    found = {name: e for name, _, _, e in effects.reliability(data)}
    whole = found["all rows"]
    assert whole["RMI, strong"].low > 0.7
    assert whole["Diff"].low < 0 < whole["Diff"].high or abs(whole["Diff"].value) < 0.2
    text = " ".join(failure_modes.study(data).sentences)
    assert "Diff of all rows (300 clean) agrees with itself at" in text


def test_disagreement_that_is_of_the_row_agrees_with_itself(world):
    made = world()
    strong, weak = made.rmi(1.0), made.rmi(1.0)
    for framing in ("chat", "plain"):
        made.add("strong", strong, framing).add("weak", weak, framing)
    found = {n: e for n, _, _, e in effects.reliability(made.data("failure_modes"))}
    assert found["all rows"]["Diff"].value == pytest.approx(1.0)


def test_slices_are_quarters_of_the_clean_rows(data):
    for name, rows in effects.slices(data).items():
        if name != "all rows":
            assert 0.2 < (rows & data.clean).sum() / data.clean.sum() < 0.35
    lengths = metric(data.of("strong"), "length_q")
    shortest = effects.slices(data)["shortest questions"]
    assert lengths[shortest].max() < lengths[~shortest].min()


def test_ten_strata_share_everything_with_ten_strata(data):
    found = dict(effects.strata_effects(data))
    assert found[10]["band"].value == found[10]["Diff-High"].value == 1.0
    assert found[1]["band"].value < 1.0


def test_a_threshold_keeps_what_the_rule_with_that_threshold_keeps(data):
    rule = Disagreement(method="diff_high", cut="threshold", threshold=0.1)
    kept = select(rule, data.pool(rule)).kept
    found = {t: (share, damaged) for t, share, damaged, _ in effects.threshold_effects(data)}
    assert found[0.1][0].value == pytest.approx(kept.mean())
    assert found[0.1][1].value == pytest.approx((kept & ~data.clean).sum() / kept.sum())


def test_two_equal_models_have_no_disagreement(world):
    made = world()
    rmi = made.rmi()
    made.add("strong", rmi).add("weak", rmi)
    data = made.data("failure_modes")
    assert not difference(data.of("strong"), data.of("weak")).any()
    ((name, found),) = effects.pair_effects(data)
    assert name == "strong and weak"
    assert (found["ranks"].value, found["kept"].value, found["damaged"].value) == (1.0, 0.0, 0.5)


def test_every_two_scorers_are_a_pair(world):
    made = world()
    made.add("strong", made.rmi()).add("weak", made.rmi()).add("third", made.rmi())
    names = [name for name, _ in effects.pair_effects(made.data("failure_modes"))]
    assert names == ["strong and weak", "strong and third", "weak and third"]
