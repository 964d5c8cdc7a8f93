"""Whole programs: LiveCodeBench's and APPS's files are read, programs judged by what they write."""

import base64
import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qaq.evaluation.benchmarks import Benchmark, load
from qaq.evaluation.config import Suite
from qaq.evaluation.judge.judge import JudgeSettings, canonical_check, judge
from qaq.evaluation.judge.phases import program_in
from qaq.evaluation.judge.stdio import same
from qaq.evaluation.outcomes import Outcome, Sample
from qaq.host.errors import DataError

TESTS = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
MORE = [{"input": "4 5\n", "output": "9\n", "testtype": "stdin"}]
ROW = {
    "question_id": "own_a",
    "question_content": "Read two numbers and print their sum.",
    "public_test_cases": json.dumps(TESTS),
    "private_test_cases": json.dumps(MORE),
}
APPS = {
    "problem_id": 7,
    "question": "Read two numbers and print their sum.",
    "solutions": json.dumps(["print(sum(map(int, input().split())))\n"]),
    "input_output": json.dumps({"inputs": ["1 2\n", ["4", "5"]], "outputs": ["3\n", ["9"]]}),
}


def write(folder: Path, row: dict[str, Any], form: str) -> Benchmark:
    file = folder / "tasks.jsonl"
    file.write_text(json.dumps(row) + "\n")
    return load("own", suite=Suite(file=file, format=form))


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., list[Outcome]]:
    def run(*programs: str, raw: bool = False, **settings: Any) -> list[Outcome]:
        benchmark = write(tmp_path, ROW, "livecodebench")
        samples = [
            Sample("own_a", i, p) if raw else Sample("own_a", i, "", p)
            for i, p in enumerate(programs)
        ]
        return list(judge(benchmark, samples, JudgeSettings(**settings), tmp_path / "w").outcomes)

    return run


def test_public_tests_are_the_base_set_and_private_ones_plus(
    judged: Callable[..., list[Outcome]],
) -> None:
    right, half, wrong, broken, fails = judged(
        "a, b = map(int, input().split())\nprint(a + b)",
        "input()\nprint(3)",
        "print(input())",
        "print((",
        "print(1 / 0)",
    )
    assert (right.base_status, right.plus_status, right.suspect) == ("pass", "pass", False)
    assert (half.base_status, half.plus_status, half.failure) == ("pass", "fail", "wrong")
    assert [o.failure for o in (wrong, broken, fails)] == ["wrong", "syntax", "error"]


def test_programs_may_read_and_end_in_every_usual_way(
    judged: Callable[..., list[Outcome]],
) -> None:
    outcomes = judged(
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))",
        "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.buffer.readline().split()))))",
        "print(sum(map(int, open(0).read().split())))\nexit()",
        "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))\nsys.exit(0)",
        "def main():\n    print(eval('+'.join(input().split())))\nif __name__ == '__main__':\n"
        "    main()",
    )
    assert [o.plus_passed for o in outcomes] == [True] * 5, outcomes


def test_a_program_that_looks_for_the_answer_or_does_not_end_fails(
    judged: Callable[..., list[Outcome]],
) -> None:
    searching = (
        "import gc\nfor found in gc.get_objects():\n    if type(found) is list and "
        "any(x in ('3\\n', '9\\n') for x in found if type(x) is str):\n        print(found[0])"
    )
    outcomes = judged(searching, "while True:\n    pass", "import os\nos._exit(0)",
                      "import threading\nthreading.Thread(target=print).start()\nprint(3)",
                      min_time_limit=0.5)  # fmt: skip
    assert [o.base_passed for o in outcomes] == [False] * 4
    assert [o.failure for o in outcomes[1:]] == ["timeout", "killed", "error"]


def test_the_program_is_taken_out_of_an_answer(judged: Callable[..., list[Outcome]]) -> None:
    answer = "So:\n```python\nprint(sum(map(int, input().split())))\n```\nRun it with\n```\nsh\n```"
    assert program_in(answer) == "print(sum(map(int, input().split())))\n"
    assert judged(answer, "print(sum(map(int, input().split())))", raw=True)[0].plus_passed


def test_programs_may_close_their_output_and_use_the_descriptors(
    judged: Callable[..., list[Outcome]],
) -> None:
    add = "sum(map(int, input().split()))"
    outcomes = judged(
        f"import sys\nwith sys.stdout as out:\n    out.write(str({add}))",
        f"import sys\nprint({add})\nsys.stdout.close()",
        f"import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint({add})",
        "import fileinput\nfor line in fileinput.input():\n    print(sum(map(int, line.split())))",
        "import os, sys\nx = os.read(sys.stdin.fileno(), 99)\nprint(sum(map(int, x.split())))",
        f"import os, sys\nos.write(sys.stdout.fileno(), b'%d' % {add})",
        f"import sys\nassert sys.argv == ['program.py']\nprint({add})",
        f"import os\nprint({add}, end='', flush=True)\nos.write(1, b'')\nos.write(2, b'5')",
        f"import sys\nprint({add})\nsys.stdout.close()\nprint(1 / 0)",
    )
    assert [(o.plus_passed, o.failure) for o in outcomes] == [(True, None)] * 8 + [(False, "error")]


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("1. So:\n   ```python\n   print(1)\n   ```\n", "print(1)\n"),
        ("~~~\nprint(1)\n~~~\n", "print(1)\n"),
        ("Sure! ```python\nprint(1)\n```\n```sh\nls\n```", "print(1)\n"),
        ("```python\nprint(1)\n", "print(1)\n"),  # cut off at the limit
        ("print(1)", "print(1)"),
    ],
)
def test_the_program_is_found_in_every_form_of_a_block(answer: str, program: str) -> None:
    assert program_in(answer) == program


@pytest.mark.parametrize(
    ("written", "expected", "is_same"),
    [
        ("1 2\n", "1 2", True), ("1.0 2", "1 2", True), ("a \n b\n\n", "a\nb", True),
        ("1\n2", "1 2", False), ("a", "b", False), ("", "", True), ("", "1", False),
        ("1 a", "1.0 a", False), ("NaN", "nan", False), (None, "", False),
    ],
)  # fmt: skip
def test_texts_are_compared_line_by_line_and_as_numbers(
    written: Any, expected: str, is_same: bool
) -> None:
    assert same(written, expected) is is_same


def test_packed_private_tests_of_livecodebench_are_read_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    def packed(content: object) -> str:
        return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()

    row = ROW | {"private_test_cases": packed(json.dumps(MORE))}
    (problem,) = write(tmp_path, row, "livecodebench").problems
    assert (problem.plus_input, problem.plus_output) == (["4 5\n"], ["9\n"])
    with pytest.raises(DataError, match=r"it holds builtins\.print"):
        write(tmp_path, ROW | {"private_test_cases": packed(print)}, "livecodebench")


def test_private_tests_may_be_a_list_as_they_are(tmp_path: Path) -> None:
    row = ROW | {"public_test_cases": TESTS, "private_test_cases": MORE}
    plain = write(tmp_path, ROW, "livecodebench").problems
    assert write(tmp_path, row, "livecodebench").problems == plain
    assert write(tmp_path, ROW | {"private_test_cases": None}, "livecodebench").problems


@pytest.mark.parametrize(
    ("form", "row", "field"),
    [
        ("livecodebench", ROW | {"public_test_cases": "[]"}, "public_test_cases"),
        ("livecodebench", ROW | {"public_test_cases": []}, "public_test_cases"),
        ("apps", APPS | {"input_output": '{"inputs": [], "outputs": []}'}, "input_output"),
        ("apps", APPS | {"input_output": ""}, "input_output"),
    ],
)
def test_no_text_solves_a_problem_that_has_no_tests(
    form: str, row: dict[str, Any], field: str, tmp_path: Path
) -> None:
    benchmark = write(tmp_path, row, form)
    task = benchmark.problems[0].task_id
    message = rf"1 of 1 problems have no tests \(the first: {task}\).*give them tests \({field}\)"
    with pytest.raises(DataError, match=message):
        judge(benchmark, [Sample(task, 0, "", "no program")], JudgeSettings(), tmp_path / "w")


def test_an_apps_problem_is_read_and_its_solution_passes(tmp_path: Path) -> None:
    (problem,) = write(tmp_path, APPS, "apps").problems
    assert (problem.task_id, problem.base_input) == ("APPS/7", ["1 2\n", "4\n5"])
    sample = Sample("APPS/7", 0, "", "import sys\nprint(sum(map(int, sys.stdin.read().split())))")
    (outcome,) = judge(
        write(tmp_path, APPS, "apps"), [sample], JudgeSettings(), tmp_path / "w"
    ).outcomes
    assert (outcome.base_status, outcome.plus_status) == ("pass", "pass")


@pytest.mark.parametrize(
    ("form", "change", "sentence"),
    [
        (
            "livecodebench",
            {"public_test_cases": json.dumps([TESTS[0] | {"testtype": "functional"}])},
            "by calling a function",
        ),
        ("livecodebench", {"public_test_cases": "[{"}, "not JSON"),
        ("livecodebench", {"private_test_cases": {"input": ""}}, "found dict, expected a list of"),
        ("livecodebench", {"private_test_cases": 3}, "found int, expected a list of"),
        ("livecodebench", {"private_test_cases": ["1"]}, "expected a JSON list of objects"),
        ("livecodebench", {"private_test_cases": "!!"}, "neither JSON nor LiveCodeBench's packing"),
        ("apps", {"input_output": json.dumps({"inputs": [], "outputs": [], "fn_name": "f"})}, "f"),
        ("apps", {"input_output": json.dumps({"inputs": ["1"], "outputs": []})}, "as many inputs"),
        ("apps", {"question": 3}, "field 'question' is int"),
        ("appps", {}, "there is no benchmark format 'appps'"),
    ],
)
def test_a_problem_that_cannot_be_judged_is_named(
    form: str, change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        write(tmp_path, (APPS if form == "apps" else ROW) | change, form)


def test_our_small_problems_are_solved_by_their_solutions() -> None:
    check = canonical_check("mini_stdio")
    assert (check.tasks, check.base_passed, check.plus_passed) == (6, 6, 6)
    assert check.result.judge == "stdio" and "ring" in check.result.sandbox
    assert check.result.suspects == ()


OWN_JUDGE = """
from qaq.evaluation.judge.registry import judge
from qaq.evaluation.outcomes import Outcome

@judge("echo")
def echo(problems, samples, bench):
    return [
        Outcome(s.task_id, s.index, s.solution, status, status, failure)
        for s in samples
        for right in [s.solution == problems[s.task_id].prompt]
        for status, failure in [("pass", None) if right else ("fail", "wrong")]
    ]
"""


def qaq(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qaq.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_benchmark_with_a_judge_of_its_own_is_two_files_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own" / "benchmark"
    own.mkdir(parents=True)
    (own.parent / "echo_judge.py").write_text(OWN_JUDGE)
    (own / "echoes.yaml").write_text(
        "name: echoes\nsuites:\n  echoes: {file: tasks.jsonl, format: livecodebench, judge: echo}\n"
    )
    write(tmp_path, ROW, "livecodebench")
    lines = [{"task_id": "own_a", "solution": ROW["question_content"]}]
    Path("samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["judge", "samples.jsonl", "--suite", "echoes", "--config-dir", "own"]
    # in processes of their own: what a plug-in registers stays for as long as its process lives
    judged = qaq(*command, "--no-sanitize")
    assert judged.returncode == 0, judged.stderr
    assert "pass@1 base 1.000, plus 1.000" in judged.stdout
    (own / "echoes.yaml").write_text(
        "name: echoes\nsuites:\n  echoes: {file: tasks.jsonl, judge: ecko}\n"
    )
    planned = qaq("plan", "benchmark=echoes", "--config-dir", "own")
    assert planned.returncode == 2
    assert "there is no judge 'ecko'; did you mean echo?" in planned.stderr
