"""Comparing two results, of this project or of EvalPlus."""

import json
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

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


def evalplus(file: Path, passed: list[bool], plus: bool = True) -> Path:
    judged = {
        f"HumanEval/{i}": [
            {
                "task_id": f"HumanEval/{i}",
                "solution": "pass",
                "base_status": "pass" if p else "fail",
                "plus_status": ("pass" if p else "timeout") if plus else None,
            }
        ]
        for i, p in enumerate(passed)
    }
    file.write_text(json.dumps({"date": "2026", "hash": "x", "eval": judged}))
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
    assert {line.test.finding for line in found.lines} == {"not told apart", "descriptive"}
    assert {line.test.low for line in found.lines} == {None}  # nothing differs
    assert {line.test.p_value for line in found.lines} == {1.0}
    assert "A and B cannot be told apart" in found.text


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
    lines = compare(told.out, told.out, arm_a="rmi_band", arm_b="random").lines
    assert {line.test.seeds for line in lines} == {(2, 2)}
    assert [line.test.finding for line in lines if line.test.metric == "plus"] == ["better"]


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    good = outcomes(tmp_path / "good", A)
    with pytest.raises(DataError, match="no result there"):
        compare(good, tmp_path / "none")
    (tmp_path / "x.json").write_text('{"eval": 3}')
    with pytest.raises(DataError, match="not a result file of EvalPlus"):
        compare(good, tmp_path / "x.json")
    with pytest.raises(DataError, match="no task in common"):
        compare(good, outcomes(tmp_path / "far", A, first=1000))
    with pytest.raises(DataError, match="there is no arm full; it has good"):
        compare(good, good, arm_a="full")
