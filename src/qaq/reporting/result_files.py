"""Results as people have them, read as rows of one program each.

| what | form |
|---|---|
| ours | a report (its folder, `results.json`, `per_problem.parquet`) or a folder of outcomes |
| EvalPlus | `*_eval_results.json`, of today and of before 0.2 (`base`, `plus` as lists) |
| lm-eval | `samples_TASK_DATE.jsonl` of `--log_samples`: pass@1, or a metric that is 0 or 1 |
| human-eval | `*_results.jsonl` with `task_id` and `passed` |
| bigcode-eval | `logs.json` of HumanEvalPack, which names neither task nor language |

The form is seen in the content, not in the name. lm-eval's `humaneval_plus` and `mbpp_plus` have
verdicts by the plus tests and none by the base tests: there `base_passed` is null. Where a file
says which benchmark file it was judged on (EvalPlus's `hash`), that is kept.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from qaq.host.errors import DataError
from qaq.reporting.analysis import UNTUNED
from qaq.store.manifest import read_manifest
from qaq.store.tables import PER_PROBLEM, parse_json, read_json, read_table

BITS, PROMPT = "solution_bits_per_byte", "prompt_sha"
COLUMNS = [
    *("arm", "seed", "benchmark", "task_id", "sample", "base_passed", "plus_passed"),
    *(PROMPT, BITS),
]
OTHER = "other"  # the suite of tasks whose ids do not say of which they are
SUITES = {"HumanEval": "humaneval", "Mbpp": "mbpp"}  # by the part of a task id before the slash
PASSED = {"pass": True, "success": True, "fail": False, "failed": False, "timeout": False}
MD5 = re.compile(r"[0-9a-f]{32}")
STAMP = re.compile(r"_\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(\.\d+)?$")  # lm-eval's, behind the task
PASS_AT = re.compile(r"pass(?:@|\^|_at_)(\w+)", re.IGNORECASE)
PLUS_TASK = re.compile(r"(humaneval|mbpp)_?plus", re.IGNORECASE)
PLUS_TEST = "zip(inputs, results)"  # in the tests of evalplus/humanevalplus and mbppplus, no other
FORMS = (
    "expected a report, a folder of outcomes, EvalPlus's *_eval_results.json, lm-eval's "
    "samples_*.jsonl, or bigcode-eval's logs.json"
)


@dataclass(frozen=True)
class Result:
    """Judged programs.

    Attributes:
        rows: with the columns of `COLUMNS`; `PROMPT` and `BITS` null where the form has none.
        hashes: MD5 of the file of each suite, where it is known.
        unnamed: a log that does not say of which benchmark its problems are.
    """

    rows: pd.DataFrame
    hashes: dict[str, str] = field(default_factory=dict)
    unnamed: bool = False


def load(path: Path) -> Result:
    """The rows of a result. Raises DataError: the path is none of the forms that can be read."""
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name not in ("results.json", "per_problem.parquet"):
        return _foreign(path)
    file = folder / "per_problem.parquet"
    if not file.is_file():
        raise DataError(f"{path}: no result there; {FORMS}")
    rows: pd.DataFrame = read_table(file, PER_PROBLEM).to_pandas()
    named = pd.read_parquet(file)
    rows["arm"] = named.get("arm", _arm(folder))
    rows["seed"] = named.get("seed", 0)
    try:
        hashes = _own_hashes(folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder}: its scores.json or results.json is damaged ({error}); expected the file as "
            "qaq wrote it; restore it, or make the result again"
        ) from None
    return Result(rows[COLUMNS], hashes)


def _arm(folder: Path) -> str:
    """The name of a folder of outcomes; that of the untuned model where no adapter was judged."""
    manifest = read_manifest(folder) or {}
    inputs = manifest.get("inputs") if manifest.get("kind") == "outcomes" else None
    return UNTUNED if isinstance(inputs, dict) and "adapter" not in inputs else folder.name


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
            content = parse_json(text)
        except ValueError:  # not splitlines: U+2028 and its like may stand within a JSON string
            content = [parse_json(line) for line in text.split("\n") if line.strip()]
        if isinstance(content, dict) and "doc_id" in content:
            content = [content]  # a file of one line
        rows, md5 = list(_rows(path, content)), None
        if isinstance(content, dict):
            md5 = content.get("hash")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(f"{path}: no result in a form that is known; {FORMS}") from None
    if not rows:
        raise DataError(f"{path}: it holds no judged task")
    frame = pd.DataFrame(rows, columns=COLUMNS)
    twice = frame[frame.duplicated(["arm", "task_id", "sample"])]
    if len(twice):
        raise DataError(f"{path}: task {twice['task_id'].iloc[0]} occurs twice; keep one of them")
    hashes: dict[str, str] = {}
    if isinstance(md5, str) and MD5.fullmatch(md5):
        hashes = dict.fromkeys(frame["benchmark"].unique(), md5)
    return Result(frame, hashes, unnamed=isinstance(content, dict) and "eval" not in content)


def _rows(path: Path, content: Any) -> Iterator[dict[str, Any]]:
    name = path.name.removesuffix("_eval_results.json").removesuffix(".jsonl")
    if isinstance(content, dict) and "eval" in content:
        for task, samples in content["eval"].items():
            for sample, (base, plus) in enumerate(_evalplus(samples)):
                yield _row(name, task, sample, base, plus)
    elif isinstance(content, dict):  # HumanEvalPack: {"0": [[0, {"passed": true, …}], …], …}
        for task, samples in content.items():
            named = f"problem {task} of {len(content)}"
            for sample, one in enumerate(samples):
                yield _row(name, named, sample, _bool(one[1]["passed"]), None)
    elif "doc_id" in content[0]:
        yield from _lm_eval(path, name, content)
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


def _lm_eval(path: Path, name: str, lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row per answer of a document; several filters are several arms."""
    filters = {line.get("filter") for line in lines}
    task = STAMP.sub("", name.removesuffix(".json"))
    plus = _by_plus_tests(path, task, lines)
    for line in lines:
        metric = _metric(path, line["metrics"])
        several = PASS_AT.fullmatch(metric) and line.get("resps")
        answers = len(line["resps"][0]) if several else 1  # else one verdict, however many answers
        share = float(line[metric]) * answers
        passed = round(share)
        if abs(share - passed) > 1e-6 or not 0 <= passed <= answers:
            raise ValueError(metric)  # no count of answers that passed
        arm = name if len(filters) == 1 else f"{name} {line.get('filter')}"
        for sample in range(answers):
            base = sample < passed
            verdicts = (None, base) if plus else (base, None)
            yield _row(arm, _lm_eval_task(task, line), sample, *verdicts)


def _metric(path: Path, metrics: list[str]) -> str:
    """pass@1 where it is among them, else the first, which must not be pass@k of another k."""
    of = {name: found[1] for name in metrics if (found := PASS_AT.fullmatch(name))}
    chosen = next((name for name, k in of.items() if k == "1"), metrics[0])
    if of.get(chosen, "1") != "1":
        raise DataError(
            f"{path}: its metric is {chosen}, whether any of several answers passed; expected "
            "pass@1, which says how many did; evaluate the task with pass@1 (in its metric_list)"
        )
    return chosen


def _by_plus_tests(path: Path, task: str, lines: list[dict[str, Any]]) -> bool:
    """Whether EvalPlus's plus tests gave the verdicts.

    Some of lm-eval's tasks over MBPP+ run the first of the base tests alone; `target` shows it.
    """
    docs = [line.get("doc") or {} for line in lines]
    if not PLUS_TASK.search(task) and not any(PLUS_TEST in str(d.get("test")) for d in docs):
        return False
    for doc, line in zip(docs, lines, strict=True):
        tests, target = doc.get("test"), line.get("target")
        if tests and target and str(tests).strip() not in str(target):
            raise DataError(
                f"{path}: its task has the plus tests, but document {line['doc_id']} was judged by "
                "others (target); expected the plus tests or the base tests of the benchmark; "
                "compare programs that `qaq judge` judged"
            )
    return True


def _lm_eval_task(task: str, line: dict[str, Any]) -> str:
    """The id that other harnesses know, or one that no other task of lm-eval has."""
    given = (line.get("doc") or {}).get("task_id")
    if given is None:
        return f"{task} {line['doc_id']}"
    if "mbpp" in task.lower() and str(given).isdecimal():
        return f"Mbpp/{given}"
    return str(given) if "/" in str(given) else f"{task} {given}"


def _row(arm: str, task: str, sample: int, base: bool | None, plus: bool | None) -> dict[str, Any]:
    suite = SUITES.get(task.split("/", maxsplit=1)[0], OTHER)
    values = (arm, 0, suite, task, sample, base, plus, None, float("nan"))
    return dict(zip(COLUMNS, values, strict=True))


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value
