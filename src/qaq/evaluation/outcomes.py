"""What goes into the judge and what comes out: samples, outcomes, and the result of a judgement.

Plain data, no behaviour that runs anything; generation, judging and reporting meet here.
"""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "timeout"]
Failure = Literal["wrong", "error", "timeout", "syntax", "killed"]

STATUSES: tuple[Status, ...] = ("pass", "fail", "timeout")
FAILURES: tuple[Failure, ...] = ("wrong", "error", "timeout", "syntax", "killed")


@dataclass(frozen=True)
class Sample:
    """One answer of a model to one task.

    `raw` is the whole text (prompt + completion, or the chat answer), always. `solution` is
    the program to judge where it is already known; null means that the judge sanitises `raw`.
    `index` numbers the samples of one task from 0.
    """

    task_id: str
    index: int
    raw: str
    solution: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The verdict on one sample.

    `base_status` and `plus_status` are EvalPlus's own words for the two sets of tests; null means
    that there is no verdict, because the sanitiser refused the text or the judge died on it twice.
    As in EvalPlus's printed numbers, `plus_passed` needs both sets. `failure` says why a sample
    without `plus_passed` failed: `wrong` answer, `error` (an exception), `timeout`, `syntax`, or
    `killed` (the process ended without a verdict). `suspect` means that the program also passed
    against false expected values. `flipped` means that it timed out at the stated limits and was
    judged again, alone, with `RERUN_FACTOR` times the time, and the verdict here is the second one.
    """

    task_id: str
    index: int
    solution: str
    base_status: Status | None
    plus_status: Status | None
    failure: Failure | None
    suspect: bool = False
    flipped: bool = False
    seconds: float = 0.0

    @property
    def base_passed(self) -> bool:
        """Passed the benchmark's original tests."""
        return self.base_status == "pass"

    @property
    def plus_passed(self) -> bool:
        """Passed the original tests and EvalPlus's additional ones."""
        return self.base_status == "pass" and self.plus_status == "pass"


@dataclass(frozen=True)
class JudgeResult:
    """All outcomes in the order of the samples, and under which conditions they were found.

    `sandbox` describes the level that was really used; `repairs` names the run-time corrections
    of EvalPlus that were on (empty for `judge=stock`); `evalplus` is null for other judges;
    `suspects` and `flips` list task ids; `in_part` counts raw texts so long that only their
    beginning was searched for a program.
    """

    outcomes: tuple[Outcome, ...]
    judge: str
    sandbox: str
    repairs: tuple[str, ...]
    evalplus: str | None
    min_time_limit: float
    memory_gib: float
    workers: int
    reused: int
    seconds: float
    suspects: tuple[str, ...]
    flips: tuple[str, ...]
    in_part: int = 0

    @property
    def judged_by(self) -> str:
        """The judge, and the version of the library whose verdicts it gives."""
        return f"EvalPlus {self.evalplus}, {self.judge}" if self.evalplus else self.judge
