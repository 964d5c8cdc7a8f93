"""Inside the sandbox: whole programs, judged by what they write for what they read.

Each test is a process of its own. The rule is LiveCodeBench's (`testing_util.py` of its
`lcb_runner`): both texts stripped and cut into lines, the lines stripped; as many lines, and each
pair equal as texts or, where that fails, as sequences of decimal numbers. A set of tests ends with
the first that fails.
"""

import contextlib
import pickle
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from qaq.evaluation.judge.runs import EXTRA, SET_LIMIT, Call, Helper, Stopped, misjudged
from qaq.evaluation.judge.verdict import Check
from qaq.evaluation.judge.verdict import verdict as both
from qaq.evaluation.problems import Problem

LOT = random.SystemRandom()


@dataclass(frozen=True)
class Limits:
    """Seconds for a test, and bytes of address space."""

    seconds: float
    memory: int


def verdict(
    helper: Helper, problem: Problem, program: str, limits: Limits, *, spare: bool = False
) -> dict[str, Any]:
    """The verdict on one program as JSON values.

    `spare` leaves out the second set where the first fails; `base` is null then.

    Raises:
        HelperError: the program could not be run.
    """
    sets = {
        "base": (problem.base_input, problem.base_output),
        "plus": (problem.plus_input, problem.plus_output),
    }

    def suspect(base: Check, plus: Check) -> bool:
        return base.status == plus.status == "pass" and (base.suspect or plus.suspect)

    return both(lambda part: _check(helper, program, *sets[part], limits), suspect, spare=spare)


def _check(
    helper: Helper, program: str, inputs: Sequence[str], outputs: Sequence[str], limits: Limits
) -> Check:
    until = time.monotonic() + min(SET_LIMIT, limits.seconds * len(inputs)) + EXTRA
    suspect = False
    for text, expected in zip(inputs, outputs, strict=True):
        if time.monotonic() > until:
            return Check("timeout", "timeout")
        call = Call(program, "", pickle.dumps([]), [limits.seconds], limits.memory, text.encode())
        try:
            with contextlib.closing(helper.run(call)) as answers:
                written = answers[0]
        except Stopped as end:
            status = "fail" if end.spoken else "timeout"
            return Check(status, end.kind, raisable=end.spoken and end.kind == "timeout")
        false = next((o for o in _shuffled(outputs) if not same(expected, o)), None)
        found = {o is expected: same(written, o) for o in _shuffled([expected, false])}
        if not found[True]:
            return Check("fail", "wrong")
        suspect |= found[False]
    return Check("pass", suspect=suspect)


def same(written: Any, expected: str | None) -> bool:
    """Whether a program's output is the expected one."""
    if not isinstance(written, str) or expected is None:
        return False
    ours, theirs = _lines(written), _lines(expected)
    return len(ours) == len(theirs) and all(
        a == b or _numbers(a) == _numbers(b) != [] for a, b in zip(ours, theirs, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _numbers(line: str) -> list[Decimal]:
    try:
        return [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return []


def _shuffled(items: Sequence[Any]) -> list[Any]:
    return LOT.sample(items, len(items))


def control(limits: Limits) -> Callable[[Helper], str | None]:
    """A right and a wrong trivial program; null, or what is not as it must be."""
    problem = Problem("Control/0", "", "", "", ["1"], ["2"], base_output=["2"], plus_output=["3"])

    def run(helper: Helper) -> str | None:
        own = Limits(20.0, limits.memory)
        right = verdict(helper, problem, "print(int(input()) + 1)", own)
        wrong = verdict(helper, problem, "print(input())", own)
        return misjudged(right, wrong)

    return run
