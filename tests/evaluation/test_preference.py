"""Corrupted solutions, and whether a model prefers the right one."""

import ast

import pytest

from qaq.evaluation.benchmarks import load
from qaq.evaluation.preference import corrupted, preferences, without_a_branch
from qaq.evaluation.prompts import make_asker, stub
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.scoring.engine import Engine
from tests.evaluation.test_bits import plain

CODE = """def f(x):
    y = 1
    if x < 0:
        return -x
    elif x == 0:
        return 0
    for i in range(x):
        if i > y:
            y = i
    return y
"""


def test_a_branch_goes_whole_and_what_is_left_is_python():
    (whole,) = without_a_branch(CODE)  # without the inner one its loop would be empty
    assert "elif" not in whole and "return -x" not in whole and "if i > y" in whole
    assert ast.parse(whole)


def test_every_corruption_differs_from_the_right_solution_and_still_parses():
    problems = load("mini").problems
    right = {p.task_id: p for p in problems}
    found = list(corrupted(problems))
    assert {kind for kind, _ in found} == {"operator", "branch", "other_task"}
    assert [kind for kind, _ in found].count("other_task") == len(problems)
    assert len([1 for kind, _ in found if kind == "operator"]) > len(problems) / 2
    assert len({(kind, p.task_id) for kind, p in found}) == len(found)
    for kind, wrong in found:
        asked = right[wrong.task_id]
        assert wrong.canonical_solution != asked.canonical_solution
        if kind != "other_task":
            head = stub(asked) if asked.prompt.rstrip().endswith(('"""', "'''", ":")) else ""
            assert ast.parse(head + wrong.canonical_solution.lstrip("\n"))
    assert found == list(corrupted(problems))


def test_right_and_wrong_are_read_behind_the_same_prompt(tiny_model):
    config = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    model, problems = load_model(config, "cpu"), load("mini").problems[:4]
    asker = make_asker("chat", config, load_tokenizer(config), None)
    rows = preferences(Engine(model), asker, problems, 2000, None)
    wrong = {(p.task_id, kind): p for kind, p in corrupted(problems)}
    right = {p.task_id: p for p in problems}
    assert {(r["task_id"], r["corruption"]) for r in rows} == set(wrong)
    for row in rows:
        both = right[row["task_id"]], wrong[row["task_id"], row["corruption"]]
        mine = [plain(model, asker.reference(problem)) for problem in both]
        assert [row["right"], row["wrong"]] == pytest.approx(mine, rel=1e-5)
