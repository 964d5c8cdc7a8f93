"""Comparing two results, of this project or of EvalPlus."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.contingency_tables import mcnemar

from qaq import cli
from qaq.host.errors import DataError
from qaq.reporting.compare import compare
from qaq.store.jobs import Job
from qaq.store.tables import PER_PROBLEM, write_rows


def outcomes(folder: Path, passed: list[bool], first: int = 0) -> Path:
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
            "prompt_sha": "0",
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


def test_the_log_of_bigcode_eval_is_read_as_humaneval_where_all_its_tasks_are_there(
    tmp_path: Path,
) -> None:
    passed = [i % 3 == 0 for i in range(164)]
    log = {
        str(i): [[0, {"task_id": i, "passed": p, "result": "passed", "completion_id": 0}]]
        for i, p in enumerate(passed)
    }
    (tmp_path / "logs.json").write_text(json.dumps(log))
    found = compare(tmp_path / "logs.json", evalplus(tmp_path / "x_eval_results.json", passed))
    assert found.tasks == {"humaneval": 164}
    assert {line.test.ahead + line.test.behind for line in found.lines} == {0}


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
    assert not compare(a, a).notes
    ours = outcomes(tmp_path / "ours", A)
    facts = {"benchmark": "humaneval", "benchmark_md5": "b" * 32}
    (ours / "scores.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="different files"):
        compare(ours, a)
    assert not compare(ours, b).notes


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
     '{"doc_id": 0, "metrics": ["f1"], "f1": 0.3}', '{"task_id": "a", "passed": "yes"}'],
)  # fmt: skip
def test_a_file_without_verdicts_is_refused_and_never_read_as_failures(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "some.json"
    file.write_text(content)
    with pytest.raises(DataError, match=r"no result in a form|no judged task"):
        compare(file, file)
