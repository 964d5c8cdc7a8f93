"""What the canonical solutions return: made once per benchmark file, then only read.

One pickle a task, so that a subset costs only its own tasks and a worker loads only the task it
judges (EvalPlus keeps one of 800 MB for MBPP+ and hands it around). The run that makes them is in
the same sandbox as a judge, with one writable folder; what it leaves there is moved into the cache
by rename. They are read only inside the sandbox: a pickle is code.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.config import SUITES
from qaq.evaluation.judge import process as judge_process
from qaq.evaluation.judge.inside import TRUTH_SECONDS, truth_file
from qaq.evaluation.sandbox import Level
from qaq.host.errors import DataError, QaqError
from qaq.host.paths import cache_dir
from qaq.store.cache import locked

FORMAT = 1  # of the pickles


def override(benchmark: Benchmark) -> dict[str, str]:
    """The variable by which EvalPlus reads this benchmark's file."""
    return {_variable(benchmark): str(benchmark.path)}


def _variable(benchmark: Benchmark) -> str:
    release = SUITES[benchmark.format].release
    assert release is not None
    return release.override


def folder_of(benchmark: Benchmark) -> Path:
    """The cache folder of a benchmark file's ground truth under this Python."""
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    folder = cache_dir() / "evalplus" / benchmark.md5 / f"{benchmark.format}-{python}-v{FORMAT}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure(
    benchmark: Benchmark,
    level: Level,
    work: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The folder with the ground truth of every chosen task; missing ones are made.

    Raises:
        DataError: a canonical solution cannot be run.
    """
    folder = folder_of(benchmark)
    with locked(f"truth-{benchmark.md5}.lock"):
        missing = [
            p.task_id for p in benchmark.problems if not truth_file(folder, p.task_id).exists()
        ]
        if missing:
            _make(benchmark, missing, folder, level, work, progress)
    return folder


def ensure_stock(benchmark: Benchmark, level: Level, work: Path) -> tuple[Path, Path, str]:
    """What EvalPlus's whole `evaluate` needs: (data file, cache folder, MD5 of the file).

    It judges all tasks of a file, so a subset becomes a file of its own, in `work`.
    """
    file, md5 = benchmark.path, benchmark.md5
    chosen = {p.task_id for p in benchmark.problems}
    lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    kept = [line for line in lines if json.loads(line)["task_id"] in chosen]
    if len(kept) < len(lines):
        content = ("\n".join(kept) + "\n").encode()
        file, md5 = work / "subset.jsonl", hashlib.md5(content).hexdigest()
        work.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    cache = folder_of(benchmark) / f"stock-{md5}"
    with locked(f"truth-{md5}-stock.lock"):
        if not cache.exists():
            fresh = Path(tempfile.mkdtemp(prefix=".making-", dir=cache.parent))
            order = {"mode": "stock_truth", "dataset": benchmark.format, "md5": md5}
            end = judge_process.run(
                level,
                order,
                work,
                lambda event: None,
                read=(file,),
                write=(fresh,),
                extra_environment=stock_environment(benchmark, file, fresh),
                silence=TRUTH_SECONDS,
            )
            if end.how != "done":
                shutil.rmtree(fresh, ignore_errors=True)
                raise DataError(f"{file}: EvalPlus found no ground truth: {end.detail or end.how}")
            fresh.replace(cache)
    return file, cache, md5


def stock_environment(benchmark: Benchmark, file: Path, cache: Path) -> dict[str, str]:
    """The variables for EvalPlus's own way; its memory limit stays its default."""
    return {_variable(benchmark): str(file), "XDG_CACHE_HOME": str(cache)}


def _make(
    benchmark: Benchmark,
    missing: list[str],
    folder: Path,
    level: Level,
    work: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    lost: list[str] = []

    def on_event(event: judge_process.Event) -> None:
        if event["event"] == "start":
            return
        task_id = missing[event["id"]]
        if event["event"] == "lost":
            lost.append(f"{task_id} ({event['why']})")
            return
        truth_file(fresh, task_id).replace(truth_file(folder, task_id))
        if progress is not None:
            progress(event["id"] + 1, len(missing))

    try:
        end = judge_process.run(
            level,
            {"mode": "truth", "dataset": benchmark.format, "items": missing},
            work,
            on_event,
            read=(benchmark.path,),
            write=(fresh,),
            extra_environment=override(benchmark),
            silence=TRUTH_SECONDS + 60,
        )
    except QaqError as error:
        raise DataError(
            f"{benchmark.path}: a canonical solution could not be run, so nothing can be judged; "
            f"restore the file ({error})"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    if end.how != "done" or lost:
        what = ", ".join(lost) or end.detail or end.how
        raise DataError(f"{benchmark.path}: canonical solutions without a result: {what}")
