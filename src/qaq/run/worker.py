"""The process in which a stage runs: `python -m qaq.run.worker JOB.json`.

A stage gets a process of its own so that its memory, its CUDA context and its crash stay its own.
A failure is written beside the job at once (`qaq.store.failures`).
"""

import contextlib
import faulthandler
import importlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from qaq.evaluation.sandbox import ring
from qaq.host import energy, hardware, preemption
from qaq.host.errors import Preempted
from qaq.host.terminal import NOTICES, speak_plainly
from qaq.store import failures, jobs
from qaq.store.tables import read_json, write_json

NOTE_EVERY = 5.0  # seconds


def main(path: Path) -> int:
    """Run the job in `path`; returns the exit code (0, 1, or 2 for the user's mistakes)."""
    if sys.platform == "linux":
        ring.die_with_parent()
    speak_plainly()
    preemption.stop_when_asked()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    job = jobs.load(path)
    crash = failures.crash_file(path.parent, job.rank).open("w")
    faulthandler.enable(crash)
    try:
        with metered(path.parent / "tries") if job.rank == 0 else contextlib.nullcontext():
            summary = importlib.import_module(job.module).run(job)
        if job.rank == 0:
            done = {"summary": summary, "packages": _versions()} | spent(path.parent / "tries")
            write_json(path.with_name("done.json"), done)
    except (Exception, Preempted) as error:
        return failures.report(error, path.parent, job.rank, job.out)
    except KeyboardInterrupt:  # who started this process was interrupted too, and says so
        return 130
    return 0


@contextlib.contextmanager
def metered(folder: Path) -> Iterator[None]:
    """Keep what this try has used in a file, every few seconds, so that a kill loses little."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{time.time_ns()}.json"
    started, before, ended = time.monotonic(), energy.counters(), threading.Event()

    def note() -> None:
        used = {
            "seconds": time.monotonic() - started,
            "peak_rss_mib": hardware.peak_rss_mib(),
            "energy_joules": energy.joules(before, energy.counters()),
            "notices": NOTICES,
        }
        write_json(file, used)

    def keep_noting() -> None:
        while not ended.wait(NOTE_EVERY):
            with contextlib.suppress(OSError):  # a full disk is the stage's to report
                note()

    thread = threading.Thread(target=keep_noting, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            note()


def spent(folder: Path) -> dict[str, Any]:
    """What all tries of a stage used: seconds and joules together, the most memory of any.

    With what they had to say of how the work was done (`qaq.host.terminal.notice`).
    """
    tries = [read_json(file) for file in sorted(folder.glob("[!.]*.json"))]
    joules = [one["energy_joules"] for one in tries if one["energy_joules"] is not None]
    return {
        "seconds": round(sum(one["seconds"] for one in tries), 3),
        "peak_rss_mib": max(one["peak_rss_mib"] for one in tries),
        "energy_joules": sum(joules) if len(joules) == len(tries) else None,
        "tries": len(tries),
        "notices": list(dict.fromkeys(text for one in tries for text in one.get("notices", []))),
    }


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
