"""`qaq judge`: somebody's samples, in any form that EvalPlus takes, to a result file in its form.

    qaq judge samples.jsonl --suite humaneval

A file has one JSON object a line with `task_id` and `solution` (the whole program) or `completion`
(what follows the prompt), and may be packed (.gz); a folder has a folder for each task with its
programs in it (`HumanEval_0/0.py`). A task that occurs several times has several samples. The
result file can be read by whatever reads EvalPlus's; `conditions` says how it was found.
"""

import datetime
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from qaq.data.python_code import parse
from qaq.evaluation.answers import OPENING, names_function
from qaq.evaluation.benchmarks import Benchmark, choose
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.judge.phases import MAX_RAW_CHARS, MAX_RAW_LINES
from qaq.evaluation.outcomes import JudgeResult, Outcome, Sample
from qaq.evaluation.problems import read_file
from qaq.host.errors import DataError
from qaq.host.targets import check_target
from qaq.store.tables import parse_json, write_json

ENDING = "_eval_results.json"  # EvalPlus's, and in a folder the same without what stands before it
GIVEN = "given"  # as `tasks`: those that have a sample


@dataclass(frozen=True)
class Wanted:
    """What is judged: all tasks, or these, or the first ones; `sanitize` null means not yet said.

    With `sanitize` EvalPlus's sanitiser takes the program out of each text first.
    """

    tasks: Sequence[str] | None = None
    limit: int | None = None
    sanitize: bool | None = None


def judge_file(
    samples: Path,
    load: Callable[[], Benchmark],
    settings: JudgeSettings,
    wanted: Wanted | None = None,
    out: Path | None = None,
) -> tuple[Path, Benchmark, JudgeResult]:
    """Judge samples; returns the file written, the tasks judged, and the result.

    Finished verdicts are kept in a folder beside the result file until it is written, so that the
    same command goes on after a kill. The benchmark is read after the samples, since reading it may
    fetch it.

    Raises:
        DataError: the samples are not readable or do not fit, or the result file exists.
    """
    wanted = wanted or Wanted()
    out = (out or _result_file(samples)).absolute()
    if out.exists():
        raise DataError(
            f"{out} exists and is not overwritten; remove it, or name another with --out"
        )
    check_target(out)
    rows = read_rows(samples)
    benchmark = load()
    found, benchmark = _chosen(samples, rows, benchmark, wanted)
    if wanted.sanitize is None:
        _refuse_text(samples, found)
    work = out.with_name(f".{out.name}.judging")
    result = judge(benchmark, found, settings, work)
    write_json(out, as_evalplus(benchmark, result))
    shutil.rmtree(work, ignore_errors=True)
    return out, benchmark, result


def read_rows(path: Path) -> list[dict[str, str]]:
    """Task ids with a solution or a completion, from a file or a folder.

    Raises:
        DataError: it is missing, not UTF-8, not JSONL, a line lacks a field, or there is nothing.
    """
    rows = _folder(path) if path.is_dir() else _lines(path)
    if not rows:
        raise DataError(f"{path}: no samples; expected JSONL, or folders HumanEval_0/0.py")
    counts = Counter(row["task_id"] for row in rows)
    usual = Counter(counts.values()).most_common(1)[0][0]
    odd = sorted(f"{t} has {n}" for t, n in counts.items() if n != usual)
    if odd:
        raise DataError(
            f"{path}: tasks differ in their number of samples (most have {usual}, {odd[0]}"
            f"{f' and {len(odd) - 1} more differ' if odd[1:] else ''}); give each the same number"
        )
    return rows


def _lines(path: Path) -> list[dict[str, str]]:
    text = _text(path)
    lines = enumerate(text.split("\n"), start=1)
    return [_row(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _folder(path: Path) -> list[dict[str, str]]:
    """EvalPlus's folder: one folder a task, `/` in its name as `_`, and in it 0.py, 1.py, …"""
    files = sorted(path.glob("*/*.py"), key=lambda f: (f.parent.name, len(f.stem), f.stem))
    return [{"task_id": f.parent.name.replace("_", "/"), "solution": _text(f)} for f in files]


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _row(line: str, where: str) -> dict[str, str]:
    try:
        row = parse_json(line)
    except ValueError as error:
        reason = getattr(error, "msg", error)
        raise DataError(f"{where}: not JSON ({reason}); expected one object a line") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, expected a JSON object")
    if "task_id" not in row or not {"solution", "completion"} & set(row):
        raise DataError(
            f"{where}: found the fields {sorted(row)}, expected task_id and solution or completion"
        )
    fields = {f: row[f] for f in ("task_id", "solution", "completion") if f in row}
    for field, value in fields.items():
        if not isinstance(value, str):
            raise DataError(f"{where}: {field} is {type(value).__name__}, expected text")
    return fields


def _chosen(
    path: Path, rows: list[dict[str, str]], benchmark: Benchmark, wanted: Wanted
) -> tuple[list[Sample], Benchmark]:
    """The samples of the tasks that are wanted, numbered task by task, and these tasks.

    Samples of known tasks that are not wanted are left out; `judge` refuses those of unknown ones.
    """
    known, sampled = benchmark.by_id(), {row["task_id"] for row in rows}
    given = [task for task in known if task in sampled]
    tasks = given if wanted.tasks == [GIVEN] else wanted.tasks
    chosen = choose(benchmark, tasks, wanted.limit)
    missing = [task for task in chosen.by_id() if task not in sampled]
    if given and missing and wanted.tasks is None:
        ids = f" (--tasks {','.join(given)})" if len(given) <= 5 else ""
        raise DataError(
            f"{path}: of the {len(chosen.problems)} tasks of {benchmark.name}, {len(missing)} are "
            f"tasks without a sample: {missing[0]}{', …' if missing[1:] else ''}; give them one, "
            f"or judge only the {len(given)} that have one with --tasks {GIVEN}{ids}"
        )
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        task = row["task_id"]
        if task in known and task not in chosen.by_id():
            continue
        text = row.get("solution")
        if text is None:
            prompt = known[task].prompt if task in known and known[task].entry_point else ""
            text = prompt + ("\n" if wanted.sanitize else "") + row["completion"]  # as EvalPlus
        found.append(Sample(task, seen[task], text, None if wanted.sanitize else text))
        seen[task] += 1
    return found, chosen


def _refuse_text(path: Path, samples: Sequence[Sample]) -> None:
    """Refuse texts in place of programs: the form is wrong, not their quality.

    So it is where every text but the blank ones is a syntax error, or most of them are and have a
    code fence: a refusal in one word is a program to Python.
    """
    texts = [sample.solution or "" for sample in samples]
    broken = [text for text in texts if not parse(text)]
    fences = sum(OPENING.search(text) is not None for text in broken)
    if not broken or (any(parse(t) for t in texts if t.strip()) and fences <= len(texts) / 2):
        return
    most = "every sample is a syntax error"
    if len(broken) < len(texts):
        most = "most samples are no programs"
    raise DataError(
        f"{path}: {most} ({len(broken)} of {len(texts)}"
        f"{f', {fences} with a code fence' if fences else ''}), so these are texts and not "
        "programs; add --sanitize to have EvalPlus's sanitiser take the programs out, or "
        "--no-sanitize to judge them as they are"
    )


def _result_file(samples: Path) -> Path:
    """Where EvalPlus would write the result."""
    if samples.is_dir():
        return samples / ENDING.removeprefix("_")
    return samples.with_name(samples.name.removesuffix(".gz").removesuffix(".jsonl") + ENDING)


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

    entry = {p.task_id: p.entry_point for p in benchmark.problems}
    without = sum(not names_function(o.solution, entry[o.task_id]) for o in result.outcomes)
    failures = Counter(o.failure for o in result.outcomes if o.failure)
    lines = [
        f"{benchmark.name}: {len(by_task)} tasks, {len(result.outcomes)} samples",
        f"pass@1 base {mean('base_passed'):.3f}, plus {mean('plus_passed'):.3f}",
        "failures: " + (", ".join(f"{k} {n}" for k, n in sorted(failures.items())) or "none"),
        f"judge: {result.judged_by}, at least {result.min_time_limit:g} s "
        f"an input, {result.memory_gib:g} GiB; sandbox: {result.sandbox}",
    ]
    if result.in_part:
        lines.append(
            f"{result.in_part} of {len(result.outcomes)} answers are longer than {MAX_RAW_CHARS} "
            f"characters or {MAX_RAW_LINES} lines: only their beginning was searched for a program"
        )
    unsearched = sum(not o.solution and o.failure in ("timeout", "killed") for o in result.outcomes)
    if unsearched:
        lines.append(f"{unsearched} took the sanitiser too long, twice, and count as failed")
    if without:
        lines.append(f"{without} of {len(result.outcomes)} do not define the asked function")
    if result.flips:
        lines.append(f"passed only with more time: {', '.join(result.flips)}")
    if result.suspects:
        lines.append(f"passed against false expected values, too: {', '.join(result.suspects)}")
    return lines
