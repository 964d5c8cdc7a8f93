"""Does a model find the right solution likelier than a corrupted one?

Bits per byte of the right solution alone can fall because a model took over its style. Of two texts
in the same style, one of them wrong, style cannot prefer either. Each canonical solution is
corrupted in up to three ways (`CORRUPTIONS`), put behind the same prompt, and compared by bits per
byte, since the two need not be of one length. Not run: a corruption may, rarely, do the same.
"""

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qaq.data.python_code import flip_one, parse
from qaq.data.wrong_code import mistakes
from qaq.evaluation.problems import Problem
from qaq.evaluation.prompts import Asker, defines_entry_point

if TYPE_CHECKING:
    from qaq.scoring.engine import Engine
    from qaq.scoring.vllm import VllmEngine

CORRUPTIONS = {
    "operator": "an operator, a bound, a constant or two arguments wrong",
    "branch": "a branch removed",
    "other_task": "the next task's solution",
}

FLIPS = 8  # draws of a place to flip, where no mistake can be made that keeps every word


def corrupted(problems: Sequence[Problem]) -> Iterator[tuple[str, Problem]]:
    """Each way of corrupting each solution that it allows: which, and the problem with it."""
    solved, made = [p for p in problems if p.canonical_solution.strip()], set()
    for at, problem in enumerate(solved):
        given = problem.prompt if defines_entry_point(problem) else ""
        code = given + problem.canonical_solution
        for kind, texts in (
            ("operator", mistakes(code)),
            ("operator", [flip_one(code, random.Random(draw)) for draw in range(FLIPS)]),
            ("branch", without_a_branch(code)),
        ):
            wrong = [t[len(given) :] for t in texts if t and t.startswith(given)]
            if wrong and (kind, problem.task_id) not in made:
                text = random.Random(f"{kind} {problem.task_id}").choice(wrong)
                made.add((kind, problem.task_id))
                yield kind, replace(problem, canonical_solution=text)
        other = solved[(at + 1) % len(solved)].canonical_solution
        if other != problem.canonical_solution:
            yield "other_task", replace(problem, canonical_solution=other)


def without_a_branch(code: str) -> list[str]:
    """The code less one `if` with all that hangs on it, for each whose removal leaves Python."""
    tree = parse(code)
    lines, found = code.splitlines(keepends=True), []
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, ast.If) or not lines[node.lineno - 1].lstrip().startswith("if"):
            continue  # no `if` of its own line: an `elif`, or behind a semicolon
        text = "".join(lines[: node.lineno - 1] + lines[node.end_lineno :])
        if parse(text) is not None:
            found.append(text)
    return found


def preferences(
    engine: "Engine | VllmEngine",
    asker: Asker,
    problems: Sequence[Problem],
    token_budget: int,
    context: int | None,
) -> list[dict[str, object]]:
    """For each corruption of each task the bits per byte of the right and of the wrong solution.

    Rows have `task_id`, `corruption`, `right`, `wrong`; a pair that exceeds the model's context is
    not there.
    """
    from qaq.evaluation.bits import bits_per_byte

    pairs = list(corrupted(problems))
    asked = {p.task_id: p for p in problems}
    right = [asker.reference(asked[name]) for name in dict.fromkeys(p.task_id for _, p in pairs)]
    wrong = [replace(asker.reference(p), task_id=f"{kind} {p.task_id}") for kind, p in pairs]
    bits = bits_per_byte(engine, [*right, *wrong], token_budget, context)
    rows: list[dict[str, object]] = [
        {
            "task_id": p.task_id,
            "corruption": kind,
            "right": bits[p.task_id],
            "wrong": bits[f"{kind} {p.task_id}"],
        }
        for kind, p in pairs
    ]
    return [row for row in rows if None not in row.values()]
