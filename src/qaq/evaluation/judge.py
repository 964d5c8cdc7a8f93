"""Judge samples: sanitise, check in the sandbox, judge timeouts again, verify, put together.

    judge(benchmark, samples, settings, workdir) -> JudgeResult

The verdicts are EvalPlus 0.3.1's own (`judge_checks`). `judge=repaired` records the pass that
0.3.1 forgets for HumanEval/32 and uses the limits of the settings; a sample that timed out is
judged once more, alone and with twice the time, and the second verdict counts and is marked.
`judge=stock` is EvalPlus's whole `evaluate` with its own limits (1 s, 4 GiB, half the cores).

Everything found is kept in `workdir/journal.jsonl` at once, so a killed judgement goes on where it
was. Equal programs for one task are judged once.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qaq.errors import DataError, QaqError
from qaq.evaluation import judge_process, judge_truth, sandbox
from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.config import EvalConfig
from qaq.evaluation.judge_inside import EVALPLUS, HANG_SECONDS, SANITIZE_SECONDS, truth_file
from qaq.evaluation.judge_journal import Journal, sha
from qaq.evaluation.outcomes import FAILURES, STATUSES, JudgeResult, Outcome, Sample
from qaq.evaluation.sandbox import Level, Setting

VERSION = 1
RERUN_FACTOR = 2.0
GROUND_TRUTH_FACTOR = 4.0  # EvalPlus's own
STOCK_SECONDS, STOCK_GIB = 1.0, 4.0  # EvalPlus's own
MAX_RAW_CHARS = 60_000  # the sanitiser's time grows with the square of the lines
MAX_RAW_LINES = 1500
REPAIRS = ("HumanEval/32: a passed check is recorded",)
ATTEMPTS = 2  # for a sample on which the judge dies

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class JudgeSettings:
    """How to judge; see `EvalConfig` for the meaning of the fields."""

    judge: Literal["repaired", "stock"] = "repaired"
    min_time_limit: float = 4.0
    memory_gib: float = 8.0
    sandbox: Setting = "auto"
    workers: int | None = None

    @classmethod
    def of(cls, config: EvalConfig, workers: int | None = None) -> "JudgeSettings":
        """The settings in a stage's config; `workers` is null for one per core."""
        return cls(config.judge, config.min_time_limit, config.memory_gib, config.sandbox, workers)

    @property
    def seconds(self) -> float:
        """The least time per input, in seconds."""
        return STOCK_SECONDS if self.judge == "stock" else self.min_time_limit

    @property
    def gib(self) -> float:
        """Address space of one sample, in GiB."""
        return STOCK_GIB if self.judge == "stock" else self.memory_gib

    @property
    def parallel(self) -> int:
        """Samples judged at a time."""
        cores = len(os.sched_getaffinity(0))
        if self.judge == "stock":
            return max(1, cores // 2)
        return self.workers or cores


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
        settings: limits, sandbox and which judge.
        workdir: keeps the journal and the judge's log; found again after a kill.
        progress: called with (samples judged, samples to judge).

    Raises:
        DataError: samples for unknown tasks, doubled or missing samples.
        SandboxError: no sandbox of the strength asked for.
        QaqError: the judge itself cannot work here.
    """
    started = time.monotonic()
    check_samples(benchmark, samples)
    level = sandbox.choose(settings.sandbox)
    journal = Journal(workdir / "journal.jsonl", _fingerprint(benchmark, settings))
    try:
        run = _Run(benchmark, settings, level, journal, workdir)
        programs = run.sanitise(samples)
        cases = {
            _case(sample, program): (sample.task_id, program)
            for sample, program in zip(samples, programs, strict=True)
            if program is not None
        }
        reused = run.check("first", cases, progress)
        if settings.judge == "repaired":
            slow = [c for c in cases if run.found("first", c).get("raisable")]
            run.check("rerun", {c: cases[c] for c in slow}, None)
        outcomes = tuple(
            run.outcome(sample, program) for sample, program in zip(samples, programs, strict=True)
        )
    finally:
        journal.close()
    return JudgeResult(
        outcomes=outcomes,
        judge=settings.judge,
        sandbox=level.describe(),
        repairs=REPAIRS if settings.judge == "repaired" else (),
        evalplus=EVALPLUS,
        min_time_limit=settings.seconds,
        memory_gib=settings.gib,
        workers=settings.parallel,
        reused=reused,
        seconds=round(time.monotonic() - started, 3),
        suspects=_tasks(o for o in outcomes if o.suspect),
        flips=_tasks(o for o in outcomes if o.flipped),
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
            f"the samples do not fit {benchmark.suite} ({len(known)} tasks): {'; '.join(said)}; "
            "give each chosen task its samples, numbered from 0, and no others"
        )


class _Run:
    """One judgement: what stays the same through its phases."""

    def __init__(
        self,
        benchmark: Benchmark,
        settings: JudgeSettings,
        level: Level,
        journal: Journal,
        workdir: Path,
    ):
        self._benchmark = benchmark
        self._settings = settings
        self._level = level
        self._journal = journal
        self._workdir = workdir

    def found(self, phase: str, case: str) -> dict[str, Any]:
        """The finding of a phase on a case; it must be there."""
        found = self._journal.get(phase, case)
        if found is None:
            raise QaqError(f"the judge gave no verdict on one program (phase {phase})")
        return found

    def sanitise(self, samples: Sequence[Sample]) -> list[str | None]:
        """The program of each sample; null where EvalPlus's sanitiser could not find one."""
        entry = {p.task_id: p.entry_point for p in self._benchmark.problems}
        keys = [sha(entry[s.task_id], s.raw) for s in samples]
        items = {
            key: {"raw": _capped(s.raw), "entry_point": entry[s.task_id]}
            for key, s in zip(keys, samples, strict=True)
            if s.solution is None and self._journal.get("sanitize", key) is None
        }
        if items:
            order = {"mode": "sanitize", "workers": self._settings.parallel}
            self._rounds("sanitize", items, order, silence=SANITIZE_SECONDS + 60)
        return [
            s.solution if s.solution is not None else self.found("sanitize", key).get("solution")
            for key, s in zip(keys, samples, strict=True)
        ]

    def check(
        self, phase: str, cases: dict[str, tuple[str, str]], progress: Progress | None
    ) -> int:
        """Find the verdicts that are missing; returns how many were there already."""
        items = {
            case: {"task_id": task_id, "solution": program}
            for case, (task_id, program) in cases.items()
            if self._journal.get(phase, case) is None
        }
        if not items:
            return len(cases)
        if self._settings.judge == "stock":
            self._check_stock(phase, cases, items, progress)
        else:
            self._check_repaired(phase, items, progress)
        return len(cases) - len(items)

    def _check_repaired(
        self, phase: str, items: dict[str, dict[str, str]], progress: Progress | None
    ) -> None:
        """Each sample by itself through EvalPlus's checker; the heaviest tasks first."""
        settings = self._settings
        truth = judge_truth.ensure(self._benchmark, self._level, self._workdir)
        size = {t: truth_file(truth, t).stat().st_size for t in self._benchmark.by_id()}
        items = dict(sorted(items.items(), key=lambda item: -size[item[1]["task_id"]]))
        times = RERUN_FACTOR if phase == "rerun" else 1.0
        order = {
            "mode": "judge",
            "dataset": self._benchmark.format,
            "truth": str(truth),
            "repaired": True,
            "spare": phase == "rerun",
            "seconds": settings.seconds * times,
            "factor": GROUND_TRUTH_FACTOR * times,
            "workers": 1 if phase == "rerun" else settings.parallel,
            "hang": HANG_SECONDS,
        }
        memory = {"EVALPLUS_MAX_MEMORY_BYTES": str(int(settings.gib * 2**30))}
        self._rounds(
            phase,
            items,
            order,
            silence=HANG_SECONDS + 60,
            read=(self._benchmark.path, truth),
            environment=judge_truth.override(self._benchmark) | memory,
            progress=progress,
        )

    def _check_stock(
        self,
        phase: str,
        cases: dict[str, tuple[str, str]],
        items: dict[str, dict[str, str]],
        progress: Progress | None,
    ) -> None:
        """All samples through EvalPlus's whole `evaluate`; it is told the verdicts known so far."""
        file, cache, md5 = judge_truth.ensure_stock(self._benchmark, self._level, self._workdir)

        def known() -> list[dict[str, Any]]:
            return [
                {"task_id": t, "solution": p, "base": f["base"], "plus": f["plus"]}
                for c, (t, p) in cases.items()
                if (f := self._journal.get(phase, c)) is not None
            ]

        self._rounds(
            phase,
            items,
            {"mode": "stock", "dataset": self._benchmark.format, "md5": md5,
             "workers": self._settings.parallel},
            silence=HANG_SECONDS + 60,
            read=(file, cache),
            environment=judge_truth.stock_environment(self._benchmark, file, cache),
            progress=progress,
            known=known,
        )  # fmt: skip

    def outcome(self, sample: Sample, program: str | None) -> Outcome:
        """Put one sample's findings together."""
        if program is None:
            return Outcome(
                task_id=sample.task_id,
                index=sample.index,
                solution="",
                base_status=None,
                plus_status=None,
                failure="syntax",
            )
        case = _case(sample, program)
        first = self.found("first", case)
        second = self._journal.get("rerun", case) or {}
        flipped = any(second.get(k) == "pass" and first[k] != "pass" for k in ("base", "plus"))
        verdict = second if flipped else first
        return Outcome(
            task_id=sample.task_id,
            index=sample.index,
            solution=program,
            base_status=verdict["base"],
            plus_status=verdict["plus"],
            failure=verdict["failure"],
            suspect=bool(verdict["suspect"]),
            flipped=flipped,
            seconds=verdict["seconds"],
        )

    def _rounds(
        self,
        phase: str,
        items: dict[str, dict[str, str]],
        order: dict[str, Any],
        *,
        silence: float,
        read: tuple[Path, ...] = (),
        environment: dict[str, str] | None = None,
        progress: Progress | None = None,
        known: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """Run judges until each item has a finding; a judge that dies or hangs is replaced.

        The items it was working on are tried once more; one on which two judges ended is lost.
        """
        tries: Counter[str] = Counter()
        barren = 0
        while waiting := [k for k in items if self._journal.get(phase, k) is None]:
            running: set[str] = set()
            before = len(waiting)

            def on_event(
                event: dict[str, Any], keys: list[str] = waiting, running: set[str] = running
            ) -> None:
                key = keys[event["id"]]
                if event["event"] == "start":
                    running.add(key)
                    return
                running.discard(key)
                self._journal.put(phase, key, _checked(phase, event))
                if progress is not None:
                    progress(
                        sum(self._journal.get(phase, k) is not None for k in items), len(items)
                    )

            end = judge_process.run(
                self._level,
                order | {"items": [items[k] for k in waiting], "known": known()},
                self._workdir,
                on_event,
                read=read,
                extra_environment=environment,
                silence=silence,
            )
            tries.update(running)
            for key in running:
                if tries[key] >= ATTEMPTS:
                    self._journal.put(phase, key, _lost(phase))
            left = sum(self._journal.get(phase, k) is None for k in items)
            barren = 0 if left < before else barren + 1
            if barren >= ATTEMPTS:
                raise QaqError(f"the judge {end.how} twice without a verdict: {end.detail}")


def _checked(phase: str, event: dict[str, Any]) -> dict[str, Any]:
    """An event's finding, if it has the form that it must have."""
    if event["event"] == "lost":
        return _lost(phase)
    if phase == "sanitize":
        return {"solution": event["solution"]}
    found = {k: event.get(k) for k in ("base", "plus", "failure", "raisable", "suspect", "seconds")}
    spared = phase == "rerun" and found["base"] is None
    if not spared and (
        found["base"] not in STATUSES
        or found["plus"] not in STATUSES
        or (found["failure"] is None) != (found["base"] == found["plus"] == "pass")
        or found["failure"] not in (None, *FAILURES)
    ):
        raise QaqError(f"the judge answered what no judge answers: {json.dumps(event)}")
    return found


def _lost(phase: str) -> dict[str, Any]:
    """The finding on an item whose process ended without a word, twice."""
    if phase == "sanitize":
        return {"solution": None}
    return {
        "base": None,
        "plus": None,
        "failure": "killed",
        "raisable": False,
        "suspect": False,
        "seconds": 0.0,
    }


def _case(sample: Sample, program: str) -> str:
    return sha(sample.task_id, program)


def _capped(raw: str) -> str:
    return "\n".join(raw[:MAX_RAW_CHARS].split("\n")[:MAX_RAW_LINES])


def _fingerprint(benchmark: Benchmark, settings: JudgeSettings) -> str:
    """What a verdict depends on besides the program."""
    return sha(
        str(VERSION), benchmark.md5, benchmark.format, settings.judge, str(settings.seconds),
        str(settings.gib), EVALPLUS, f"{sys.version_info.major}.{sys.version_info.minor}",
    )[:16]  # fmt: skip


def _tasks(outcomes: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(o.task_id for o in outcomes))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
