"""Comparing two results, of this project or of EvalPlus."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.contingency_tables import mcnemar

from qaq import cli
from qaq.host.errors import DataError
from qaq.reporting.compare import compare
from qaq.reporting.result_files import load
from qaq.store.jobs import Job
from qaq.store.tables import PER_PROBLEM, read_json, write_rows


def outcomes(folder: Path, passed: list[bool], first: int = 0, prompt: str = "0") -> Path:
    folder.mkdir()
    rows = [
        {
            "benchmark": "humaneval",
            "task_id": f"HumanEval/{first + i}",
            "sample": 0,
            "base_passed": p,
            "plus_passed": p,
            "failure": None if p else "wrong",
            "suspect": False,
            "prompt_sha": prompt,
            "completion_sha": "0",
            "new_tokens": 1,
            "solution_bits_per_byte": 0.5 + 0.01 * i,
        }
        for i, p in enumerate(passed)
    ]
    write_rows(folder / "per_problem.parquet", rows, PER_PROBLEM)
    return folder


def evalplus(
    file: Path, passed: list[bool], plus: bool = True, md5: str = "x", samples: int = 1
) -> Path:
    judged = {
        f"HumanEval/{i}": [
            {
                "task_id": f"HumanEval/{i}",
                "solution": "pass",
                "base_status": "pass" if p else "fail",
                "plus_status": ("pass" if p else "timeout") if plus else None,
            }
        ]
        * samples
        for i, p in enumerate(passed)
    }
    file.write_text(json.dumps({"date": "2026", "hash": md5, "eval": judged}))
    return file


A = [True] * 30 + [False] * 10
B = [True] * 12 + [False] * 20 + [True] * 2 + [False] * 6


def test_an_evalplus_file_is_compared_with_outcomes_task_by_task(tmp_path: Path) -> None:
    found = compare(outcomes(tmp_path / "ours", A), evalplus(tmp_path / "m_eval_results.json", B))
    assert found.tasks == {"humaneval": 40}
    lines = {line.test.metric: line for line in found.lines}
    assert set(lines) == {"base", "plus"}  # EvalPlus has no bits per byte
    line = lines["base"]
    assert (line.first, line.second) == (0.75, 0.35)
    only_a, only_b = (int(np.sum(np.array(x) & ~np.array(y))) for x, y in ((A, B), (B, A)))
    assert (line.test.ahead, line.test.behind) == (only_a, only_b)
    assert line.test.p_value == pytest.approx(
        mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue
    )
    assert line.test.p_holm == pytest.approx(2 * line.test.p_value)
    assert line.test.finding == "ahead on these tasks"  # one run each: of models, not of rules
    assert "luck of training is unknown" in found.text
    assert "What makes a finding" in found.text
    assert "2 of 2 comparisons find a difference" in found.text
    assert json.loads(json.dumps(found.tree))["tasks"] == {"humaneval": 40}


def test_only_common_tasks_take_part_and_the_others_are_counted(tmp_path: Path) -> None:
    found = compare(outcomes(tmp_path / "a", A), outcomes(tmp_path / "b", A, first=10))
    assert found.tasks == {"humaneval": 30}
    assert found.only_one == 20
    assert "20 that only one side judged are left out" in found.text


def test_a_result_equals_itself(tmp_path: Path) -> None:
    folder = outcomes(tmp_path / "a", A)
    found = compare(folder, folder)
    assert {line.test.finding for line in found.lines} == {"no difference shown", "descriptive"}
    assert {line.test.low for line in found.lines} == {None}  # nothing differs
    assert {line.test.p_value for line in found.lines} == {1.0}
    assert "no difference between A and B is shown" in found.text


def test_base_only_files_are_compared_by_the_base_tests_alone(tmp_path: Path) -> None:
    files = [
        evalplus(tmp_path / f"{n}_eval_results.json", p, plus=False)
        for n, p in (("a", A), ("b", B))
    ]
    assert {line.test.metric for line in compare(*files).lines} == {"base"}


def test_two_reports_are_compared_arm_by_arm_and_seeds_are_one_result(told: Job) -> None:
    found = compare(told.out, told.out / "results.json")
    arms = {(line.test.arm[2:], line.test.baseline[2:]) for line in found.lines}
    names = ("full", "random", "ifd", "rmi_band", "diff_high")
    assert arms == {(name, name) for name in names}
    lines = compare(told.out, told.out, arm_a="rmi", arm_b="random").lines  # its start is enough
    with pytest.raises(DataError, match=r"no arm rmi_bnd; did you mean rmi_band\? It has"):
        compare(told.out, told.out, arm_a="rmi_bnd")
    assert {line.test.seeds for line in lines} == {(2, 2)}
    assert [line.test.finding for line in lines if line.test.metric == "plus"] == ["better"]


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    good = outcomes(tmp_path / "good", A)
    with pytest.raises(DataError, match="no result there"):
        compare(good, tmp_path / "none")
    (tmp_path / "x.json").write_text('{"eval": 3}')
    with pytest.raises(DataError, match="no result in a form that is known"):
        compare(good, tmp_path / "x.json")
    with pytest.raises(DataError, match="no task in common"):
        compare(good, outcomes(tmp_path / "far", A, first=1000))
    with pytest.raises(DataError, match="there is no arm full; it has good"):
        compare(good, good, arm_a="full")


def as_jsonl(file: Path, rows: list[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def older_evalplus(file: Path, passed: list[bool]) -> Path:
    words = {True: "success", False: "failed"}
    judged = {
        f"HumanEval/{i}": {
            "nfiles": 1, "base": [[words[p], [True]]], "plus": [[words[p], [True]]]
        }
        for i, p in enumerate(passed)
    }  # fmt: skip
    file.write_text(json.dumps({"date": "2023", "hash": "x", "eval": judged}))
    return file


def lm_eval(file: Path, passed: list[bool]) -> Path:
    return as_jsonl(file, [
        {"doc_id": i, "doc": {"task_id": f"HumanEval/{i}", "prompt": ""}, "resps": [["x"]],
         "filter": "create_test", "metrics": ["pass@1"], "pass@1": float(p)}
        for i, p in enumerate(passed)
    ])  # fmt: skip


def human_eval(file: Path, passed: list[bool]) -> Path:
    return as_jsonl(file, [
        {"task_id": f"HumanEval/{i}", "completion": "", "result": "passed", "passed": p}
        for i, p in enumerate(passed)
    ])  # fmt: skip


@pytest.mark.parametrize("form", [older_evalplus, lm_eval, human_eval])
def test_results_of_other_harnesses_are_compared_like_our_own(tmp_path: Path, form) -> None:
    ours, theirs = outcomes(tmp_path / "ours", A), form(tmp_path / "samples_humaneval.jsonl", B)
    lines = {line.test.metric: line for line in compare(ours, theirs).lines}
    assert set(lines) == ({"base", "plus"} if form is older_evalplus else {"base"})
    expected = compare(ours, outcomes(tmp_path / "same", B))
    assert lines["base"].test.p_value == expected.lines[0].test.p_value
    assert (lines["base"].first, lines["base"].second) == (0.75, 0.35)


Lines = list[dict[str, object]]


def lines_of_lm_eval(
    values: Sequence[float],
    metric: str = "pass@1",
    answers: int = 1,
    ids: Callable[[int], dict[str, object]] = lambda i: {"task_id": f"HumanEval/{i}"},
) -> Lines:
    return [
        {"doc_id": i, "doc": ids(i), "resps": [["x"] * answers], "filter": "none",
         "metrics": [metric], metric: float(value)}
        for i, value in enumerate(values)
    ]  # fmt: skip


STAMP = "_2025-01-02T03-04-05.678901.jsonl"


def refused(capsys: pytest.CaptureFixture[str], *files: Path) -> str:
    assert cli.main(["compare", *map(str, files)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("metric", ["pass@10", "pass_at_10", "pass_at_k"])
def test_pass_at_k_of_lm_eval_is_refused_since_it_is_not_pass_at_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    ten = as_jsonl(tmp_path / f"samples_humaneval{STAMP}", lines_of_lm_eval(A, metric, 10))
    one = as_jsonl(tmp_path / "one.jsonl", lines_of_lm_eval([0.2] * 40, "pass@1", 10))
    for files in ((ten, one), (one, ten), (ten, ten)):
        said = refused(capsys, *files)
        assert f"its metric is {metric}" in said and "expected pass@1" in said


def test_pass_at_1_of_lm_eval_is_read_as_the_share_of_answers_beside_pass_at_k_too(
    tmp_path: Path,
) -> None:
    share = 1 - 7 / 8 * 8 / 9 * 9 / 10  # 3 of 10, as code_eval counts it: 0.30000000000000004
    rows = lines_of_lm_eval([1.0] * 40, "pass@10", 10)
    rows = [{**row, "metrics": ["pass@10", "pass@1"], "pass@1": share} for row in rows]
    file = as_jsonl(tmp_path / f"samples_humaneval{STAMP}", rows)
    assert load(file).rows.groupby("task_id")["base_passed"].sum().tolist() == [3] * 40


def test_one_verdict_on_several_answers_is_one_and_not_several(tmp_path: Path) -> None:
    file = as_jsonl(tmp_path / f"samples_gsm8k{STAMP}", lines_of_lm_eval(A, "exact_match", 64))
    assert load(file).rows["base_passed"].tolist() == A


def plus_tests(i: int) -> dict[str, object]:
    return {
        "task_id": f"HumanEval/{i}",
        "test": "def check(f):\n    for i, (inp, exp) in enumerate(zip(inputs, results)): ...\n",
    }


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("samples_humaneval_plus", lambda i: {"task_id": f"HumanEval/{i}"}),
        ("samples_humaneval_plus_instruct", lambda i: {"task_id": f"HumanEval/{i}"}),
        ("renamed", plus_tests),
    ],
)
def test_plus_verdicts_of_lm_eval_are_compared_with_plus_verdicts_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, ids
) -> None:
    plus = as_jsonl(tmp_path / f"{name}{STAMP}", lines_of_lm_eval(B, ids=ids))
    rows = json.loads(evalplus(tmp_path / "a_eval_results.json", A).read_text())
    for samples in rows["eval"].values():
        samples[0]["base_status"] = "pass"  # so that base and plus differ
    (tmp_path / "a_eval_results.json").write_text(json.dumps(rows))
    for other, first in ((tmp_path / "a_eval_results.json", 0.75), (plus, 0.35)):
        (line,) = compare(other, plus).lines
        assert (line.test.metric, line.first, line.second) == ("plus", first, 0.35)
    base = as_jsonl(tmp_path / f"samples_humaneval{STAMP}", lines_of_lm_eval(A))
    for files, had in (((base, plus), "base"), ((plus, base), "plus")):
        said = refused(capsys, *files)
        assert f"no measure in common: {files[0]} has pass@1 {had}" in said


def test_a_task_over_mbpp_plus_that_ran_other_tests_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = {"test_list": ["assert f(1) == 2"], "test": "inputs = [[1], [2]]\nresults = [2, 3]"}
    rows = lines_of_lm_eval(A, "pass_at_1", ids=lambda i: {"task_id": i, **tests})
    name = tmp_path / f"samples_mbpp_plus{STAMP}"
    wrong = as_jsonl(name, [{**row, "target": "assert f(1) == 2"} for row in rows])
    assert "was judged by others (target)" in refused(capsys, wrong, wrong)
    right = as_jsonl(name, [{**row, "target": tests["test"]} for row in rows])
    assert load(right).rows["plus_passed"].tolist() == A


def test_ids_of_mbpp_come_from_its_documents_and_never_from_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = evalplus(tmp_path / "m_eval_results.json", A)
    judged.write_text(judged.read_text().replace("HumanEval/", "Mbpp/"))
    numbered = as_jsonl(tmp_path / f"samples_mbpp{STAMP}", lines_of_lm_eval(B, ids=lambda i: {}))
    assert "no task in common" in refused(capsys, judged, numbered)
    rows = lines_of_lm_eval(B, "pass_at_1", ids=lambda i: {"task_id": i + 11})
    named = as_jsonl(tmp_path / f"samples_mbpp_instruct{STAMP}", rows)
    assert load(named).rows["task_id"].tolist() == [f"Mbpp/{i + 11}" for i in range(40)]
    assert compare(judged, named).tasks == {"mbpp": 29}


@pytest.mark.parametrize(
    "ids", [lambda i: {}, lambda i: {"task_id": i}, lambda i: {"task_id": f"x{i}"}]
)
def test_different_tasks_of_lm_eval_are_not_joined_and_runs_of_one_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ids
) -> None:
    rows = lines_of_lm_eval(A, "exact_match", ids=ids)
    a, b = (as_jsonl(tmp_path / f"samples_bbh_2shot_{n}_x{STAMP}", rows) for n in "ab")
    assert "no task in common" in refused(capsys, a, b)
    again = as_jsonl(tmp_path / "samples_bbh_2shot_a_x_2026-11-12T13-14-15.jsonl", rows)
    assert compare(a, again).tasks == {"other": 40}


def test_a_line_separator_within_a_text_ends_no_line_of_a_result(tmp_path: Path) -> None:
    rows = [{**row, "resps": [["a\u2028b\x85c\x0bd"]]} for row in lines_of_lm_eval(A)]
    file = tmp_path / f"samples_humaneval{STAMP}"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")
    assert load(file).rows["base_passed"].tolist() == A


@pytest.mark.parametrize("content", ['{"arms": ' + "1" * 5000 + "}", "[" * 100_000, "[]", "{"])
def test_damaged_facts_beside_a_result_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = outcomes(tmp_path / "a", A)
    for name in ("results.json", "scores.json"):
        (folder / name).write_text(content)
        assert "scores.json or results.json is damaged" in refused(capsys, folder, folder)


def humanevalpack(file: Path, passed: list[bool]) -> Path:
    log = {
        str(i): [[0, {"task_id": i, "passed": p, "result": "passed", "completion_id": 0}]]
        for i, p in enumerate(passed)
    }
    file.write_text(json.dumps(log))
    return file


def test_a_log_of_humanevalpack_is_never_taken_for_humaneval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (humanevalpack(tmp_path / f"{n}.json", (A * 5)[i : 164 + i]) for i, n in enumerate("ab"))
    assert "no task in common" in refused(
        capsys, a, evalplus(tmp_path / "x_eval_results.json", (A * 5)[:164])
    )
    said = refused(capsys, a, b)
    assert "do not say of which task and language of HumanEvalPack they are" in said
    assert "add --different-benchmarks if they are of one" in said
    found = compare(a, b, different_benchmarks=True)
    assert found.tasks == {"other": 164}
    assert any("which task and language" in note for note in found.notes)
    short = humanevalpack(tmp_path / "short.json", A)  # of another number of problems
    with pytest.raises(DataError, match="no task in common"):
        compare(a, short, different_benchmarks=True)


def test_different_prompts_of_the_two_sides_are_said(tmp_path: Path) -> None:
    ours, same = outcomes(tmp_path / "a", A), outcomes(tmp_path / "b", B)
    assert not any("prompt" in note for note in compare(ours, same).notes)
    other = outcomes(tmp_path / "c", B, first=10, prompt="1")
    (said,) = [note for note in compare(ours, other).notes if "prompt" in note]
    assert said == (
        "30 of the 30 tasks were put to the two sides with different prompts; their differences "
        "are not due to the models or the data alone"
    )
    foreign = compare(ours, evalplus(tmp_path / "m_eval_results.json", B)).notes
    assert "not every side says with which prompts it was asked" in foreign


def test_the_luck_of_training_is_that_of_all_arms_whichever_are_asked_for(told: Job) -> None:
    asked = ("primary", "rmi_band", "random")
    made = read_json(told.out / "results.json")["comparisons"]
    (expected,) = [c for c in made if (c["family"], c["arm"], c["baseline"]) == asked]
    found = compare(told.out, told.out, arm_a="rmi_band", arm_b="random").lines
    (line,) = [line for line in found if line.test.metric == "plus"]
    assert line.test.p_value == pytest.approx(expected["p_value"])
    assert line.test.difference == pytest.approx(expected["difference"])


def test_outcomes_of_no_adapter_are_the_untuned_model_which_has_no_luck_of_training(
    told: Job,
) -> None:
    folder = told.inputs["outcomes/untuned/0/mini"]
    found = compare(told.out, folder, arm_a="full").lines
    same = compare(told.out, told.out, arm_a="full", arm_b="untuned").lines
    assert [line.test for line in found] == [line.test for line in same]


def test_a_task_whose_suite_its_harness_does_not_name_is_of_the_other_side_s(
    tmp_path: Path,
) -> None:
    def mini(text: str) -> str:
        return text.replace("HumanEval/", "mini_")

    ours = outcomes(tmp_path / "ours", A)
    rows = pd.read_parquet(ours / "per_problem.parquet")
    rows = rows.assign(benchmark="mini", task_id=rows["task_id"].map(mini))
    rows.to_parquet(ours / "per_problem.parquet")
    judged = evalplus(tmp_path / "m_eval_results.json", B, md5="a" * 32)
    judged.write_text(mini(judged.read_text()))
    for sides in ((ours, judged), (judged, ours)):
        assert compare(*sides).tasks == {"mini": 40}
    facts = {"benchmark": "mini", "benchmark_md5": "b" * 32}
    (ours / "scores.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="different files"):
        compare(judged, ours)
    assert compare(judged, judged).tasks == {"other": 40}


def test_results_on_different_benchmark_files_are_compared_only_if_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evalplus(tmp_path / "a_eval_results.json", A, md5="a" * 32)
    b = evalplus(tmp_path / "b_eval_results.json", B, md5="b" * 32)
    assert cli.main(["compare", str(a), str(b)]) == 2
    said = capsys.readouterr().err
    assert "a" * 32 in said and "b" * 32 in said and "--different-benchmarks" in said
    assert cli.main(["compare", str(a), str(b), "--different-benchmarks"]) == 0
    assert "judged on different files" in capsys.readouterr().out
    assert not any("file" in note for note in compare(a, a).notes)
    ours = outcomes(tmp_path / "ours", A)
    facts = {"benchmark": "humaneval", "benchmark_md5": "b" * 32}
    (ours / "scores.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="different files"):
        compare(ours, a)
    assert not any("file" in note for note in compare(ours, b).notes)


def test_several_samples_against_one_are_compared_by_their_shares(tmp_path: Path) -> None:
    ten = evalplus(tmp_path / "ten_eval_results.json", A, samples=10)
    found = compare(ten, outcomes(tmp_path / "one", B))
    line = found.lines[0]
    assert (line.first, line.second) == (0.75, 0.35)
    reference = ttest_rel(np.array(A, float), np.array(B, float)).pvalue
    # As if one more task had gone each way, so a little above the plain paired t test.
    assert reference < line.test.p_value < 3 * reference
    assert "A has 10 samples a task and B 1" in found.text and "t test alone" in found.text


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "nothing", '{"eval": {"a": [{"base_status": "great"}]}}',
     '{"doc_id": 0, "metrics": ["f1"], "f1": 0.3}', '{"task_id": "a", "passed": "yes"}',
     '{"task_id": "a", "passed": ' + "1" * 5000 + "}", "[" * 100_000],
)  # fmt: skip
def test_a_file_without_verdicts_is_refused_and_never_read_as_failures(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "some.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"no result in a form|no judged task"):
        compare(file, file)
