"""The phases of a judgement on the host's side: sanitise, first verdicts, second verdicts.

Each phase works on what the journal lacks. A judge that dies or hangs is replaced; what it was
working on is tried once more and then counts as lost, and everything else is kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaq.evaluation import answers
from qaq.evaluation.judge import process as judge_process
from qaq.evaluation.judge import truth as judge_truth
from qaq.evaluation.judge.inside import HANG_SECONDS, truth_file
from qaq.evaluation.judge.journal import Journal, sha
from qaq.evaluation.judge.registry import Bench, Progress
from qaq.evaluation.outcomes import FAILURES, STATUSES, Failure, Sample
from qaq.evaluation.sandbox import Level
from qaq.host.errors import QaqError

RERUN_FACTOR = 2.0
GROUND_TRUTH_FACTOR = 4.0  # EvalPlus's own
MAX_RAW_CHARS = 60_000  # the sanitiser's time grows with the square of the lines
MAX_RAW_LINES = 1500
ATTEMPTS = 2  # for a judge that ends without having begun on anything
SILENCE = HANG_SECONDS + 60  # seconds without a word after which a judge counts as hung


@dataclass(frozen=True)
class Program:
    """What the sanitiser made of a text; `failure` says why there is no program."""

    text: str | None
    failure: Failure | None = None


class Phases:
    """The steps of one judgement; each looks into the journal first and adds to it."""

    def __init__(self, bench: Bench, level: Level, journal: Journal, mode: str):
        self._benchmark = bench.benchmark
        self._settings = bench.settings
        self._progress = bench.progress
        self._level = level
        self._journal = journal
        self._workdir = bench.workdir
        self._mode = mode
        self.in_part = 0  # raw texts of which only the beginning is searched for a program

    def found(self, phase: str, case: str) -> dict[str, Any]:
        """The finding of a phase on a case; it must be there."""
        found = self._journal.get(phase, case)
        if found is None:
            raise QaqError(f"the judge gave no verdict on one program (phase {phase})")
        return found

    def programs(self, samples: Sequence[Sample]) -> list[Program]:
        """The program of each sample, or why there is none.

        A function is taken out by EvalPlus's sanitiser, which keeps no statement beside it; a whole
        program is the longest code block, or the whole text where there is none.
        """
        if self._mode == "stdio":
            return [
                Program(program_in(s.raw) if s.solution is None else s.solution) for s in samples
            ]
        self.in_part = sum(s.solution is None and _capped(s.raw) != s.raw for s in samples)
        entry = {p.task_id: p.entry_point for p in self._benchmark.problems}
        keys = [sha(entry[s.task_id], s.raw) for s in samples]
        items = {
            key: {"raw": _capped(s.raw), "entry_point": entry[s.task_id]}
            for key, s in zip(keys, samples, strict=True)
            if s.solution is None and self._journal.get("sanitize", key) is None
        }
        if items:
            order = {"mode": "sanitize", "workers": self._settings.parallel}
            self._rounds("sanitize", items, order)
        return [
            Program(s.solution)
            if s.solution is not None
            else Program(**self.found("sanitize", key))
            for key, s in zip(keys, samples, strict=True)
        ]

    def check(self, phase: str, cases: dict[str, tuple[str, str]]) -> int:
        """Find the verdicts that are missing; returns how many were there already."""
        items = {
            case: {"task_id": task_id, "solution": program}
            for case, (task_id, program) in cases.items()
            if self._journal.get(phase, case) is None
        }
        if not items:
            return len(cases)
        settings, again = self._settings, phase == "rerun"
        times = RERUN_FACTOR if again else 1.0
        order = {
            "spare": again,
            "seconds": settings.seconds * times,
            "memory": int(settings.gib * 2**30),
            "workers": 1 if again else settings.parallel,
        }
        progress = None if again else self._progress
        if self._mode == "stdio":
            about: dict[str, Any] = {
                "mode": "stdio",
                "file": str(self._benchmark.path),
                "form": self._benchmark.format,
            }
            self._rounds(
                phase, items, order | about, read=(self._benchmark.path,), progress=progress
            )  # fmt: skip
            return len(cases) - len(items)
        truth = judge_truth.ensure(self._benchmark, self._level, self._workdir)
        size = {t: truth_file(truth, t).stat().st_size for t in self._benchmark.by_id()}
        heaviest_first = sorted(items.items(), key=lambda item: -size[item[1]["task_id"]])
        about = {
            "mode": "judge",
            "dataset": self._benchmark.format,
            "truth": str(truth),
            "repaired": settings.judge == "repaired",
            "factor": GROUND_TRUTH_FACTOR * times,
        }
        self._rounds(
            phase,
            dict(heaviest_first),
            order | about,
            read=(self._benchmark.path, truth),
            environment=judge_truth.override(self._benchmark),
            progress=progress,
        )
        return len(cases) - len(items)

    def _rounds(
        self,
        phase: str,
        items: dict[str, dict[str, str]],
        order: dict[str, Any],
        *,
        read: tuple[Path, ...] = (),
        environment: dict[str, str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Run judges until each item has a finding; a judge that dies or hangs is replaced.

        What it was working on is tried again one by one, each with a judge of its own, before it
        counts as lost: all but one of them only ran beside the one that ended it.
        """
        suspects: list[str] = []
        barren = done = 0
        while waiting := [k for k in items if self._journal.get(phase, k) is None]:
            suspects = [k for k in suspects if k in waiting]
            alone = suspects[:1]
            running: set[str] = set()
            before = done

            def on_event(
                event: dict[str, Any],
                keys: list[str] = alone or waiting,
                running: set[str] = running,
            ) -> None:
                nonlocal done
                key = keys[event["id"]]
                if event["event"] == "start":
                    running.add(key)
                    return
                running.discard(key)
                self._journal.put(phase, key, _checked(phase, event))
                done += 1
                if progress is not None:
                    progress(done, len(items))

            end = judge_process.run(
                self._level,
                order
                | {"items": [items[k] for k in alone or waiting]}
                | ({"workers": 1} if alone else {}),
                self._workdir,
                on_event,
                read=read,
                extra_environment=environment,
                silence=SILENCE,
            )
            if alone and running:
                self._journal.put(phase, alone[0], _lost(phase, end.how))
                done += 1
            suspects += sorted(running - set(alone))
            barren = 0 if done > before or running else barren + 1
            if barren >= ATTEMPTS:
                raise QaqError(f"the judge {end.how} twice without a verdict: {end.detail}")


def _checked(phase: str, event: dict[str, Any]) -> dict[str, Any]:
    """An event's finding, if it has the form that it must have."""
    if event["event"] == "lost":
        return _lost(phase, event["why"])
    if phase == "sanitize":
        refused = None if event["solution"] is not None else "syntax"
        return {"text": event["solution"], "failure": refused}
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


def _lost(phase: str, why: str) -> dict[str, Any]:
    """The finding on an item whose process ended without a word, or not at all, each time."""
    failure = "timeout" if why == "hung" else "killed"
    if phase == "sanitize":
        return {"text": None, "failure": failure}
    return {
        "base": None,
        "plus": None,
        "failure": failure,
        "raisable": False,
        "suspect": False,
        "seconds": 0.0,
    }


def program_in(text: str) -> str:
    """The longest fenced code block of a text, else the whole text."""
    return max((block.code for block in answers.blocks(text)), key=len, default=text)


def _capped(raw: str) -> str:
    return "\n".join(raw[:MAX_RAW_CHARS].split("\n")[:MAX_RAW_LINES])
