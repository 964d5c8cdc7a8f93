"""Inside the sandbox: EvalPlus's checker on one sample, with the ring, the reason and the decoy.

The verdict is `evalplus.evaluate.check_correctness`'s own. Around it, and without editing the
package, this module

- tightens each sample's process (`ring.tighten`) before EvalPlus's code runs the sample there;
- notes why a sample failed: EvalPlus sets its shared verdict inside its `except` clause, so the
  exception can be seen at that moment;
- asks again with false expected values (`decoy`): a program that passes that check, too, did not
  compute its answer but got at the judge (an `__eq__` that is always true, the caller's frame,
  the shared verdict, a patched numpy);
- repairs, for `judge=repaired`, the verdict on HumanEval/32, which 0.3.1 forgets to record
  (fixed after the release, evalplus pull request 241).
"""

import functools
import hashlib
import inspect
import math
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import evalplus.eval as checker
import evalplus.evaluate as runner
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.eval.utils import TimeoutException, chdir

from qaq.evaluation.sandbox import ring

SET_LIMIT = 60.0  # seconds; EvalPlus's cap on a whole set of tests, which no setting raises
KINDS = ("", "wrong", "error", "timeout", "syntax", "killed")

# These oracles look at the input and not, or not only, at the expected value.
DECOY_EXEMPT = {
    ("humaneval", "find_zero"),
    ("mbpp", "are_equivalent"),
    ("mbpp", "sum_div"),
    ("mbpp", "surface_Area"),
    ("mbpp", "digit_distance_nums"),
}

_execute = checker.unsafe_execute
_source, _first_line = inspect.getsourcelines(_execute)
_COMPILE_LINE = _first_line + next(i for i, s in enumerate(_source) if "exec(code" in s)
_CALL_LINE = _first_line + next(i for i, s in enumerate(_source) if "out = fn(*inp)" in s)


@dataclass(frozen=True)
class Limits:
    """Time allowed per input: the larger of `seconds` and `factor` times the reference's time."""

    seconds: float
    factor: float


@dataclass(frozen=True)
class Check:
    """One set of tests: EvalPlus's status, why it failed, and whether more time could help."""

    status: str
    kind: str
    raisable: bool


class _Here:
    """What the process of the next sample needs to know; it inherits this by fork."""

    libraries: tuple[str, ...] = ()
    scratch: str = ""
    reason: Any = None
    started: float = 0.0
    checks: list[Check] = []  # noqa: RUF012  (one process, emptied before each sample)


def install(*, repaired: bool) -> None:
    """Put the ring and the notes around EvalPlus's checker in this process and its children."""
    _Here.libraries = tuple(ring.import_folders())
    checker.unsafe_execute = _guarded_execute
    runner.untrusted_check = _noted(checker.untrusted_check)
    if repaired:
        checker._poly = _recording(checker._poly)


def verdict(
    dataset: str,
    problem: dict[str, Any],
    solution: str,
    truth: dict[str, Any],
    limits: Limits,
    *,
    spare: bool = False,
) -> dict[str, Any]:
    """EvalPlus's verdict on one solution and what is known about it, as JSON values.

    `spare` leaves out the additional tests where the original ones fail; `base` is null then.
    """
    forget()
    runner.check_correctness(
        dataset, 0, problem, solution, truth, spare, True, None, limits.seconds, limits.factor
    )
    if spare:
        if _Here.checks[0].status != "pass":
            return {"base": None}
        _check_set(dataset, problem, solution, "plus", truth["plus"], truth, limits)
    return note(dataset, problem, solution, truth, limits)


def forget() -> None:
    """Start the notes on the next sample."""
    _Here.checks.clear()
    _Here.started = time.monotonic()


def note(
    dataset: str, problem: dict[str, Any], solution: str, truth: dict[str, Any], limits: Limits
) -> dict[str, Any]:
    """What the checks just made show, and the decoy's word on a sample that passed."""
    base, plus = _Here.checks
    seconds = round(time.monotonic() - _Here.started, 3)
    failed = next((c for c in (base, plus) if c.status != "pass"), None)
    suspect = base.status == "pass" and decoy(dataset, problem, solution, truth, limits)
    return {
        "base": base.status,
        "plus": plus.status,
        "failure": failed.kind if failed else None,
        "raisable": any(c.kind == "timeout" and c.raisable for c in (base, plus)),
        "suspect": suspect,
        "seconds": seconds,
    }


def decoy(
    dataset: str, problem: dict[str, Any], solution: str, truth: dict[str, Any], limits: Limits
) -> bool:
    """Whether the solution passes with one expected value false, which no honest one can.

    All other values stay true and the place changes with the program, so that nothing in the
    judge's process tells this check from the one before.
    """
    name = problem["entry_point"]
    part = "base" if truth["base"] else "plus"
    expected = list(truth[part])
    if (dataset, name) in DECOY_EXEMPT or not expected:
        return False
    place = int(hashlib.sha256(solution.encode(errors="replace")).hexdigest(), 16) % len(expected)
    only_none = dataset == "mbpp" and name in MBPP_OUTPUT_NOT_NONE_TASKS
    expected[place] = not expected[place] if only_none else falsify(expected[place])
    return _check_set(dataset, problem, solution, part, expected, truth, limits) == "pass"


def falsify(value: Any) -> Any:  # noqa: PLR0911
    """A wrong value of the same type and, where it has one, the same length."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, complex):
        return complex(falsify(value.real), value.imag)
    if isinstance(value, (int, float)):
        moved = value + abs(value) + 7919  # far beyond any tolerance that EvalPlus allows
        return moved if isinstance(value, int) or math.isfinite(moved) else 7919.0
    if isinstance(value, str):
        return value + "\u2021decoy"
    if isinstance(value, (list, tuple)):
        return type(value)([falsify(v) for v in value] or [7919])
    if isinstance(value, (set, frozenset)):
        return type(value)({falsify(v) for v in value} | {"\u2021decoy"})
    if isinstance(value, dict):
        return {**value, "\u2021decoy": 7919}
    return object()


def _check_set(
    dataset: str,
    problem: dict[str, Any],
    solution: str,
    part: str,
    expected: list[Any],
    truth: dict[str, Any],
    limits: Limits,
) -> str:
    """EvalPlus's status for one set of tests, as `check_correctness` asks for it."""
    status, _ = runner.untrusted_check(
        dataset,
        solution,
        problem[f"{part}_input"],
        problem["entry_point"],
        expected=expected,
        atol=problem["atol"],
        ref_time=truth[f"{part}_time"],
        fast_check=True,
        min_time_limit=limits.seconds,
        gt_time_limit_factor=limits.factor,
    )
    return str(status)


def _noted(original: Callable[..., tuple[str, Any]]) -> Callable[..., tuple[str, Any]]:
    """`untrusted_check` with a scratch folder for the sample and a note of why it failed."""

    def check(*args: Any, **kwargs: Any) -> tuple[str, Any]:
        _Here.scratch = tempfile.mkdtemp(prefix="sample-")
        _Here.reason = multiprocessing.RawValue("i", 0)
        started = time.monotonic()
        try:
            status, details = original(*args, **kwargs)
        finally:
            shutil.rmtree(_Here.scratch, ignore_errors=True)
        elapsed = time.monotonic() - started
        limits = [
            max(kwargs["min_time_limit"], kwargs["gt_time_limit_factor"] * t)
            for t in kwargs["ref_time"]
        ]
        allowed = min(SET_LIMIT, sum(limits)) + 2  # as `untrusted_check` reckons with fast_check
        kind = KINDS[_Here.reason.value] if 0 <= _Here.reason.value < len(KINDS) else ""
        by_signal = kind == "timeout"
        if status == "timeout":  # EvalPlus's word for any end without a verdict
            kind = "timeout" if elapsed >= allowed else "killed"
        elif status == "fail" and kind == "":
            kind = "wrong"
        raisable = by_signal or sum(limits) < SET_LIMIT
        _Here.checks.append(Check(status=status, kind=kind, raisable=raisable))
        return status, details

    return check


class _Told:
    """Stands for EvalPlus's shared verdict in the sample's process; sees the exception pass by."""

    def __init__(self, shared: Any):
        self._shared = shared

    @property
    def value(self) -> int:
        return int(self._shared.value)

    @value.setter
    def value(self, verdict: int) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            _Here.reason.value = KINDS.index(explain(error))
        self._shared.value = verdict


def explain(error: BaseException) -> Literal["wrong", "error", "timeout", "syntax"]:
    """Why a sample failed, from the exception that reached EvalPlus's handler."""
    if isinstance(error, TimeoutException):
        return "timeout"
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return "error"
    line, outermost = trace.tb_lineno, trace.tb_next is None
    if line == _COMPILE_LINE and (outermost or isinstance(error, SyntaxError)):
        return "syntax"
    return "wrong" if line > _CALL_LINE else "error"


def _guarded_execute(
    dataset: str,
    entry_point: str,
    code: str,
    inputs: Any,
    expected: Any,
    time_limits: Any,
    atol: float,
    fast_check: bool,
    stat: Any,
    details: Any,
    progress: Any,
) -> None:
    """`unsafe_execute` inside the ring; runs in the sample's own process.

    The ring makes no folders, so EvalPlus's temporary one was made before.
    """
    checker.create_tempdir = functools.partial(chdir, _Here.scratch)
    ring.tighten(_Here.scratch, _Here.libraries, lifeline=ring.lifeline_of())
    _execute(
        dataset, entry_point, code, inputs, expected, time_limits, atol, fast_check,
        _Told(stat), details, progress,
    )  # fmt: skip


def _recording(poly: Callable[..., float]) -> Callable[..., float]:
    """EvalPlus's polynomial for HumanEval/32, which also records the pass that 0.3.1 forgets."""

    def recording(xs: list[float], x: float) -> float:
        value = poly(xs, x)
        frame = sys._getframe(1)
        names = frame.f_locals
        if frame.f_code is _execute.__code__ and abs(value) <= names["atol"]:
            names["details"][names["i"]] = True
            names["progress"].value += 1
        return value

    return recording


def control() -> str | None:
    """Run one right and one wrong trivial program; null, or what is not as it must be.

    Without it, a sandbox in which nothing can run would make every sample fail in silence.
    """
    problem = {
        "task_id": "Control/0",
        "entry_point": "f",
        "base_input": [[1]],
        "plus_input": [[2]],
        "atol": 0,
    }
    truth = {"base": [2], "base_time": [0.001], "plus": [3], "plus_time": [0.001]}
    limits = Limits(seconds=20.0, factor=4.0)
    right = verdict("humaneval", problem, "def f(x):\n    return x + 1\n", truth, limits)
    wrong = verdict("humaneval", problem, "def f(x):\n    return x\n", truth, limits)
    if (right["base"], right["plus"], right["suspect"]) != ("pass", "pass", False):
        return f"a right program was judged {right}"
    if (wrong["base"], wrong["failure"]) != ("fail", "wrong"):
        return f"a wrong program was judged {wrong}"
    return None
