"""A suite's problems: found, checked by hash, cut to a subset.

A suite (`qaq.evaluation.config.Suite`) names its file and form. The file of a release is looked
for in this order: the path in the configuration, EvalPlus's own variables
(`HUMANEVAL_OVERRIDE_PATH`, `MBPP_OVERRIDE_PATH`), EvalPlus's cache, EvalPlus's download. Published
results carry the MD5 of these files, so one with another hash is an error unless it is asked for.

`identity` reads only bytes, so that planning a run needs neither EvalPlus nor torch.
"""

import difflib
import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qaq.evaluation.config import SUITES, Release, Suite
from qaq.evaluation.problems import FORMATS, Problem, read_file, read_problems
from qaq.host.errors import DataError
from qaq.host.fetching import fetch
from qaq.store.tables import appearing

__all__ = ["Benchmark", "Problem", "identity", "load", "locate", "split_tasks", "suite_of"]


@dataclass(frozen=True)
class Benchmark:
    """The chosen problems of one suite, and the file they are from."""

    name: str
    suite: Suite
    path: Path
    md5: str
    sha256: str
    problems: tuple[Problem, ...]

    @property
    def format(self) -> str:
        """The form of the file, which also chooses between EvalPlus's two checkers."""
        return self.suite.format

    @property
    def judge(self) -> str:
        """The name of the judge of these problems."""
        return self.suite.judge or FORMATS[self.format].judge

    @property
    def prompt(self) -> str:
        """The instruction of chat prompts, with {problem}."""
        return self.suite.prompt or FORMATS[self.format].prompt

    def by_id(self) -> dict[str, Problem]:
        """The problems by task id."""
        return {problem.task_id: problem for problem in self.problems}


def suite_of(name: str, file: Path | None = None, *, allow_unknown: bool = False) -> Suite:
    """A known suite, perhaps with another file.

    Raises:
        DataError: there is no suite of this name.
    """
    if name not in SUITES:
        raise DataError(f"there is no suite {name!r}; known: {', '.join(SUITES)}")
    known = SUITES[name]
    return replace(known, file=file or known.file, allow_unknown=allow_unknown)


def load(
    name: str,
    file: Path | None = None,
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    *,
    allow_unknown: bool = False,
    suite: Suite | None = None,
    download: bool = True,
) -> Benchmark:
    """Read and check a benchmark; `tasks` chooses by id, then `limit` keeps the first ones.

    Args:
        file: another file for a known suite.
        tasks: ids of the tasks to keep; null for all.
        allow_unknown: accept another file than a known suite's release.
        suite: what the name stands for; null for the known suite of this name.
        download: fetch a release that is not on this machine.

    Raises:
        DataError: no file, another hash than the release's, or a row that is not a problem.
    """
    suite = suite or suite_of(name, file, allow_unknown=allow_unknown)
    path = locate(name, suite, download=download)
    content = read_file(path)
    md5 = _checked_md5(name, suite, path, content)
    problems = read_problems(path, content, suite.format)
    return Benchmark(
        name=name,
        suite=suite,
        path=path.resolve(),
        md5=md5,
        sha256=hashlib.sha256(content).hexdigest(),
        problems=_choose(problems, tasks, limit),
    )


def choose(benchmark: Benchmark, tasks: Sequence[str] | None, limit: int | None) -> Benchmark:
    """A part of a benchmark; arguments and errors as for `load`."""
    return replace(benchmark, problems=_choose(benchmark.problems, tasks, limit))


def refuse_untested(benchmark: Benchmark) -> None:
    """Refuse problems that a judge of ours would call solved by any text.

    Raises:
        DataError: a problem has no tests in its base set.
    """
    problems = benchmark.problems
    untested = [p.task_id for p in problems if not p.base_input]
    if untested and benchmark.judge in ("evalplus", "stdio"):
        raise DataError(
            f"{benchmark.path}: {len(untested)} of {len(problems)} problems have no tests (the "
            f"first: {untested[0]}), so every program would pass; give them tests "
            f"({FORMATS[benchmark.format].tests}) or leave them out"
        )


def identity(
    name: str,
    file: Path | None = None,
    *,
    allow_unknown: bool = False,
    suite: Suite | None = None,
) -> dict[str, str]:
    """Content hashes of what a suite reads from outside, for the artifact's key.

    Form, judge and prompt count where they are not those of the known suite of this name.
    """
    suite = suite or suite_of(name, file, allow_unknown=allow_unknown)
    path = locate(name, suite)
    content = read_file(path)
    _checked_md5(name, suite, path, content)
    found = {"benchmark_sha256": hashlib.sha256(content).hexdigest()}
    usual, own = _meaning(SUITES.get(name, Suite())), _meaning(suite)
    from qaq.evaluation.judge.names import JUDGES

    own_judge = JUDGES.fingerprint(suite.judge) if suite.judge else {}
    return found | own_judge | ({} if own == usual else {"benchmark_suite": json.dumps(own)})


def _meaning(suite: Suite) -> list[str | None]:
    return [suite.format, suite.judge, suite.prompt]


def split_tasks(
    suites: Mapping[str, Suite], tasks: Sequence[str] | None
) -> dict[str, tuple[str, ...] | None]:
    """Which of the chosen tasks belong to which suite; null where all do.

    Raises:
        DataError: a task is in none of the suites, or a suite has none of the tasks.
    """
    if tasks is None:
        return dict.fromkeys(suites)
    known = {name: list(load(name, suite=suite).by_id()) for name, suite in suites.items()}
    _refuse_unknown(tasks, [task for ids in known.values() for task in ids])
    found = {name: tuple(t for t in tasks if t in ids) for name, ids in known.items()}
    empty = [name for name, chosen in found.items() if not chosen]
    if empty:
        raise DataError(
            f"benchmark.tasks names no task of {' and '.join(empty)}; name one, or leave the suite "
            "out (benchmark.suites=[…])"
        )
    return dict(found)


def locate(name: str, suite: Suite, *, download: bool = True) -> Path:
    """The data file of a suite, fetched into EvalPlus's cache when there is none anywhere."""
    release = suite.release
    override = os.environ.get(release.override) if release else None
    chosen = suite.file or (Path(override) if override else None)
    if chosen is not None:
        if not chosen.is_file():
            source = f"benchmark.files.{name}" if suite.file or not release else release.override
            raise DataError(f"no such file: {chosen} (from {source}); correct the path")
        return chosen
    if release is None:
        raise DataError(f"benchmark.suites.{name}: file is null; give the file of the problems")
    cached = _evalplus_cache() / f"{release.name}-{release.version}.jsonl"
    if not cached.is_file() and not download:
        raise DataError(f"the {name} problems are not on this machine")
    if not cached.is_file():
        url = (
            f"https://github.com/evalplus/{release.name.lower()}_release/releases/download/"
            f"{release.version}/{release.name}.jsonl.gz"
        )
        _download(name, url, cached)
    return cached


def _evalplus_cache() -> Path:
    """Where EvalPlus keeps its downloads on Linux."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "evalplus"


def _download(name: str, url: str, target: Path) -> None:
    """Fetch and unpack a release file; it appears only when its hash is the known one."""
    print(f"fetching the {name} problems from {url}", file=sys.stderr)
    try:
        content = gzip.decompress(fetch(url))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"the {name} problems are not on this machine and could not be fetched from {url} "
            f"({error}); download {target.stem}.jsonl elsewhere, then set "
            f"benchmark.files.{name}=FILE or {_released(name).override}=FILE"
        ) from error
    _checked_md5(name, Suite(release=_released(name)), Path(url), content)
    target.parent.mkdir(parents=True, exist_ok=True)
    with appearing(target) as temporary:
        temporary.write_bytes(content)


def _released(name: str) -> Release:
    release = SUITES[name].release
    assert release is not None
    return release


def _checked_md5(name: str, suite: Suite, path: Path, content: bytes) -> str:
    md5, release = hashlib.md5(content).hexdigest(), suite.release
    if release is not None and md5 != release.md5 and not suite.allow_unknown:
        raise DataError(
            f"{path}: unknown version of {name} (MD5 {md5}); expected the uncompressed "
            f"{release.name} {release.version} (MD5 {release.md5}); use that file, or set "
            "benchmark.allow_unknown_data=true if numbers that compare with no published ones are "
            "meant"
        )
    return md5


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
