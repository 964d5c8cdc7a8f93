"""Results as people have them, read as rows of one program each.

| what | form |
|---|---|
| ours | a report (its folder, `results.json`, `per_problem.parquet`) or a folder of outcomes |
| EvalPlus | `*_eval_results.json`, of today and of before 0.2 (`base`, `plus` as lists) |
| lm-eval | `samples_TASK_DATE.jsonl` of `--log_samples`, with a metric that is 0 or 1 |
| bigcode-eval, human-eval | `logs.json`, or `*_results.jsonl` with `task_id` and `passed` |

The form is seen in the content, not in the name. Where a file says which benchmark file it was
judged on (EvalPlus's `hash`), that is kept.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from qaq.host.errors import DataError
from qaq.store.tables import PER_PROBLEM, read_json, read_table

COLUMNS = ["arm", "seed", "benchmark", "task_id", "sample", "base_passed", "plus_passed"]
BITS = "solution_bits_per_byte"
SUITES = {"HumanEval": "humaneval", "Mbpp": "mbpp"}  # by the part of a task id before the slash
PASSED = {"pass": True, "success": True, "fail": False, "failed": False, "timeout": False}
MD5 = re.compile(r"[0-9a-f]{32}")
HUMANEVAL_TASKS = 164
FORMS = (
    "expected a report, a folder of outcomes, EvalPlus's *_eval_results.json, lm-eval's "
    "samples_*.jsonl, or bigcode-eval's logs.json"
)


@dataclass(frozen=True)
class Result:
    """Judged programs, with the columns of `COLUMNS` and `BITS`; MD5 of the file of each suite."""

    rows: pd.DataFrame
    hashes: dict[str, str] = field(default_factory=dict)


def load(path: Path) -> Result:
    """The rows of a result.

    Raises:
        DataError: the path is none of the forms that can be read.
    """
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name not in ("results.json", "per_problem.parquet"):
        return _foreign(path)
    file = folder / "per_problem.parquet"
    if not file.is_file():
        raise DataError(f"{path}: no result there; {FORMS}")
    rows: pd.DataFrame = read_table(file, PER_PROBLEM).to_pandas()
    named = pd.read_parquet(file)
    rows["arm"] = named.get("arm", folder.name)
    rows["seed"] = named.get("seed", 0)
    return Result(rows[[*COLUMNS, BITS]], _own_hashes(folder))


def _own_hashes(folder: Path) -> dict[str, str]:
    scores, results = folder / "scores.json", folder / "results.json"
    if scores.is_file():
        found = read_json(scores)
        pairs = [(found.get("benchmark"), found.get("benchmark_md5"))]
    else:
        arms = read_json(results)["arms"] if results.is_file() else []
        pairs = [(s["suite"], s.get("benchmark_md5")) for arm in arms for s in arm["suites"]]
    return {suite: md5 for suite, md5 in pairs if suite and md5}


def _foreign(path: Path) -> Result:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        try:
            content = json.loads(text)
        except ValueError:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        if isinstance(content, dict) and "doc_id" in content:
            content = [content]  # a file of one line
        rows, md5 = list(_rows(path, content)), None
        if isinstance(content, dict):
            md5 = content.get("hash")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise DataError(f"{path}: no result in a form that is known; {FORMS}") from None
    if not rows:
        raise DataError(f"{path}: it holds no judged task")
    frame = pd.DataFrame(rows, columns=[*COLUMNS, BITS])
    twice = frame[frame.duplicated(["arm", "task_id", "sample"])]
    if len(twice):
        raise DataError(f"{path}: task {twice['task_id'].iloc[0]} occurs twice; keep one of them")
    if not isinstance(md5, str) or not MD5.fullmatch(md5):
        return Result(frame)
    return Result(frame, dict.fromkeys(frame["benchmark"].unique(), md5))


def _rows(path: Path, content: Any) -> Iterator[dict[str, Any]]:
    name = path.name.removesuffix("_eval_results.json").removesuffix(".jsonl")
    if isinstance(content, dict) and "eval" in content:
        for task, samples in content["eval"].items():
            for sample, (base, plus) in enumerate(_evalplus(samples)):
                yield _row(name, task, sample, base, plus)
    elif isinstance(content, dict):  # bigcode-eval: {"0": [[0, {"passed": true, …}], …], …}
        whole = len(content) == HUMANEVAL_TASKS
        for task, samples in content.items():
            named = f"HumanEval/{task}" if whole else f"problem {task}"
            for sample, one in enumerate(samples):
                yield _row(name, named, sample, _bool(one[1]["passed"]), None)
    elif "doc_id" in content[0]:
        yield from _lm_eval(name, content)
    else:
        seen: Counter[str] = Counter()
        for row in content:
            task = str(row["task_id"])
            yield _row(name, task, seen[task], _bool(row["passed"]), None)
            seen[task] += 1


def _evalplus(samples: Any) -> Iterator[tuple[bool, bool | None]]:
    """Base and plus of each sample; `plus` null where only the base tests ran."""
    if isinstance(samples, dict):  # before 0.2: {"nfiles": 1, "base": [[status, details]], …}
        plus = samples.get("plus") or [[None]] * len(samples["base"])
        for one, other in zip(samples["base"], plus, strict=True):
            yield PASSED[one[0]], None if other[0] is None else PASSED[other[0]]
        return
    for one in samples:
        status = one.get("plus_status")
        yield PASSED[one["base_status"]], None if status is None else PASSED[status]


def _lm_eval(name: str, lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per answer of a document; several filters are several arms."""
    filters = {line.get("filter") for line in lines}
    for line in lines:
        (metric,) = line["metrics"][:1]
        answers = len(line["resps"][0]) if line.get("resps") else 1
        passed = float(line[metric]) * answers
        if passed != round(passed) or not 0 <= passed <= answers:
            raise ValueError(metric)  # no count of answers that passed
        task = (line.get("doc") or {}).get("task_id", line["doc_id"])
        if isinstance(task, int):
            task = f"Mbpp/{task}" if "mbpp" in name else f"{name.split('_2', maxsplit=1)[0]} {task}"
        arm = name if len(filters) == 1 else f"{name} {line.get('filter')}"
        for sample in range(answers):
            yield _row(arm, str(task), sample, sample < round(passed), None)


def _row(arm: str, task: str, sample: int, base: bool, plus: bool | None) -> dict[str, Any]:
    suite = SUITES.get(task.split("/", maxsplit=1)[0], "other")
    values = (arm, 0, suite, task, sample, base, plus, float("nan"))
    return dict(zip([*COLUMNS, BITS], values, strict=True))


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
