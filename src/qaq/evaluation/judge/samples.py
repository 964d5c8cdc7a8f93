"""`qaq judge`: somebody's samples, from a file in EvalPlus's format to a result file in its format.

    qaq judge samples.jsonl --suite humaneval

The file has one JSON object a line with `task_id` and `solution` (the whole program) or
`completion` (what follows the prompt); a task that occurs several times has several samples. The
result file can be read by whatever reads EvalPlus's; `conditions` says how it was found.
"""

import datetime
import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import JudgeResult, Outcome, Sample
from qaq.host.errors import DataError
from qaq.store.tables import write_json

ENDING = "_eval_results.json"  # EvalPlus's


def judge_file(
    samples: Path, benchmark: Benchmark, settings: JudgeSettings, out: Path | None = None
) -> tuple[Path, JudgeResult]:
    """Judge a file of samples; returns the file written, and the result.

    Finished verdicts are kept in a folder beside the result file until it is written, so that the
    same command goes on after a kill.

    Raises:
        DataError: the samples are not readable or do not fit, or the result file exists.
    """
    out = out or samples.with_name(samples.name.removesuffix(".jsonl") + ENDING)
    if out.exists():
        raise DataError(
            f"{out} exists and is not overwritten; remove it, or name another with --out"
        )
    found = read_samples(samples, benchmark)
    work = out.with_name(f".{out.name}.judging")
    result = judge(benchmark, found, settings, work)
    write_json(out, as_evalplus(benchmark, result))
    shutil.rmtree(work, ignore_errors=True)
    return out, result


def read_samples(path: Path, benchmark: Benchmark) -> list[Sample]:
    """The samples of a file, numbered task by task; how they fit the tasks is `judge`'s to check.

    Raises:
        DataError: the file is missing, not UTF-8, not JSONL, or a line lacks a field.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    problems = benchmark.by_id()
    seen: Counter[str] = Counter()
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _row(line, f"{path}, line {number}")
        task_id = row["task_id"]
        program = row.get("solution")
        if program is None:
            known = problems.get(task_id)
            program = (known.prompt if known else "") + row["completion"]
        found.append(Sample(task_id, seen[task_id], "", program))
        seen[task_id] += 1
    if len(set(seen.values())) > 1:
        usual = Counter(seen.values()).most_common(1)[0][0]
        odd = sorted(f"{t} has {n}" for t, n in seen.items() if n != usual)
        raise DataError(
            f"{path}: tasks differ in their number of samples (most have {usual}, {odd[0]}"
            f"{f' and {len(odd) - 1} more differ' if odd[1:] else ''}); give each the same number"
        )
    return found


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); expected one object a line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, expected a JSON object")
    if "task_id" not in row or not {"solution", "completion"} & set(row):
        raise DataError(
            f"{where}: found the fields {sorted(row)}, expected task_id and solution or completion"
        )
    for field in ("task_id", "solution", "completion"):
        if field in row and not isinstance(row[field], str):
            raise DataError(f"{where}: {field} is {type(row[field]).__name__}, expected text")
    return row


def as_evalplus(benchmark: Benchmark, result: JudgeResult) -> dict[str, Any]:
    """A result in the form of EvalPlus's files, which knows no verdict but pass, fail, timeout."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for o in result.outcomes:
        tasks.setdefault(o.task_id, []).append(
            {
                "task_id": o.task_id,
                "solution": o.solution,
                "base_status": o.base_status or "fail",
                "plus_status": o.plus_status or "fail",
                "base_fail_tests": [],
                "plus_fail_tests": [],
                "failure": o.failure,
                "suspect": o.suspect,
                "flipped": o.flipped,
            }
        )
    conditions = asdict(result)
    del conditions["outcomes"], conditions["reused"]
    return {
        "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "hash": benchmark.md5,
        "eval": tasks,
        "conditions": conditions,
    }


def summary(benchmark: Benchmark, result: JudgeResult) -> list[str]:
    """The numbers as lines of text, and under which conditions they were found."""
    by_task: dict[str, list[Outcome]] = {}
    for outcome in result.outcomes:
        by_task.setdefault(outcome.task_id, []).append(outcome)

    def mean(passed: str) -> float:
        return fmean(fmean(getattr(o, passed) for o in task) for task in by_task.values())

    failures = Counter(o.failure for o in result.outcomes if o.failure)
    lines = [
        f"{benchmark.name}: {len(by_task)} tasks, {len(result.outcomes)} samples",
        f"pass@1 base {mean('base_passed'):.3f}, plus {mean('plus_passed'):.3f}",
        "failures: " + (", ".join(f"{k} {n}" for k, n in sorted(failures.items())) or "none"),
        f"judge: EvalPlus {result.evalplus}, {result.judge}, at least {result.min_time_limit:g} s "
        f"an input, {result.memory_gib:g} GiB; sandbox: {result.sandbox}",
    ]
    if result.flips:
        lines.append(f"passed only with more time: {', '.join(result.flips)}")
    if result.suspects:
        lines.append(f"passed against false expected values, too: {', '.join(result.suspects)}")
    return lines
