"""What the canonical solutions return: made once per benchmark file, then only read.

One pickle a task, so that a subset costs only its own tasks and a worker loads only the task it
judges (EvalPlus keeps one of 800 MB for MBPP+ and hands it around). The run that makes them is in
the same sandbox as a judge, with one writable folder; what it leaves there is moved into the cache
by rename. They are read only inside the sandbox: a pickle is code.
"""

import shutil
import sys
import tempfile
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
MAKING = ".making-"


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
    folder = (
        cache_dir().absolute()
        / "evalplus"
        / benchmark.md5
        / f"{benchmark.format}-{python}-v{FORMAT}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure(benchmark: Benchmark, level: Level, work: Path) -> Path:
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
            _make(benchmark, missing, folder, level, work)
    return folder


def _make(benchmark: Benchmark, missing: list[str], folder: Path, level: Level, work: Path) -> None:
    for old in folder.glob(f"{MAKING}*"):  # of a run that was killed: we hold the lock
        shutil.rmtree(old, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=MAKING, dir=folder))
    lost: list[str] = []

    def on_event(event: judge_process.Event) -> None:
        if event["event"] == "start":
            return
        task_id = missing[event["id"]]
        if event["event"] == "lost":
            lost.append(f"{task_id} ({event['why']})")
            return
        truth_file(fresh, task_id).replace(truth_file(folder, task_id))

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
