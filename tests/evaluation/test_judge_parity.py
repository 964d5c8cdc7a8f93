"""The same samples through EvalPlus alone and through the judge: the same verdict on each task."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import evalplus.eval as checker
import pytest

from qaq.evaluation.benchmarks import Benchmark, Problem, load
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.judge.truth import override
from qaq.evaluation.outcomes import Sample

REFERENCE = Path(__file__).with_name("reference_evalplus.py")
FILES = {"humaneval": "HumanEvalPlus.jsonl", "mbpp": "MbppPlus.jsonl"}

# What a broken program returns instead of `result`; harmless, and each near another rule of the
# checker: types, tolerances, sets, exceptions, errors on large inputs only.
BROKEN = (
    "None",
    "str(result)",
    "tuple(result) if isinstance(result, list) else [result]",
    "result + 1 if isinstance(result, int) else result",
    "result * (1 + 1e-9) if isinstance(result, float) else result",
    "result * (1 + 1e-4) if isinstance(result, float) else result",
    "list(reversed(result)) if isinstance(result, (list, tuple)) else not result",
    "result if len(repr(args)) < 60 else None",
    "result if len(repr(args)) < 60 else 1 // 0",
    "__import__('numpy').array(result)",
    "int(result) if isinstance(result, bool) else result",
    "set(result) if isinstance(result, (list, tuple)) else result",
    "(_ for _ in ()).throw(ValueError('no'))",
    "__import__('sys').exit(0)",
)


def canonical(problem: Problem) -> str:
    return problem.prompt + problem.canonical_solution


def broken(problem: Problem, number: int) -> str:
    name = problem.entry_point
    answer = BROKEN[number % len(BROKEN)]
    return (
        f"{canonical(problem)}\n_right = {name}\n"
        f"def {name}(*args):\n    result = _right(*args)\n    return {answer}\n"
    )


def not_a_program(problem: Problem, number: int) -> str:
    return ["", "def", f"{problem.entry_point} = 3\n", "import absent\n"][number % 4]


def evalplus_alone(
    benchmark: Benchmark, samples: list[Sample], how: str, folder: Path
) -> dict[str, list[tuple[str, str]]]:
    """EvalPlus's statuses, base and plus, of each task's samples in order."""
    file = folder / "samples.jsonl"
    with file.open("w") as out:
        for sample in samples:
            out.write(json.dumps({"task_id": sample.task_id, "solution": sample.solution}) + "\n")
    told = override(benchmark) | {"XDG_CACHE_HOME": str(folder)}
    if how == "repaired":
        told["EVALPLUS_MAX_MEMORY_BYTES"] = str(8 << 30)
    subprocess.run(
        [sys.executable, str(REFERENCE), how, benchmark.format, str(file), "2"],
        env=os.environ | told, check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    found = json.loads((folder / "samples_eval_results.json").read_text())["eval"]
    return {t: [(s["base_status"], s["plus_status"]) for s in all_] for t, all_ in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["humaneval", pytest.param("mbpp", marks=pytest.mark.nightly)])
def test_every_verdict_is_evalplus_own(
    suite: str, shared_data: Path, own_cache: Path, tmp_path: Path
) -> None:
    benchmark = load(suite, shared_data / "evalplus" / FILES[suite])
    samples = []
    for place, problem in enumerate(benchmark.problems):
        programs = [
            canonical(problem),
            broken(problem, place % len(BROKEN)),
            broken(problem, place + 5) if place % 3 else not_a_program(problem, place // 3),
        ]
        samples += [Sample(problem.task_id, i, "", text) for i, text in enumerate(programs)]

    ours = judge(benchmark, samples, JudgeSettings(), tmp_path / "work")
    theirs = evalplus_alone(benchmark, samples, "repaired", tmp_path)

    differing = {
        (o.task_id, o.index): ((o.base_status, o.plus_status), theirs[o.task_id][o.index])
        for o in ours.outcomes
        if (o.base_status, o.plus_status) != theirs[o.task_id][o.index]
    }
    # a machine under load may make either side run into a time limit; nothing else may differ
    late = {key for key in differing if key[0] in ours.flips}
    assert {k: v for k, v in differing.items() if k not in late} == {}
    canonicals = [o for o in ours.outcomes if o.index == 0]
    assert all(o.plus_passed and not o.suspect for o in canonicals)
    assert len(canonicals) == {"humaneval": 164, "mbpp": 378}[suite]
    kinds = Counter((o.base_passed, o.plus_passed) for o in ours.outcomes)
    assert min(kinds[True, True], kinds[True, False], kinds[False, False]) >= 10
    assert {"wrong", "error", "syntax"} <= {o.failure for o in ours.outcomes}


def test_what_can_be_iterated_passes_where_evalplus_makes_a_set_of_it(
    shared_data: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALPLUS_MAX_MEMORY_BYTES", "-1")  # none: it forks this process
    lines = (shared_data / "evalplus" / FILES["mbpp"]).read_text().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_text("".join(line for line in lines if '"task_id": "Mbpp/7"' in line))
    benchmark = load("mbpp", part, allow_unknown=True)
    (problem,) = benchmark.problems
    name, inputs = problem.entry_point, problem.base_input
    programs = [
        f"{canonical(problem)}\n_right = {name}\ndef {name}(text):\n"
        f"    words = _right(text)\n    return {answer}\n"
        for answer in (
            "words", "filter(None, words)", "map(str, words)", "(w for w in words)",
            "dict.fromkeys(words, 1).keys()", "dict(enumerate(words)).values()", "iter(words)",
            "iter(words[1:])", "zip(words)", "len(words)", "(1 // 0 for w in words)",
        )
    ]  # fmt: skip
    space: dict[str, Any] = {}
    exec(canonical(problem), space)
    expected = [space[name](*arguments) for arguments in inputs]
    theirs = [
        checker.untrusted_check(
            "mbpp", program, inputs, name, expected, 0, [0.1] * len(inputs), fast_check=True
        )[0]
        for program in programs
    ]
    assert theirs == ["pass"] * 7 + ["fail"] * 4
    samples = [Sample(problem.task_id, i, "", text) for i, text in enumerate(programs)]
    ours = judge(benchmark, samples, JudgeSettings(), tmp_path / "work").outcomes
    assert [o.base_status for o in ours] == theirs and not any(o.suspect for o in ours)


@pytest.mark.slow
def test_stock_numbers_are_those_of_the_command_line(
    shared_data: Path, own_cache: Path, tmp_path: Path
) -> None:
    lines = (shared_data / "evalplus" / FILES["humaneval"]).read_text().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_text("".join(lines[20:44]))
    benchmark = load("humaneval", part, allow_unknown=True)
    samples = [Sample(p.task_id, 0, "", canonical(p)) for p in benchmark.problems]
    ours = judge(benchmark, samples, JudgeSettings(judge="stock"), tmp_path / "work")
    assert [o.task_id for o in ours.outcomes if not o.base_passed] == ["HumanEval/32"]
    assert [o.task_id for o in ours.outcomes if not o.plus_passed] == ["HumanEval/32"]
    theirs = evalplus_alone(benchmark, samples, "stock", tmp_path)
    assert {o.task_id: [(o.base_status, o.plus_status)] for o in ours.outcomes} == theirs
