"""Problem by problem: the tasks that some arms solve and others do not, with their programs.

`problems.html` beside the report. A task is on it where the arms' shares of runs that passed
differ; between two arms those flipped where theirs do, as "ahead / behind" of the tests count.
Every such task is in the table; prompts and programs are shown up to `MOST` bytes, the widest
differences first, and where that leaves some out the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import escape
from pydantic import TypeAdapter

from qaq.evaluation import benchmarks
from qaq.evaluation.config import SUITES, Suite
from qaq.host.errors import QaqError
from qaq.page.page import fill
from qaq.reporting.collect import Collected
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title
from qaq.reporting.verdict import TESTS
from qaq.store.tables import read_jsonl

MOST = 4_500_000  # bytes of the whole page
LONGEST = 6_000  # characters of a prompt or program; what is cut says so
FAILED = {
    "wrong": "wrong answer",
    "error": "exception",
    "timeout": "timeout",
    "syntax": "syntax error",
    "killed": "killed",
}


@dataclass
class Program:
    """A program and the runs that wrote it, as (arm, run): the same text is shown once."""

    text: str
    verdict: str
    passed: bool
    runs: list[tuple[str, str]] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """Whose it is."""
        return list(dict.fromkeys(arm for arm, _ in self.runs))


@dataclass
class Task:
    """A task on which arms differ: how many of each arm's runs passed, and what they wrote."""

    number: int
    suite: str
    task_id: str
    passes: dict[str, tuple[int, int]]  # by arm: passed, all
    failures: dict[str, str]  # by arm: the commonest failure
    prompt: str | None = None
    programs: list[Program] = field(default_factory=list)

    def share(self, arm: str) -> float | None:
        """The share of the arm's runs that passed; None where it was not judged on the task."""
        passed, runs = self.passes.get(arm, (0, 0))
        return passed / runs if runs else None

    @property
    def spread(self) -> float:
        """How far the arms lie apart: 1 where all runs of one passed and none of another."""
        shares = [share for arm in self.passes if (share := self.share(arm)) is not None]
        return max(shares) - min(shares)


def render_problems(data: Collected, results: Results, inputs: Mapping[str, Path]) -> str | None:
    """The page; None where nothing was judged or no two arms differ on a task.

    Args:
        results: for the arms in the report's order and the declared comparisons.
    """
    outcome = "base" if data.spec.primary.outcome == "base" else "plus"
    arms = [a.name for a in results.arms if a.suites]
    tasks = flipped(data.outcomes, arms, outcome)
    if not tasks:
        return None
    read_programs(tasks, data.outcomes, inputs, outcome)
    read_prompts(tasks, data, inputs)
    tasks.sort(key=lambda t: -t.spread)
    pairs = [(c.arm, c.baseline) for c in results.comparisons if {c.arm, c.baseline} <= {*arms}]
    flips = {(a, b): sum(t.share(a) != t.share(b) for t in tasks) for a, b in pairs}
    first = max(flips, key=flips.__getitem__, default=(arms[-1], arms[0]))
    judged = data.outcomes.drop_duplicates(["benchmark", "task_id"])
    known = {
        "experiment": results.experiment,
        "arms": arms,
        "first": first,
        "judged": len(judged),
        "tests": TESTS[outcome],
        "several": any(runs > 1 for t in tasks for _, runs in t.passes.values()),
        "tasks": tasks,
        "suite_title": suite_title,
    }
    bare = len(fill("problems.html.j2", shown=[], thinned=False, **known).encode())
    shown = _affordable(tasks, bare)
    if thinned := len(shown) < len(tasks):
        for task in tasks:
            task.programs = _one_of_a_kind(task.programs)
        shown = _affordable(tasks, bare)
    return fill("problems.html.j2", shown=shown, thinned=thinned, **known)


def _one_of_a_kind(programs: Sequence[Program]) -> list[Program]:
    """Of each arm one program that passed and one that failed."""
    seen: set[tuple[str, bool]] = set()
    kept = []
    for program in programs:
        kinds = {(arm, program.passed) for arm in program.arms}
        if kinds - seen:
            kept.append(program)
            seen |= kinds
    return kept


def _affordable(tasks: Sequence[Task], taken: int) -> list[Task]:
    """The first tasks whose prompts and programs leave the page below `MOST` bytes."""
    shown = []
    for task in tasks:
        texts = [task.prompt or "", *(p.text for p in task.programs)]
        around = 700 + sum(300 + 40 * len(p.runs) for p in task.programs)  # markup and names
        taken += around + sum(len(escape(t).encode()) for t in texts)
        if taken > MOST:
            break
        shown.append(task)
    return shown


def flipped(outcomes: pd.DataFrame, arms: Sequence[str], outcome: str) -> list[Task]:
    """The tasks on which the arms' shares of runs that passed differ, in the suites' order."""
    rows = outcomes[outcomes["arm"].isin(arms)].assign(
        passed=outcomes[f"{outcome}_passed"].fillna(False).astype(bool)
    )
    found: list[Task] = []
    for (suite, task_id), group in rows.groupby(["benchmark", "task_id"], sort=False):
        by_arm = dict(tuple(group.groupby("arm", sort=False)))
        passes = {a: (int(by_arm[a]["passed"].sum()), len(by_arm[a])) for a in arms if a in by_arm}
        if len({passed / runs for passed, runs in passes.values()}) > 1:
            worst = {a: _commonest(by_arm[a].loc[~by_arm[a]["passed"], "failure"]) for a in passes}
            found.append(Task(len(found) + 1, str(suite), str(task_id), passes, worst))
    return found


def _commonest(failures: "pd.Series[Any]") -> str:
    counts = failures.dropna().value_counts()
    return FAILED.get(str(counts.index[0]), str(counts.index[0])) if len(counts) else ""


def read_programs(
    tasks: Sequence[Task], outcomes: pd.DataFrame, inputs: Mapping[str, Path], outcome: str
) -> None:
    """Add the programs of these tasks, from the samples beside each verdict."""
    by_id = {(t.suite, t.task_id): t for t in tasks}
    keys = ["arm", "seed", "benchmark", "task_id", "sample"]
    passed = outcomes.set_index(keys)[f"{outcome}_passed"]
    several = outcomes["sample"].max() > 0
    for role, folder in inputs.items():
        file = folder / "samples.jsonl"
        if not role.startswith("outcomes/") or not file.is_file():
            continue
        _, arm, seed, suite = role.split("/")
        for line in read_jsonl(file):
            task = by_id.get((suite, line["task_id"]))
            if task is None or arm not in task.passes:
                continue
            good = bool(passed[arm, int(seed), suite, line["task_id"], line["sample"]])
            why = str(line.get("failure") or "failed")
            failure = FAILED.get(why, why)
            run = f"seed {seed}" + (f", sample {line['sample']}" if several else "")
            _add(task, cut(line.get("solution") or ""), "passed" if good else failure, good,
                 (arm, run))  # fmt: skip


def _add(task: Task, text: str, verdict: str, good: bool, run: tuple[str, str]) -> None:
    same = (p for p in task.programs if p.text == text and p.verdict == verdict)
    program = next(same, None)
    if program is None:
        program = Program(text, verdict, good)
        task.programs.append(program)
    program.runs.append(run)


def read_prompts(tasks: Sequence[Task], data: Collected, inputs: Mapping[str, Path]) -> None:
    """Add the problems' texts, where the very file that was judged on is on this machine."""
    texts: dict[tuple[str, str], str] = {}
    for suite in {t.suite for t in tasks}:
        role = next(r for r in inputs if r.startswith("outcomes/") and r.endswith(f"/{suite}"))
        hashes = data.answers.loc[data.answers["benchmark"] == suite, "benchmark_md5"].dropna()
        if len(hashes.unique()) == 1:
            found = _prompts(suite, data.manifests[role].config.get("spec"), hashes.iloc[0])
            texts |= {(suite, task_id): cut(text) for task_id, text in found.items()}
    for task in tasks:
        task.prompt = texts.get((task.suite, task.task_id))


def _prompts(suite: str, spec: Any, md5: str) -> dict[str, str]:
    """Prompts by task; empty where the file has gone or is another one by now."""
    specs = [TypeAdapter(Suite).validate_python(spec)] if spec else []
    for one in [*specs, *([SUITES[suite]] if suite in SUITES else [])]:
        try:
            bench = benchmarks.load(suite, suite=one, download=False)
        except QaqError:
            continue
        if bench.md5 == md5:
            return {p.task_id: p.prompt for p in bench.problems}
    return {}


def cut(text: str) -> str:
    """The text, or its beginning."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n… {len(text) - LONGEST:,} more characters"
