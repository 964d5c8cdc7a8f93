"""`qaq judge`: samples from a file, and what is said about files that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qaq import cli
from qaq.evaluation.benchmarks import Benchmark

Make = Callable[..., Benchmark]
RIGHT = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return x\n"


@pytest.fixture
def judged(
    make_benchmark: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Judge lines (or bytes) for two tasks on the command line: exit code and all that it said."""
    data = make_benchmark(["one", "two"]).path

    def run(lines: list[object] | bytes, *more: str) -> tuple[int, str]:
        file = tmp_path / "samples.jsonl"
        content = (
            lines
            if isinstance(lines, bytes)
            else "".join(json.dumps(line) + "\n" for line in lines).encode()
        )
        file.write_bytes(content)
        code = cli.main(["judge", str(file), "--suite", "mini", "--data", str(data), *more])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def sample(task: int, solution: str = RIGHT) -> dict[str, str]:
    return {"task_id": f"Own/{task}", "solution": solution}


def test_the_result_is_a_file_in_evalplus_form_with_its_conditions(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = judged([sample(0), {"task_id": "Own/1", "completion": "    return x\n"}])
    assert code == 0
    assert "pass@1 base 0.500, plus 0.500" in said and "ring" in said and "repaired" in said
    result = json.loads((tmp_path / "samples_eval_results.json").read_text())
    statuses = {t: [s["base_status"] for s in found] for t, found in result["eval"].items()}
    assert statuses == {"Own/0": ["pass"], "Own/1": ["fail"]}
    assert result["eval"]["Own/1"][0]["solution"] == "def f(x):\n    return x\n"
    assert result["conditions"]["judge"] == "repaired" and result["conditions"]["sandbox"]
    assert sorted(p.name for p in tmp_path.iterdir() if "judging" in p.name) == []


def test_several_samples_of_a_task_and_a_part_of_the_tasks(
    judged: Callable[..., tuple[int, str]],
) -> None:
    lines = [sample(0, WRONG), sample(0)]
    assert "1 tasks, 2 samples" in judged(lines, "--limit", "1")[1]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([sample(0)], "tasks without a sample: Own/1"),
        ([sample(0), sample(1), sample(7)], "unknown tasks: Own/7"),
        ([sample(0), sample(0), sample(1), sample(2)], "Own/0 has 2"),
        ([sample(0), {"task_id": "Own/1"}], "line 2: found the fields ['task_id'], expected"),
        ([sample(0), {"task_id": 1, "solution": ""}], "line 2: task_id is int, expected text"),
        ([sample(0), ["Own/1"]], "line 2: found list, expected a JSON object"),
        (b'{"task_id": "Own/0", "solution": "\xff"}\n', "not UTF-8 (byte 34)"),
        (b'{"task_id": "Own/0", \n', "line 1: not JSON"),
    ],
)
def test_samples_that_do_not_fit_are_the_users_mistake_and_nothing_is_written(
    judged: Callable[..., tuple[int, str]],
    tmp_path: Path,
    lines: list[object] | bytes,
    sentence: str,
) -> None:
    before = sorted(tmp_path.iterdir())
    code, said = judged(lines)
    assert code == 2 and sentence in said and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "samples.jsonl"])


def test_a_result_that_exists_is_not_overwritten(
    judged: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    out = tmp_path / "samples_eval_results.json"
    out.write_text("mine")
    code, said = judged([sample(0), sample(1)])
    assert (code, out.read_text()) == (2, "mine") and "is not overwritten" in said


def test_an_unknown_task_of_a_selection_is_named_with_the_nearest(
    judged: Callable[..., tuple[int, str]],
) -> None:
    code, said = judged([sample(0)], "--tasks", "Own/9")
    assert code == 2 and "there is no task 'Own/9'" in said
