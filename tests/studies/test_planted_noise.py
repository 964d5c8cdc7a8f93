"""Retention and separation against counts by hand."""

import numpy as np
import pandas as pd
import pytest

from qaq.evidence.ranking import area, auroc
from qaq.host.errors import UserError
from qaq.selection.rules import select
from qaq.selection.rules.compression import saving
from qaq.studies import planted_noise, retention
from qaq.studies.data import metric

ARMS = {
    "full": {"method": "full"},
    "random": {"method": "random"},
    "rmi_band": {"method": "rmi_band"},
    "rmi_bottom": {"method": "rmi_bottom"},
    "diff_high": {"method": "diff_high"},
}


@pytest.fixture
def data(world):
    made = world(seed=1)
    made.add("strong", made.rmi()).add("weak", made.rmi(0.6))
    return made.data("planted_noise", ARMS, ratios=(0.1, 0.25, 0.5), rates=(0.1, 0.2), draws=4)


def test_thinning_keeps_every_clean_row_and_reaches_the_rate(data):
    for rate in (0.05, 0.1, 0.3):
        for mask in retention.thin(data.damaged, rate, 3):
            assert mask[data.clean].all()
            assert (~data.clean & mask).sum() / mask.sum() == pytest.approx(
                rate, abs=1 / mask.sum()
            )


def test_draws_differ_and_are_the_same_every_time(data):
    one, two = retention.thin(data.damaged, 0.1, 2)
    assert (one != two).any()
    again, _ = retention.thin(data.damaged, 0.1, 2)
    np.testing.assert_array_equal(one, again)


def test_what_a_rule_keeps_as_planted_is_what_its_subset_holds(data):
    kept = list(retention.retention(data))
    selector = data.spec.arms["rmi_bottom"]
    decision = select(selector, data.pool(selector), ratio=0.25)
    planted = 1 - data.clean.mean()
    for kind in data.kinds:
        found = next(
            k
            for k in kept
            if (k.arm, k.ratio, k.rate, k.group) == ("rmi_bottom", 0.25, planted, kind)
        )
        rows = data.defect == kind
        assert found.share.value == pytest.approx(decision.kept[rows].mean())
        assert found.of_kept.value == pytest.approx(
            (rows & decision.kept).sum() / decision.kept.sum()
        )


def test_keeping_everything_holds_as_much_damage_as_the_pool(data):
    kept = [k for k in retention.retention(data) if k.arm == "full"]
    assert {k.ratio for k in kept} == {None}
    assert {k.share.value for k in kept} == {1.0}
    for k in kept:
        if k.group == retention.DAMAGED:
            assert k.of_kept.value == pytest.approx(k.rate, abs=0.01)


def test_every_rule_has_every_ratio_and_every_lower_rate(data):
    kept = list(retention.retention(data))
    planted = 1 - data.clean.mean()
    found = {(k.ratio, k.rate) for k in kept if k.arm == "random"}
    assert found == {(r, planted) for r in (0.1, 0.25, 0.5)} | {(0.25, 0.1), (0.25, 0.2)}


def test_a_rate_above_the_planted_one_is_left_out(world):
    made = world(clean=300, each=10)
    made.add("strong", made.rmi()).add("weak", made.rmi())
    assert retention.rates(made.data("planted_noise", rates=(0.05, 0.5))) == [0.05]


def test_a_rule_that_cannot_keep_so_many_rows_has_no_line(world):
    made = world(clean=100, each=20)
    made.add("strong", made.rmi(), unscored=range(100)).add("weak", made.rmi())
    ceiling = {"ifd": {"method": "ifd_cherry", "ceiling": 0.5}}
    assert list(retention.retention(made.data("planted_noise", ceiling))) == []


def test_a_rule_that_fails_for_another_reason_ends_the_study(world):
    made = world(clean=40, each=0)
    made.add("strong", made.rmi()).add("weak", made.rmi())
    oracle = {"undamaged": {"method": "undamaged", "rule": {"method": "random"}}}
    with pytest.raises(UserError, match="no row of this pool was damaged"):
        list(retention.retention(made.data("planted_noise", oracle)))


def test_an_area_is_the_auroc_of_the_rows_that_have_a_score(world):
    made = world()
    made.add("strong", made.rmi(), unscored=(0, 320)).add("weak", made.rmi())
    data = made.data("planted_noise")
    score = metric(data.of("strong"), "rmi")
    rows = data.defect == "swapped_answer"
    found = area(score, rows, data.clean)
    known = ~np.isnan(score)
    assert found.value == auroc(score[rows & known], score[data.clean & known])
    assert found.n == 59 and found.low <= found.value <= found.high < 0.1


def test_claims_are_decided_by_their_intervals(data):
    rows = planted_noise.study(data).tables[0].rows
    claims = {claim.text: verdict.text for claim, _, _, verdict in rows}
    assert claims["Low RMI marks rows with swapped answer"] == "holds"
    assert claims["High RMI marks rows with echo"] == "holds"
    assert claims["RMI spreads more where log PPL(Q) is large"] == "not shown"
    assert claims["rmi_band leaves damaged rows out"] == "holds"


def test_the_spread_is_told_where_it_grows_with_the_questions_perplexity():
    rng = np.random.default_rng(0)
    question = rng.uniform(1, 5, 800)
    rows = np.ones(800, bool)
    flat = planted_noise.spread_ratio(rng.normal(size=800), question, rows)
    grows = planted_noise.spread_ratio(rng.normal(size=800) * question, question, rows)
    assert flat.low < 1 < flat.high
    assert grows.low > 1.3 and 1.5 < grows.value < 2.6


def test_the_tables_show_every_metric_kind_and_rule(data):
    found = planted_noise.study(data)
    tables = {t.name: t for t in found.tables}
    assert len(tables["separation_strong"].rows) == 3
    assert [row[0].text for row in tables["kept"].rows] == list(ARMS)
    assert [c.title for c in tables["purity"].columns][1:] == ["10%", "20%", "38%"]
    assert set(found.figures) == {"roc", "kept", "rmi_map"}
    assert len(found.hidden[0].rows) == len(list(retention.retention(data)))


def test_a_control_is_neither_clean_nor_damaged(data):
    data.defect[data.defect == "wrong_constant_or_operator"] = "rebuilt_question"
    assert (data.damaged.sum(), data.clean.sum(), len(data.defect)) == (120, 300, 480)
    rate = data.damaged.mean()
    found = [k for k in retention.retention(data) if (k.arm, k.rate) == ("full", rate)]
    kept = {k.group: k for k in found}
    assert kept["damaged"].share.n == 120 and kept["rebuilt_question"].share.n == 60


def test_rules_that_read_texts_are_counted_like_the_others(world):
    made = world(clean=60, each=12)
    made.add("strong", made.rmi()).add("weak", made.rmi())
    arms = {
        "random_parsing": {"method": "random_parsing"},
        "compression": {"method": "compression"},
        "matched": {
            "method": "random_matched",
            "by": "length_a",
            "bins": 2,
            "like": {"method": "rmi_band"},
        },
    }
    data = made.data("planted_noise", arms, ratios=(0.25,), rates=(0.1,), draws=2)
    kept = {(k.arm, k.rate): k for k in retention.retention(data) if k.group == "clean"}
    rates = {rate for _, rate in kept}
    assert {arm for arm, _ in kept} == set(arms) - {"random_parsing"}  # no answer parses
    assert len(rates) == 2
    rows = pd.read_parquet(made.inputs["pairs"] / "pairs.parquet").sort_values("row_id")
    score = np.array([saving(q, a) for q, a in zip(rows["question"], rows["answer"], strict=True)])
    top = np.argsort(-score, kind="stable")[: round(0.25 * made.n)]
    share = np.isin(np.arange(made.n), top)[data.clean].mean()
    assert kept["compression", max(rates)].share.value == pytest.approx(share)


def test_ask_llm_stands_beside_the_scores_of_the_strong_model_and_is_a_rule(world):
    made = world(seed=1)
    made.add("strong", made.rmi()).add("weak", made.rmi(0.6))
    yes = np.where(made.defect == "echo", 0.1, 0.6) + 0.3 * made.rng.random(made.n)
    data = made.ask(yes).data("planted_noise", {"ask_llm": {"method": "ask_llm"}}, rates=())
    mine = made.in_pool_order(yes)
    table = planted_noise.separation_table(data, "strong")
    assert [c.title for c in table.columns][-1] == "Ask-LLM"
    echo = next(row for row in table.rows if row[0].text == "echo")
    assert echo[-1].value == pytest.approx(auroc(mine[data.defect == "echo"], mine[data.clean]))
    assert "Ask-LLM" not in [c.title for c in planted_noise.separation_table(data, "weak").columns]
    rule = data.spec.arms["ask_llm"]
    kept = select(rule, data.pool(rule), ratio=0.25).kept
    assert kept.sum() == round(0.25 * made.n)
    assert mine[kept].min() >= mine[~kept].max()
