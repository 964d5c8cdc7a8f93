"""The packaged benchmark: well formed, right, and able to tell a wrong program from a right one."""

import ast
import doctest
from pathlib import Path
from typing import Any

from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS, MBPP_OUTPUT_SET_EQ_TASKS

from qaq.evaluation.benchmarks import Problem, load
from qaq.evaluation.judge.judge import JudgeSettings, canonical_check, judge
from qaq.evaluation.outcomes import Sample

PROBLEMS = load("mini").problems
SPECIAL = {  # names that EvalPlus judges by other rules than equality
    *MBPP_OUTPUT_NOT_NONE_TASKS,
    *MBPP_OUTPUT_SET_EQ_TASKS,
    "find_zero",
    "are_equivalent",
    "sum_div",
    "surface_Area",
    "digit_distance_nums",
}


def broken(problem: Problem) -> str:
    """A program of the right name that returns what no task of this benchmark returns."""
    return f"def {problem.entry_point}(*arguments):\n    return {{'no': 'answer'}}\n"


def test_there_are_48_problems_with_names_of_their_own() -> None:
    assert len(PROBLEMS) == 48
    assert len({p.entry_point for p in PROBLEMS}) == 48
    assert not SPECIAL & {p.entry_point for p in PROBLEMS}


def test_every_problem_shows_examples_and_has_both_sets_of_tests() -> None:
    for problem in PROBLEMS:
        function = ast.parse(problem.prompt + problem.canonical_solution).body[0]
        assert isinstance(function, ast.FunctionDef)
        assert function.name == problem.entry_point
        assert doctest.DocTestParser().get_examples(ast.get_docstring(function) or "")
        assert len(problem.base_input) >= 3
        assert len(problem.plus_input) >= 4
        assert not [i for i in problem.plus_input if i in problem.base_input]


def test_the_examples_in_the_prompts_are_true() -> None:
    for problem in PROBLEMS:
        names: dict[str, Any] = {}
        exec(problem.prompt + problem.canonical_solution, names)
        shown = names[problem.entry_point].__doc__
        tests = doctest.DocTestParser().get_doctest(shown, names, problem.task_id, None, 0)
        assert doctest.DocTestRunner(verbose=False).run(tests).failed == 0


def test_all_canonical_solutions_pass(own_cache: Path) -> None:
    check = canonical_check("mini")
    assert (check.tasks, check.base_passed, check.plus_passed) == (48, 48, 48)
    assert check.failing == ()
    assert check.result.suspects == ()


def test_a_wrong_program_fails_everywhere(own_cache: Path, tmp_path: Path) -> None:
    samples = [Sample(p.task_id, 0, "", broken(p)) for p in PROBLEMS]
    result = judge(load("mini"), samples, JudgeSettings(), tmp_path)
    assert {(o.base_status, o.plus_status, o.failure) for o in result.outcomes} == {
        ("fail", "fail", "wrong")
    }


def test_a_half_right_program_passes_only_the_base_tests(own_cache: Path, tmp_path: Path) -> None:
    problem = next(p for p in PROBLEMS if p.entry_point == "capitalize_words")
    table = {
        i[0]: " ".join(w[:1].upper() + w[1:] for w in i[0].split(" ")) for i in problem.base_input
    }
    program = f"def capitalize_words(text):\n    return {table!r}[text]\n"
    only = load("mini", tasks=[problem.task_id])
    (outcome,) = judge(
        only, [Sample(problem.task_id, 0, "", program)], JudgeSettings(), tmp_path
    ).outcomes
    assert (outcome.base_passed, outcome.plus_passed, outcome.failure) == (True, False, "error")
