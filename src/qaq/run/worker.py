"""The process in which a stage runs: `python -m qaq.run.worker JOB.json`.

A stage gets a process of its own so that its memory, its CUDA context and its crash stay its own.
A failure is written beside the job at once (`qaq.store.failures`).
"""

import ctypes
import faulthandler
import importlib
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

from qaq.host import console, energy, preemption
from qaq.store import failures, jobs
from qaq.store.tables import write_json

PR_SET_PDEATHSIG = 1


def main(path: Path) -> int:
    """Run the job in `path`; returns the exit code (0, 1, or 2 for the user's mistakes)."""
    _die_with_parent()
    console.speak_plainly()
    preemption.stop_when_told()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    job = jobs.load(path)
    crash = failures.crash_file(path.parent, job.rank).open("w")
    faulthandler.enable(crash)
    started, before = time.monotonic(), energy.counters()
    try:
        module = importlib.import_module(job.module)
        summary = module.run(job)
        if job.rank == 0:
            done = _done(summary, time.monotonic() - started)
            done |= {"energy_joules": energy.joules(before, energy.counters())}
            write_json(path.with_name("done.json"), done)
    except Exception as error:
        return failures.report(error, path.parent, job.rank, job.out)
    return 0


def _done(summary: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What the manifest takes over from the stage's process."""
    return {
        "summary": summary,
        "seconds": round(seconds, 3),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "packages": _versions(),
    }


def _die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _versions() -> dict[str, str]:
    """Versions of the packages that can change a number and are loaded in this process."""
    names = ("torch", "transformers", "peft", "accelerate", "evalplus", "numpy", "pyarrow")
    loaded = {n: getattr(sys.modules[n], "__version__", "?") for n in names if n in sys.modules}
    return {"python": sys.version.split()[0], **{n: str(v) for n, v in loaded.items()}}


def leave(code: int) -> NoReturn:
    """End this process with its exit code.

    A process that a launcher started leaves at once; all its work is done and on disk. What it
    talks to the others through is never closed: as the interpreter is taken down its threads may
    abort the process, and its destructor waits for a thread that may wait for the interpreter's
    lock, which the destructor holds.
    """
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    leave(main(Path(sys.argv[1])))
