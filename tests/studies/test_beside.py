"""Controls beside scores, and what a rule keeps of each kind against its own control."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from qaq.evidence.estimate import share, shares_differ
from qaq.selection.rules import select
from qaq.studies import beside, planted_noise, retention
from qaq.studies.data import nearest

ARMS = {"rmi_band": {"method": "rmi_band"}, "rmi_top": {"method": "rmi_top"}}


@pytest.fixture
def data(world):
    made = world(seed=1)
    made.add("strong", made.rmi()).add("weak", made.rmi(0.6))
    return made.data("planted_noise", ARMS, ratios=(0.25,), rates=(0.1,), draws=2)


def differences(data):
    kept = list(retention.retention(data))
    return beside.kept_differences(data, kept, float(data.damaged.mean()))


def test_a_rule_is_judged_by_kind_and_not_by_the_mix(data):
    found = differences(data)
    signs = {d.kind: np.sign(d.apart.value) for d in found["rmi_top"] if d.found}
    assert signs == {"swapped_answer": -1, "echo": 1}
    assert beside.by_kind(found["rmi_top"])[2] == "differs by kind"
    assert beside.by_kind(found["rmi_band"])[2] == "holds"
    rows = planted_noise.study(data).tables[0].rows
    (claim,) = [row for row in rows if row[0].text == "rmi_band leaves damaged rows out"]
    assert claim[1].text == "it keeps less of swapped answer and echo, more of none"


def test_a_kind_with_a_control_is_compared_with_it_and_not_with_clean_rows(data):
    data.defect[data.defect == "swapped_answer"] = "described_code"
    by_kind = {d.kind: d for d in differences(data)["rmi_top"]}
    assert set(by_kind) == {"echo", "wrong_constant_or_operator"}
    selector = data.spec.arms["rmi_top"]
    kept = select(selector, data.pool(selector), ratio=0.25).kept
    shares = [kept[data.defect == kind].mean() for kind in ("echo", "described_code")]
    assert by_kind["echo"].apart.value == pytest.approx(shares[0] - shares[1])
    table = {row[0].text: row[2].text for row in beside.model_free_table(data).rows}
    assert table["echo"] == "described code"
    assert table["described code"] == "clean"


def test_truncated_answers_are_held_against_clean_ones_of_their_length(data):
    rng = np.random.default_rng(0)
    data.defect[data.defect == "echo"] = "truncated"
    bad = data.defect == "truncated"
    length = np.where(bad, 60.0, 100.0) + rng.integers(-30, 30, len(bad))
    data.free["answer's length"][:] = length
    against = data.against("truncated")
    assert against.sum() == 2 * bad.sum()
    assert not (against & ~data.clean).any()
    assert length[against].mean() < length[data.clean].mean()


def test_the_nearest_rows_are_used_once_each():
    values = np.array([1.0, 1.1, 5.0, 5.2, 9.0, 1.05])
    rows = np.array([1, 0, 0, 0, 0, 1], bool)
    found = nearest(values, rows, ~rows)
    assert np.flatnonzero(found).tolist() == [1, 2, 3, 4]


def test_fishers_test_is_the_sum_of_the_tables_that_are_no_likelier():
    first, second = share(3, 10), share(12, 15)
    space = hypergeom(25, 15, 10)
    chances = space.pmf(np.arange(11))
    expected = chances[chances <= chances[3] * (1 + 1e-9)].sum()
    assert shares_differ(first, second) == pytest.approx(expected)


def test_the_best_control_without_a_model_is_named_beside_a_claim(data):
    data.free["compression"][:] = np.where(data.defect == "echo", -1.0, 0.0)
    assert beside.best_model_free(data, "echo") == [("compression", 1.0)]
    rows = {row[0].text: row[2].text for row in planted_noise.study(data).tables[0].rows}
    assert rows["High RMI marks rows with echo"].endswith("compression 1.00")
    assert rows["High RMI marks rows with echo"].startswith("IFD 0.")
