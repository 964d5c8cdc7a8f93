"""The process in which a stage runs: `python -m qaq.worker JOB.json`.

A stage gets a process of its own so that its memory, its CUDA context and its crash stay its own.
A failure is written to `failure.json` beside the job at once, with the traceback.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

from qaq import energy
from qaq import job as jobs
from qaq.artifacts import write_json
from qaq.errors import QaqError
from qaq.store import explain_os_error

PR_SET_PDEATHSIG = 1


def main(path: Path) -> int:
    """Run the job in `path`; returns the exit code (0, 1, or 2 for the user's mistakes)."""
    _die_with_parent()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    job = jobs.load(path)
    started, before = time.monotonic(), energy.counters()
    try:
        module = importlib.import_module(jobs.MODULES[job.kind])
        summary = module.run(job)
    except Exception as error:
        code = _report_failure(error, job, path)
        return code
    if job.rank == 0:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        write_json(
            path.with_name("done.json"),
            {
                "summary": summary,
                "seconds": round(time.monotonic() - started, 3),
                "peak_rss_mib": usage.ru_maxrss // 1024,
                "energy_joules": energy.joules(before, energy.counters()),
                "packages": _versions(),
            },
        )
    return 0


def _report_failure(error: Exception, job: jobs.Job, path: Path) -> int:
    known = isinstance(error, QaqError)
    code = error.exit_code if isinstance(error, QaqError) else 1
    message = str(error) if known else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and not known:
        message = explain_os_error(error, Path(error.filename or job.out))
    failure = {"message": message, "traceback": traceback.format_exc(), "code": code}
    try:
        name = "failure.json" if job.rank == 0 else f"failure-{job.rank}.json"
        path.with_name(name).write_text(json.dumps(failure))
    except OSError:  # the disk is full: the parent still has standard error
        print(traceback.format_exc(), file=sys.stderr)
    return code


def _die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _versions() -> dict[str, str]:
    """Versions of the packages that can change a number and are loaded in this process."""
    names = ("torch", "transformers", "peft", "accelerate", "evalplus", "numpy", "pyarrow")
    loaded = {n: getattr(sys.modules[n], "__version__", "?") for n in names if n in sys.modules}
    return {"python": sys.version.split()[0], **{n: str(v) for n, v in loaded.items()}}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(Path(sys.argv[1])))
