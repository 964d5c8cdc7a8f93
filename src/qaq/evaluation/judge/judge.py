"""Judge samples: whatever judge the suite names, and the conditions under which it worked.

    judge(benchmark, samples, settings, workdir) -> JudgeResult

The judge of HumanEval+ and MBPP+ gives EvalPlus 0.3.1's own verdicts (`checks`). `judge=repaired`
records the pass that 0.3.1 forgets for HumanEval/32 and uses the limits of the settings; a sample
that timed out is judged once more, alone and with twice the time, and the second verdict counts and
is marked. `judge=stock` is the same checker with EvalPlus's own limits (1 s, 4 GiB, half the cores)
and neither of the two.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qaq.evaluation import benchmarks
from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.judge.inside import EVALPLUS
from qaq.evaluation.judge.names import JUDGES
from qaq.evaluation.judge.registry import Bench, Progress
from qaq.evaluation.judge.settings import JudgeSettings
from qaq.evaluation.outcomes import FAILURES, STATUSES, JudgeResult, Outcome, Sample
from qaq.host.errors import DataError

__all__ = ["CanonicalCheck", "JudgeSettings", "canonical_check", "check_samples", "judge"]

REPAIRS = ("HumanEval/32: a passed check is recorded",)


def judge(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    settings: JudgeSettings,
    workdir: Path,
    progress: Progress | None = None,
) -> JudgeResult:
    """Verdicts on all samples, in their order.

    Args:
        benchmark: the problems; every one must have at least one sample.
        samples: programs, or raw texts to sanitise.
        workdir: keeps the journal and the judge's log; found again after a kill.
        progress: called with (samples judged, samples to judge).

    Raises:
        DataError: problems without tests, samples for unknown tasks, doubled or missing samples.
        SandboxError: no sandbox of the strength asked for.
        QaqError: the judge itself cannot work here.
    """
    started = time.monotonic()
    benchmarks.refuse_untested(benchmark)
    check_samples(benchmark, samples)
    bench = Bench(benchmark, settings, workdir, progress)
    found = JUDGES[benchmark.judge](benchmark.by_id(), samples, bench)
    outcomes = tuple(JUDGES.guard_items(benchmark.judge, found))
    _refuse_unsound(benchmark.judge, outcomes)
    if [(o.task_id, o.index) for o in outcomes] != [(s.task_id, s.index) for s in samples]:
        raise DataError(
            f"the judge {benchmark.judge} gave {len(outcomes)} outcomes for {len(samples)} samples "
            "or another order; expected one outcome a sample, in the order of the samples"
        )
    evalplus = benchmark.judge == "evalplus"
    return JudgeResult(
        outcomes=outcomes,
        judge=settings.judge if evalplus else benchmark.judge,
        sandbox=bench.sandbox,
        repairs=REPAIRS if evalplus and settings.judge == "repaired" else (),
        evalplus=EVALPLUS if evalplus else None,
        min_time_limit=settings.seconds,
        memory_gib=settings.gib,
        workers=settings.parallel,
        reused=bench.reused,
        seconds=round(time.monotonic() - started, 3),
        suspects=_tasks(o for o in outcomes if o.suspect),
        flips=_tasks(o for o in outcomes if o.flipped),
        in_part=bench.in_part,
    )


def _refuse_unsound(name: str, outcomes: Sequence[Outcome]) -> None:
    """Refuse verdicts in other words than an `Outcome` has; each would count as a failure."""
    for o in outcomes:
        if not isinstance(o, Outcome):
            raise DataError(f"the judge {name} gave {o!r}; expected an Outcome for each sample")
        statuses = [o.base_status, o.plus_status]
        known = all(status in STATUSES for status in statuses) or statuses == [None, None]
        if not known or o.failure not in (*FAILURES, None) or not isinstance(o.solution, str):
            raise DataError(
                f"the judge {name} gave {o}; expected base_status and plus_status of "
                f"{', '.join(STATUSES)} (both null where there is no verdict; equal where there is "
                f"one set of tests), failure null or one of {', '.join(FAILURES)}, and the "
                "solution as text"
            )


def check_samples(benchmark: Benchmark, samples: Sequence[Sample]) -> None:
    """Refuse samples that do not fit the benchmark, all faults in one message."""
    known = {p.task_id for p in benchmark.problems}
    counts = Counter((s.task_id, s.index) for s in samples)
    faults = {
        "unknown tasks": sorted({s.task_id for s in samples} - known),
        "tasks without a sample": sorted(known - {s.task_id for s in samples}),
        "doubled samples": sorted(f"{t} #{i}" for (t, i), n in counts.items() if n > 1),
    }
    said = [f"{what}: {_some(names)}" for what, names in faults.items() if names]
    if said:
        raise DataError(
            f"the samples do not fit {benchmark.name} ({len(known)} tasks): {'; '.join(said)}; "
            "give each chosen task its samples, numbered from 0, and no others"
        )


@dataclass(frozen=True)
class CanonicalCheck:
    """How this machine judges programs that are right; all of them must pass."""

    tasks: int
    base_passed: int
    plus_passed: int
    failing: tuple[str, ...]
    result: JudgeResult


def canonical_check(
    name: str,
    file: Path | None = None,
    settings: JudgeSettings | None = None,
    *,
    limit: int | None = None,
    workdir: Path | None = None,
) -> CanonicalCheck:
    """Judge a benchmark's own solutions: a check of the machine, its limits and its sandbox.

    With `judge=repaired` HumanEval+ gives 164 of 164 and MBPP+ 378 of 378 on a sound machine.

    Raises:
        DataError, SandboxError, QaqError: as `benchmarks.load` and `judge`.
    """
    benchmark = benchmarks.load(name, file, limit=limit)
    samples = [
        Sample(p.task_id, 0, text, text)
        for p in benchmark.problems
        for text in [(p.prompt if p.entry_point else "") + p.canonical_solution]
    ]
    with tempfile.TemporaryDirectory(prefix="qaq-canonical-") as temporary:
        where = workdir or Path(temporary)
        result = judge(benchmark, samples, settings or JudgeSettings(), where)
    return CanonicalCheck(
        tasks=len(samples),
        base_passed=sum(o.base_passed for o in result.outcomes),
        plus_passed=sum(o.plus_passed for o in result.outcomes),
        failing=_tasks(o for o in result.outcomes if not o.plus_passed),
        result=result,
    )


def _tasks(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(o.task_id for o in outcomes))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
