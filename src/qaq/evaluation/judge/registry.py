"""Judges by name: `judge(problems, samples, bench) -> outcomes`, one outcome a sample, in order.

    from qaq.evaluation.judge.registry import judge

    @judge("exact")
    def exact(problems, samples, bench):
        return [Outcome(s.task_id, s.index, s.raw, …) for s in samples]

`raw` is a sample's whole text; `solution` is the program in it where that is known already.
A file with such a function in a folder of `QAQ_PATH` or `--config-dir`, or an installed package
with the entry point `qaq.plugins`, makes the judge known; a suite names it (`judge: exact`). Our
two run programs inside the sandbox (`qaq.evaluation.judge.sandboxed`). A judge of one's own runs in
the caller's process: it must not run what a model wrote.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.judge.names import JUDGES
from qaq.evaluation.judge.settings import JudgeSettings
from qaq.evaluation.outcomes import Outcome, Sample
from qaq.evaluation.problems import Problem
from qaq.host.plugins import guarded, owner

Progress = Callable[[int, int], None]


@dataclass
class Bench:
    """Where and how one judgement happens.

    `sandbox`, `reused` and `in_part` are the judge's to fill in: in what the programs ran, how many
    verdicts an earlier run of the same judgement had left in `workdir`, and of how many raw texts
    only the beginning was searched for a program.
    """

    benchmark: Benchmark
    settings: JudgeSettings
    workdir: Path
    progress: Progress | None = None
    sandbox: str = "none (the judge runs no program)"
    reused: int = 0
    in_part: int = 0


Judge = Callable[[Mapping[str, Problem], Sequence[Sample], Bench], Sequence[Outcome]]


def judge(name: str) -> Callable[[Judge], Judge]:
    """Register a function as the judge of that name.

    Raises:
        PluginError: there is a judge of that name.
    """

    def register(function: Judge) -> Judge:
        module = owner(function.__module__)
        JUDGES.add(name, guarded(function, module), module)
        return function

    return register
