"""The problems: EvalPlus's HumanEval+ and MBPP+ files, and the packaged `mini` benchmark.

A benchmark is one JSONL file in EvalPlus's format. The file is looked for, in this order: the
path in the configuration, EvalPlus's own variables (`HUMANEVAL_OVERRIDE_PATH`,
`MBPP_OVERRIDE_PATH`), EvalPlus's cache, EvalPlus's download. Published results carry the MD5 of
these files, so a file with another hash is an error unless it is asked for.

`identity` reads only bytes, so that planning a run needs neither EvalPlus nor torch.
"""

import difflib
import gzip
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qaq.host.errors import DataError

Suite = Literal["humaneval", "mbpp", "mini"]
Format = Literal["humaneval", "mbpp"]

KNOWN_MD5 = {  # of the uncompressed release files that EvalPlus 0.3.1 uses
    "humaneval": "fe585eb4df8c88d844eeb463ea4d0302",
    "mbpp": "ee43ecabebf20deef4bb776a405ac5b1",
}
RELEASES = {"humaneval": ("HumanEvalPlus", "v0.1.10"), "mbpp": ("MbppPlus", "v0.2.0")}
OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}
MINI = Path(__file__).parent / "data" / "mini.jsonl"


@dataclass(frozen=True)
class Problem:
    """One task as the file has it; inputs are lists of argument lists."""

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[Any]
    plus_input: list[Any]
    contract: str
    atol: float


@dataclass(frozen=True)
class Benchmark:
    """The chosen problems of one suite, and the file they are from."""

    suite: Suite
    path: Path
    md5: str
    sha256: str
    problems: tuple[Problem, ...]

    @property
    def format(self) -> Format:
        """Which of EvalPlus's two checkers judges these problems."""
        return "mbpp" if self.suite == "mbpp" else "humaneval"

    def by_id(self) -> dict[str, Problem]:
        """The problems by task id."""
        return {problem.task_id: problem for problem in self.problems}


def load(
    suite: Suite,
    file: Path | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    *,
    allow_unknown: bool = False,
) -> Benchmark:
    """Read and check a benchmark; `tasks` chooses by id, then `limit` keeps the first ones.

    Raises:
        DataError: no file, another hash than the release's, or a row that is not a problem.
    """
    path = locate(suite, file)
    content = _read(path)
    md5 = _checked_md5(suite, path, content, allow_unknown)
    problems = _parse(suite, path, content)
    return Benchmark(
        suite=suite,
        path=path.resolve(),
        md5=md5,
        sha256=hashlib.sha256(content).hexdigest(),
        problems=_choose(problems, tasks, limit),
    )


def identity(
    suite: Suite, file: Path | None = None, *, allow_unknown: bool = False
) -> dict[str, str]:
    """Content hashes of what a suite reads from outside, for the artifact's key."""
    path = locate(suite, file)
    content = _read(path)
    _checked_md5(suite, path, content, allow_unknown)
    return {"benchmark_sha256": hashlib.sha256(content).hexdigest()}


def split_tasks(
    suites: Sequence[Suite],
    files: Mapping[Suite, Path],
    tasks: Sequence[str] | None,
    *,
    allow_unknown: bool = False,
) -> dict[Suite, tuple[str, ...] | None]:
    """Which of the chosen tasks belong to which suite; null where all do.

    Raises:
        DataError: a task is in none of the suites, or a suite has none of the tasks.
    """
    if tasks is None:
        return dict.fromkeys(suites)
    known = {
        suite: list(load(suite, files.get(suite), allow_unknown=allow_unknown).by_id())
        for suite in suites
    }
    _refuse_unknown(tasks, [task for ids in known.values() for task in ids])
    found = {suite: tuple(t for t in tasks if t in ids) for suite, ids in known.items()}
    empty = [suite for suite, chosen in found.items() if not chosen]
    if empty:
        raise DataError(
            f"benchmark.tasks names no task of {' and '.join(empty)}; name one, or leave the suite "
            "out (benchmark.suites=[…])"
        )
    return dict(found)


def locate(suite: Suite, file: Path | None = None) -> Path:
    """The data file of a suite, fetched into EvalPlus's cache when there is none anywhere."""
    if suite == "mini" and file is None:
        return MINI
    override = None if suite == "mini" else os.environ.get(OVERRIDES[suite])
    chosen = file or (Path(override) if override else None)
    if chosen is not None:
        if not chosen.is_file():
            source = f"benchmark.files.{suite}" if file else OVERRIDES[suite]
            raise DataError(f"no such file: {chosen} (from {source}); correct the path")
        return chosen
    name, version = RELEASES[suite]
    cached = _evalplus_cache() / f"{name}-{version}.jsonl"
    if not cached.is_file():
        url = (
            f"https://github.com/evalplus/{name.lower()}_release/releases/download/"
            f"{version}/{name}.jsonl.gz"
        )
        _download(suite, url, cached)
    return cached


def _evalplus_cache() -> Path:
    """Where EvalPlus keeps its downloads on Linux."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "evalplus"


def _download(suite: Suite, url: str, target: Path) -> None:
    """Fetch and unpack a release file; it appears only when its hash is the known one."""
    print(f"fetching the {suite} problems from {url}", file=sys.stderr)
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content = gzip.decompress(response.read())
    except (urllib.error.URLError, OSError, EOFError) as error:
        raise DataError(
            f"the {suite} problems are not on this machine and could not be fetched from {url} "
            f"({error}); download {target.stem}.jsonl elsewhere, then set "
            f"benchmark.files.{suite}=FILE or {OVERRIDES[suite]}=FILE"
        ) from error
    _checked_md5(suite, Path(url), content, allow_unknown=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(target)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from error


def _checked_md5(suite: Suite, path: Path, content: bytes, allow_unknown: bool) -> str:
    md5 = hashlib.md5(content).hexdigest()
    expected = KNOWN_MD5.get(suite)
    if expected is not None and md5 != expected and not allow_unknown:
        name, version = RELEASES[suite]
        raise DataError(
            f"{path}: unknown version of {suite} (MD5 {md5}); expected the uncompressed {name} "
            f"{version} (MD5 {expected}); use that file, or set benchmark.allow_unknown_data=true "
            "if numbers that compare with no published ones are meant"
        )
    return md5


def _parse(suite: Suite, path: Path, content: bytes) -> tuple[Problem, ...]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}); expected a JSONL file in EvalPlus's format"
        ) from None
    problems: dict[str, Problem] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        problem = _problem(suite, line, f"{path}, line {number}")
        if problem.task_id in problems:
            raise DataError(
                f"{path}, line {number}: task {problem.task_id} occurs twice; keep one of them"
            )
        problems[problem.task_id] = problem
    if not problems:
        raise DataError(f"{path}: no problems; expected a JSONL file in EvalPlus's format")
    return tuple(problems.values())


def _problem(suite: Suite, line: str, where: str) -> Problem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); restore the file") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, expected a JSON object")
    if row.get("plus_input") == {}:  # so written for Mbpp/793, which has no additional tests
        row["plus_input"] = []
    kinds: dict[str, tuple[type, ...]] = {
        "task_id": (str,),
        "prompt": (str,),
        "entry_point": (str,),
        "canonical_solution": (str,),
        "base_input": (list,),
        "plus_input": (list,),
        "contract": (str,),
        "atol": (int, float),
    }
    for field, kind in kinds.items():
        if field not in row:
            raise DataError(f"{where}: field {field!r} is missing; EvalPlus's format needs it")
        if not isinstance(row[field], kind):
            raise DataError(
                f"{where}: field {field!r} is {type(row[field]).__name__}, "
                f"expected {' or '.join(k.__name__ for k in kind)}"
            )
    if suite == "mbpp" and not row["task_id"].rpartition("/")[2].isdigit():
        raise DataError(f"{where}: task_id {row['task_id']!r} must end in a number (Mbpp/123)")
    return Problem(**{field: row[field] for field in kinds})


def _choose(
    problems: tuple[Problem, ...], tasks: Sequence[str] | None, limit: int | None
) -> tuple[Problem, ...]:
    if limit is not None and limit < 1:
        raise DataError(f"the limit of tasks is {limit}; expected 1 or more, or none for all")
    if tasks is not None:
        _refuse_unknown(tasks, [p.task_id for p in problems])
        wanted = set(tasks)
        problems = tuple(p for p in problems if p.task_id in wanted)
        if not problems:
            raise DataError("benchmark.tasks: the list is empty; leave it out for all tasks")
    return problems[:limit]


def _refuse_unknown(tasks: Sequence[str], known: list[str]) -> None:
    for task in tasks:
        if task not in known:
            close = difflib.get_close_matches(task, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"they look like {known[0]}"
            raise DataError(f"benchmark.tasks: there is no task {task!r}; {hint}")
