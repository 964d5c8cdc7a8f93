"""The Python functions: forms in and out, and what they share with the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

import qaq
from qaq.host.errors import StageError, UserError

ROWS = [
    {"instruction": f"Return {n} times the {w}.", "output": f"return {n} * {w}(x)", "n": n}
    for n in range(2, 10)
    for w in ("sum", "mean", "first", "last")
]
ROWS.insert(3, dict(ROWS[0]))  # a duplicate is no row of the pool, and keeps its place


def test_importing_it_imports_nothing_heavy_and_takes_no_time():
    heavy = ["torch", "transformers", "numpy", "pandas", "pyarrow", "hydra", "datasets", "pydantic"]
    code = (
        "import sys, time; before = set(sys.modules); start = time.perf_counter(); import qaq; "
        "took = time.perf_counter() - start; assert 'score' in dir(qaq); "
        f"print([m for m in {heavy} if m in sys.modules], len(set(sys.modules) - before), took)"
    )
    run = [sys.executable, "-c", code]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    found, rest = said.rsplit("] ", 1)
    assert found == "["
    modules, seconds = rest.split()
    assert int(modules) < 30
    assert float(seconds) < 0.2


@pytest.fixture(scope="module")
def scored(tiny_model, other_tiny_model, tmp_path_factory):
    """`score(pairs, …)` with tiny models and a store of this file's own."""
    store = tmp_path_factory.mktemp("functions") / "store"
    tiny = ["runtime.device=cpu"]
    for role in ("strong", "weak"):
        tiny += [f"models.{role}.chat_template=null", f"models.{role}.dtype=float32"]

    def score(pairs, progress=False, **more):
        os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        models = {"strong": str(tiny_model), "weak": str(other_tiny_model)}
        return qaq.score(pairs, **models, store=store, overrides=tiny, progress=progress, **more)

    return score


@pytest.fixture
def root():
    return Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table(scored):
    return scored(ROWS, metrics=["rmi", "ifd", "length_a"])


def test_every_pair_has_a_row_in_its_place(table):
    assert isinstance(table, pd.DataFrame)
    assert table["position"].tolist() == [*range(len(ROWS))]
    assert table["reason"].isna().sum() == len(ROWS) - 1
    assert table.loc[3, "reason"] == "duplicate: question and answer are those of row 1"
    assert np.isnan(table.loc[3, "rmi"])
    nll = [table[f"nll_{span}"] / table[f"tokens_{span}"] for span in ("q", "q_given_a")]
    pd.testing.assert_series_equal(table["rmi"], nll[0] - nll[1], check_names=False)
    ifd = [table[f"nll_{span}"] / table[f"tokens_{span}"] for span in ("a_given_q", "a")]
    pd.testing.assert_series_equal(table["ifd"], ifd[0] / ifd[1], check_names=False)
    assert not table["rmi_weak"].equals(table["rmi"])


def test_a_dataset_gives_a_dataset_and_files_give_their_lines_all_with_the_same_numbers(
    scored, table, tmp_path
):
    given = Dataset.from_list(ROWS)
    found = scored(given, metrics=["rmi"])
    assert isinstance(found, Dataset)
    assert len(found) == len(given)
    np.testing.assert_array_equal(np.array(found["rmi"], float), table["rmi"])
    assert "nll_q" in found.column_names and "nll_a" not in found.column_names
    with pytest.raises(UserError, match=r"ifd reads the spans a, a_given_q, of which .*ifd_loss_r"):
        qaq.select(found, "ifd", keep=5)
    best = qaq.select(found, "rmi_top", keep=5)
    assert isinstance(best.table, Dataset)
    assert given.select(best.positions)["output"] == [ROWS[i]["output"] for i in best.positions]
    np.testing.assert_array_equal(scored(row for row in ROWS)["rmi"], table["rmi"])
    frame = pd.DataFrame(ROWS)
    np.testing.assert_array_equal(scored(frame, metrics=["rmi"])["rmi"], table["rmi"])
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    found = scored(path)
    np.testing.assert_array_equal(found["rmi"], table["rmi"])
    assert found["line"].tolist() == [*range(1, len(ROWS) + 1)]
    assert set(found["file"]) == {str(path)}


def test_what_is_kept_is_what_the_rule_says(table):
    best = qaq.select(table, "rmi_top", keep=0.25)
    ranks = best.table.set_index("position")["rank"]
    assert len(best.positions) == 8  # round(0.25 * 32)
    assert ranks[best.positions].min() >= ranks.drop(best.positions).max()
    assert best.table["kept"].tolist() == [p in best.positions for p in table["position"]]
    assert best.table.loc[3, "reason"].startswith("duplicate")
    assert len(qaq.select(table, keep="50%").positions) == 16
    assert len(qaq.select(table, "diff_high", keep=3).positions) == 3
    assert qaq.select(table, "full").positions == [i for i in range(len(ROWS)) if i != 3]
    draws = [qaq.select(table, "random", keep=9, seed=seed).positions for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_bar_counts_the_rows_of_both_scorers(scored, table, capfd):
    scored(ROWS, progress=True)
    assert "64/64" in capfd.readouterr().err


def test_a_table_survives_a_file_and_rows_of_it_can_be_chosen_from(table, tmp_path):
    table.to_parquet(tmp_path / "scores.parquet")
    again = pd.read_parquet(tmp_path / "scores.parquet")
    assert qaq.select(again, keep=7).positions == qaq.select(table, keep=7).positions
    half = table[table["position"] >= 16]
    assert set(qaq.select(half, keep=7).positions) <= set(range(16, len(ROWS)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rule": "rmi_band"}, "how much"),
        ({"rule": "full", "keep": 0.5}, "a size of its own"),
        ({"rule": "scar", "keep": 0.5}, "reads texts"),
        ({"rule": "rds_plus", "keep": 0.5}, "embeddings"),
        ({"rule": "rmi_band", "keep": 2.5}, "expected a share"),
        ({"rule": "rmi_band", "keep": 99}, "only 32 can be selected"),
        ({"rule": "rmi_bnd", "keep": 9}, "did you mean"),
    ],
)
def test_a_choice_that_cannot_be_made_says_why(table, arguments, said):
    with pytest.raises(UserError, match=said):
        qaq.select(table, **arguments)


def test_tables_whose_positions_clash_are_not_chosen_from(table):
    for rows in (pd.concat([table, table]), table.assign(position=np.nan)):
        with pytest.raises(UserError, match="a number twice, or none"):
            qaq.select(rows, keep=7)


def test_pairs_that_cannot_be_scored_say_why(scored, table, tmp_path):
    for pairs, said in (
        ([], "there are no pairs"),
        ([1, 2], "found a int among the pairs"),
        ({"train": ROWS}, "found one dict; expected many records, or one split"),
        (tmp_path / "none.jsonl", "no such file"),
        (pd.DataFrame([["a", "b"]], columns=["question", "question"]), "each once"),
        (pd.DataFrame([["a"]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "each once"),
    ):
        with pytest.raises(UserError, match=said):
            scored(pairs)
    with pytest.raises(StageError, match="unknown_form"):
        scored([{"a": 1}])
    with pytest.raises(StageError, match="not_text"):
        scored([{"question": b"bytes are no text", "answer": "x"}])
    with pytest.raises(UserError, match="no metric 'rmj'; did you mean rmi"):
        scored(ROWS, metrics=["rmj"])
    with pytest.raises(UserError, match=r"give qaq\.score a weak model"):
        qaq.select(table[[c for c in table if "_weak" not in c]], "diff_high", keep=3)
    with pytest.raises(UserError, match="score the pairs first"):
        qaq.select(pd.DataFrame(ROWS), keep=3)


def test_results_can_be_compared_and_a_finished_report_gives_its_tables(root):
    result = root / "results" / "small_code"
    compared = qaq.compare(result / "results.json", result / "results.json", "full", "random")
    assert compared.lines
    assert "A  " in compared.text
    study = qaq.Finished.of(root / "results" / "planted_noise")
    kept = study.table("What each rule keeps")
    assert kept.loc[kept["rule"] == "rmi_band", "kept (%) echo"].item() == 0.0
    with pytest.raises(UserError, match="there are: "):
        study.table("none")


def test_the_package_run_can_be_called_and_a_mistake_is_an_exception():
    import qaq.run.compose  # the submodule of that name must not hide the function

    assert callable(qaq.run)
    for overrides in (["experiment=nothing"], "experiment=nothing"):
        with pytest.raises(UserError, match="there is no option"):
            qaq.run(overrides)


def test_one_metric_or_override_need_not_stand_in_a_list(tmp_path):
    few = {"store": tmp_path, "overrides": "data.limit=3"}
    with pytest.raises(UserError, match="give fewer pairs"):
        qaq.score(ROWS, metrics="all", **few)
    with pytest.raises(UserError, match="there is no metric 'rmy'"):
        qaq.score(ROWS, metrics="rmy", **few)
