"""The two judges that run programs in the sandbox: EvalPlus's, and standard input and output.

Everything found is kept in `workdir/journal.jsonl` at once, so a killed judgement goes on where it
was. Equal programs for one task are judged once.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from qaq.evaluation import sandbox
from qaq.evaluation.judge.inside import EVALPLUS
from qaq.evaluation.judge.journal import Journal, sha
from qaq.evaluation.judge.phases import Phases, Program
from qaq.evaluation.judge.registry import Bench, judge
from qaq.evaluation.outcomes import Outcome, Sample
from qaq.evaluation.problems import Problem

VERSION = 3  # raised when a verdict's meaning changes


@judge("evalplus")
def evalplus(
    problems: Mapping[str, Problem], samples: Sequence[Sample], bench: Bench
) -> Sequence[Outcome]:
    """Functions, by EvalPlus 0.3.1's comparison of what they return (`checks`)."""
    return _in_the_sandbox("judge", samples, bench)


@judge("stdio")
def stdio(
    problems: Mapping[str, Problem], samples: Sequence[Sample], bench: Bench
) -> Sequence[Outcome]:
    """Whole programs, by what they write for what they read, as LiveCodeBench does (`stdio`)."""
    return _in_the_sandbox("stdio", samples, bench)


def _in_the_sandbox(mode: str, samples: Sequence[Sample], bench: Bench) -> Sequence[Outcome]:
    bench.settings.refuse_limits()
    level = sandbox.choose(bench.settings.sandbox)
    bench.sandbox = level.describe()
    journal = Journal(bench.workdir / "journal.jsonl", _fingerprint(bench))
    try:
        phases = Phases(bench, level, journal, mode)
        programs = phases.programs(samples)
        bench.in_part = phases.in_part
        pairs = list(zip(samples, programs, strict=True))
        cases = {
            sha(sample.task_id, program.text): (sample.task_id, program.text)
            for sample, program in pairs
            if program.text is not None
        }
        bench.reused = phases.check("first", cases)
        if bench.settings.judge == "repaired":
            slow = {c: v for c, v in cases.items() if phases.found("first", c)["raisable"]}
            phases.check("rerun", slow)
        return tuple(_outcome(sample, program, journal) for sample, program in pairs)
    finally:
        journal.close()


def _outcome(sample: Sample, program: Program, journal: Journal) -> Outcome:
    """Put one sample's findings together; a second verdict counts where it is better."""
    first: dict[str, Any] = {"base": None, "plus": None, "failure": program.failure}
    second: dict[str, Any] = {}
    if program.text is not None:
        case = sha(sample.task_id, program.text)
        first = journal.get("first", case) or first
        second = journal.get("rerun", case) or {}
    flipped = any(second.get(k) == "pass" and first[k] != "pass" for k in ("base", "plus"))
    verdict = second if flipped else first
    return Outcome(
        task_id=sample.task_id,
        index=sample.index,
        solution=program.text or "",
        base_status=verdict["base"],
        plus_status=verdict["plus"],
        failure=verdict["failure"],
        suspect=verdict.get("suspect", False),
        flipped=flipped,
        seconds=verdict.get("seconds", 0.0),
    )


def _fingerprint(bench: Bench) -> str:
    """What a verdict depends on besides the program."""
    benchmark, settings = bench.benchmark, bench.settings
    return sha(
        str(VERSION), benchmark.md5, benchmark.format, settings.judge, str(settings.seconds),
        str(settings.gib), EVALPLUS, f"{sys.version_info.major}.{sys.version_info.minor}",
        benchmark.judge,
    )[:16]  # fmt: skip
