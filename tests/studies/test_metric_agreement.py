"""Correlations and overlaps against scipy and sets, over clean rows only."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from qaq.selection.rules import select
from qaq.selection.rules.disagreement import Disagreement
from qaq.studies import metric_agreement
from qaq.studies.data import metric


def two_models(world, **size):
    made = world(**size)
    return made.add("strong", made.rmi()).add("weak", made.rmi(0.6))


def test_a_named_correlation_is_scipys_over_the_clean_rows(world):
    data = two_models(world).data("metric_agreement")
    found = {(a, b): rho for a, b, rho, _ in metric_agreement.correlations(data)}
    x, y = (metric(data.of(s), "rmi")[data.clean] for s in ("strong", "weak"))
    rho = found["RMI (strong)", "RMI (weak)"]
    assert rho.value == pytest.approx(spearmanr(x, y).statistic)
    assert (rho.n, rho.low < rho.value < rho.high) == (300, True)
    ifd = metric(data.of("strong"), "ifd_loss_ratio")[data.clean]
    pair = "RMI (strong, chat)", "IFD (strong, chat)"
    assert found[pair].value == pytest.approx(spearmanr(x, ifd).statistic)


def test_only_the_papers_own_number_stands_beside_ours(world):
    data = two_models(world).data("metric_agreement")
    papers = [(a, b, p) for a, b, _, p in metric_agreement.correlations(data) if p is not None]
    assert papers == [("RMI (strong, chat)", "IFD (strong, chat)", 0.252)]


def test_another_layout_is_compared_with_the_own_one(world):
    made = two_models(world)
    made.add("strong", made.rmi(), "plain").add("weak", made.rmi(0.6), "plain")
    found = {(a, b) for a, b, *_ in metric_agreement.correlations(made.data("metric_agreement"))}
    assert ("RMI (strong, chat)", "RMI (strong, plain)") in found
    assert ("IFD (weak, chat)", "IFD (weak, plain)") in found


def test_overlaps_are_those_of_the_rules_on_the_clean_rows(world):
    data = two_models(world).data("metric_agreement")
    found = {
        name: (both, union) for name, _, both, union, _ in metric_agreement.subset_overlaps(data)
    }
    rules = [Disagreement(method=m, ranks="global", cut="share") for m in ("diff_high", "sum_high")]
    kept = [
        set(np.flatnonzero(select(r, metric_agreement.clean_pool(data), ratio=0.25).kept))
        for r in rules
    ]
    both, union = found["global ranks, cut by share"]
    assert both.value == pytest.approx(len(kept[0] & kept[1]) / 75)
    assert union == pytest.approx(len(kept[0] & kept[1]) / len(kept[0] | kept[1]))


def test_a_threshold_that_keeps_no_row_has_no_overlap_and_the_study_goes_on(world):
    made = world(clean=80, each=10)
    rmi = made.rmi()
    made.add("strong", rmi).add("weak", rmi)  # nowhere do the two models' ranks differ
    data = made.data("metric_agreement")
    found = [name for name, *_ in metric_agreement.subset_overlaps(data)]
    assert found == ["stratified ranks, cut by share", "global ranks, cut by share"]
    said = " ".join(metric_agreement.study(data).sentences)
    assert "Diff-High and Sum-High (stratified ranks, cut by share) share" in said


def test_a_scorer_that_did_not_change_keeps_its_order_and_its_band(world):
    made = world()
    rmi = made.rmi()
    made.add("strong", rmi).add("weak", made.rmi()).add("strong-tuned", rmi)
    ((scorer, rho, pearson, band, top),) = metric_agreement.stability(
        made.data("metric_agreement", tuned=["strong"])
    )
    assert (scorer, rho.value, band.value, top.value) == ("strong", 1.0, 1.0, 1.0)
    assert pearson == pytest.approx(1.0)


def test_a_scorer_that_changed_is_measured_over_the_clean_rows(world):
    made = world()
    made.add("strong", made.rmi()).add("weak", made.rmi()).add("strong-tuned", made.rmi(0.5))
    data = made.data("metric_agreement", tuned=["strong"])
    ((_, rho, pearson, band, _),) = metric_agreement.stability(data)
    x, y = (metric(data.of(s), "rmi")[data.clean] for s in ("strong", "strong-tuned"))
    assert rho.value == pytest.approx(spearmanr(x, y).statistic)
    assert pearson == pytest.approx(pearsonr(x, y).statistic)
    assert band.n == 75 and 0.3 < band.value < 1
    text = " ".join(metric_agreement.study(data).sentences)
    assert "before and after fine-tuning" in text and "0.9539" in text


def test_the_matrices_are_square_and_named_alike(world):
    found = metric_agreement.study(two_models(world).data("metric_agreement"))
    tables = {t.name: t for t in found.tables}
    for name in ("spearman", "overlap"):
        table = tables[name]
        assert [row[0].text for row in table.rows] == [c.title for c in table.columns][1:]
        assert {row[i + 1].value for i, row in enumerate(table.rows)} == {1.0}
    assert "tuned" not in tables


def test_layouts_have_a_matrix_of_their_own_where_there_are_several(world):
    made = two_models(world)
    assert metric_agreement.by_layout(made.data("metric_agreement")) == {}
    made.add("strong", made.rmi(), "plain").add("weak", made.rmi(0.6), "plain")
    found = metric_agreement.study(made.data("metric_agreement"))
    table = next(t for t in found.tables if t.name == "spearman_layouts")
    assert [row[0].text for row in table.rows][:2] == [
        "RMI · strong · chat",
        "RMI · strong · plain",
    ]
    assert "overlap_layouts" in found.figures
