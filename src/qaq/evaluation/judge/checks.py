"""EvalPlus's checker on what a program returned: the verdict on one sample, and its decoy.

EvalPlus 0.3.1 compares inside the process that runs the program. Its comparison is used here as it
is (`evalplus.eval.unsafe_execute`, special oracles, tolerances and all), but in the worker: the
"program" that it is given returns what the sample's own process has sent (`runs`), and its guard,
timer and temporary folder are left out, since they are around the sample's process. So the expected
values are nowhere near the program.

The decoy asks the same comparison about the same values, with one expected value replaced by the
real one of another input; whichever of the two comes first is drawn by lot. A sample that passes
both was not compared: nothing that is known here can bring that about, and if it happens the
sample is named.

`repaired` records the pass on HumanEval/32 that 0.3.1 forgets (fixed after the release, evalplus
pull request 241).
"""

import contextlib
import pickle
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import evalplus.eval as checker
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS

from qaq.evaluation.judge.runs import SET_LIMIT, Answers, Call, Helper, Stopped, misjudged
from qaq.evaluation.judge.verdict import Check
from qaq.evaluation.judge.verdict import verdict as both

# These oracles look at the input and not, or not only, at the expected value.
DECOY_EXEMPT = {
    ("humaneval", "find_zero"),
    ("mbpp", "are_equivalent"),
    ("mbpp", "sum_div"),
    ("mbpp", "surface_Area"),
    ("mbpp", "digit_distance_nums"),
}
# Values that tasks really return, for tasks all of whose inputs have one answer.
ELSEWHERE: tuple[Any, ...] = (True, False, 0, 1, -1, 2.5, "", "a", [], [1], (1, 2), None, {"a": 1})
LOT = random.SystemRandom()

_execute = checker.unsafe_execute


@dataclass(frozen=True)
class Limits:
    """Seconds per input: the larger of `seconds` and `factor` times the reference's; and bytes."""

    seconds: float
    factor: float
    memory: int

    def of(self, times: Sequence[float]) -> list[float]:
        """The limits of a set of inputs, from the reference's times."""
        return [max(self.seconds, self.factor * t) for t in times]


@dataclass(frozen=True)
class Task:
    """A problem as its judge knows it: EvalPlus's record, what is expected, its packed inputs."""

    dataset: str
    problem: dict[str, Any]
    truth: dict[str, Any]
    packed: dict[str, bytes] = field(default_factory=dict)

    def inputs(self, part: str) -> bytes:
        """The inputs of a set as the sample's process gets them."""
        if part not in self.packed:
            self.packed[part] = pickle.dumps(self.problem[f"{part}_input"], protocol=5)
        return self.packed[part]


def install(*, repaired: bool) -> None:
    """Leave out of EvalPlus's comparison what stands around a program, and repair its oracle."""
    checker.create_tempdir = checker.swallow_io = contextlib.nullcontext
    checker.time_limit = lambda seconds: contextlib.nullcontext()
    checker.reliability_guard = lambda maximum_memory_bytes: None
    if repaired:
        checker._poly = _recording(checker._poly)


def verdict(
    helper: Helper, task: Task, solution: str, limits: Limits, *, spare: bool = False
) -> dict[str, Any]:
    """EvalPlus's verdict on one solution and what is known about it, as JSON values.

    `spare` leaves out the additional tests where the original ones fail; `base` is null then.

    Raises:
        HelperError: the solution could not be run.
    """

    def suspect(base: Check, plus: Check) -> bool:
        return base.suspect or (plus.suspect and not task.truth["base"])

    return both(lambda part: check_set(helper, task, solution, part, limits), suspect, spare=spare)


def check_set(helper: Helper, task: Task, solution: str, part: str, limits: Limits) -> Check:
    """Run a solution on one set of inputs and compare what it returned, truly and falsely."""
    expected = task.truth[part]
    seconds = limits.of(task.truth[f"{part}_time"])
    call = Call(
        solution, task.problem["entry_point"], task.inputs(part), seconds, limits.memory
    )  # fmt: skip
    with contextlib.closing(helper.run(call)) as answers, _alarm(call.seconds + 1):
        try:
            answers.load()
        except Stopped as end:
            return _stopped(end, seconds)
        versions = [expected]
        false = falsified(task, part)
        if false is not None:
            versions.append(false)
        LOT.shuffle(versions)
        answers.keep = len(versions) > 1
        found = {v is expected: compare(task, part, answers, v) for v in versions}
    true = found[True]
    if true.passed:
        return Check("pass", "", suspect=false is not None and found[False].passed)
    return _stopped(true.stopped, seconds) if true.stopped else Check("fail", "wrong")


def _stopped(end: Stopped, seconds: Sequence[float]) -> Check:
    """EvalPlus's word is "timeout" where the process ended, or was ended, without saying why."""
    if not end.spoken:
        raisable = end.kind == "timeout" and sum(seconds) < SET_LIMIT
        return Check("timeout", end.kind, raisable)
    return Check("fail", end.kind, raisable=end.kind == "timeout")


@dataclass(frozen=True)
class Compared:
    """Whether a comparison passed, and what kept it from an answer, if anything did."""

    passed: bool
    stopped: Stopped | None = None


def compare(
    task: Task, part: str, answers: "Answers | Sequence[Any]", expected: Sequence[Any]
) -> Compared:
    """EvalPlus's comparison of these answers, which ends at the first that fails."""
    return _compare(task, task.problem[f"{part}_input"], answers, expected)


def _compare(
    task: Task, inputs: Sequence[Any], answers: "Answers | Sequence[Any]", expected: Sequence[Any]
) -> Compared:
    places = iter(range(len(inputs)))
    name = task.problem["entry_point"]
    stops: list[Stopped] = []

    def replay(*_: Any) -> Any:
        try:
            return answers[next(places)]
        except Stopped as stop:
            stops.append(stop)
            raise

    _Replay.function = replay
    stat, progress = SimpleNamespace(value=checker._UNKNOWN), SimpleNamespace(value=0)
    details = [False] * len(inputs)
    limits = [0.0] * len(inputs)
    _execute(
        task.dataset, name, _Replay.CODE.format(name=name), inputs, expected, limits,
        task.problem["atol"], True, stat, details, progress,
    )  # fmt: skip
    # the end of EvalPlus's `untrusted_check`
    shown = details[: progress.value]
    passed = stat.value == checker._SUCCESS and len(shown) == len(inputs) and all(shown)
    return Compared(passed, stops[0] if stops else None)


class _Replay:
    """How EvalPlus's `exec` of a program's text gets at the answers."""

    CODE = "from qaq.evaluation.judge.checks import _Replay\nglobals()[{name!r}] = _Replay.function"
    function: Callable[..., Any] = staticmethod(lambda: None)


def falsified(task: Task, part: str) -> list[Any] | None:
    """The expected values with one, drawn by lot, replaced by another input's real value.

    Only a value that the comparison itself tells from the true one is taken; null where there is
    none, or where the task's oracle does not look at expected values.
    """
    expected = task.truth[part]
    exempt = (task.dataset, task.problem["entry_point"]) in DECOY_EXEMPT
    if exempt or not expected or (part == "plus" and task.truth["base"]):
        return None
    place = LOT.randrange(len(expected))
    inputs = [task.problem[f"{part}_input"][place]]
    others = [v for p in ("base", "plus") for v in task.truth[p][:20]]
    LOT.shuffle(others)
    for value in (*others, *ELSEWHERE):
        answer = [_returned(task, expected[place])]
        if not _compare(task, inputs, answer, [value]).passed:
            return [*expected[:place], value, *expected[place + 1 :]]
    return None


def _returned(task: Task, expected: Any) -> Any:
    """A value that a right program may return; some tasks expect only that there is one."""
    only_none = task.problem["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS
    if task.dataset == "mbpp" and only_none and expected in (True, False):
        return object() if expected else None
    return expected


@contextlib.contextmanager
def _alarm(seconds: float) -> Any:
    """End this process if comparing takes longer: values can be built to be slow to compare.

    The kernel does it, since Python's own handlers wait for the end of a comparison in C.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


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


def control(helper: Helper) -> str | None:
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
    task = Task("humaneval", problem, truth)
    limits = Limits(seconds=20.0, factor=4.0, memory=4 << 30)
    right = verdict(helper, task, "def f(x):\n    return x + 1\n", limits)
    wrong = verdict(helper, task, "def f(x):\n    return x\n", limits)
    return misjudged(right, wrong)
