"""Copies local records into Weights & Biases runs: `python -m qaq.tracking.mirror JOB.json`.

The local record is the truth; this is a view of it. It runs in a process of its own, after the
work, so that W&B missing, misconfigured or unreachable can neither fail nor slow a run: the caller
gives it a time limit (`finish`), and whatever goes wrong is written to `mirror.log`.

What a run holds is said in `qaq.tracking.replay`. What is done is noted in `mirrored.jsonl`.

Offline (the default) nothing is sent and no key is needed; `qaq.tracking.sync` sends it later.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from qaq.store.disk import flock
from qaq.store.tables import cut_torn_line, parse_json, read_json, write_json
from qaq.tracking.job import MirrorJob, TrackedRun
from qaq.tracking.replay import replay

LEDGER, LOG = "mirrored.jsonl", "mirror.log"
# A user's own settings for these would send everything into one run, or none.
FOREIGN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_MODE", "WANDB_DISABLED")


def copied(job: MirrorJob) -> bool:
    """Mirror a job, in the time that its runs may take; says whether all was mirrored as asked.

    What could not be sent by then is kept as offline runs.
    """
    process = start(job)
    done = finish(process, patience(job))
    offline = replace(job, mode="offline")
    ended = (process.returncode or 0) < 0  # one that fails by itself keeps them offline itself
    if ended and job.mode == "online" and missing(offline):
        finish(start(offline), patience(offline))
    return done


def patience(job: MirrorJob) -> float:
    """Seconds that a finished experiment waits for its mirror."""
    return 120.0 + 30.0 * len(job.runs)


def missing(job: MirrorJob) -> list[TrackedRun]:
    """The runs that were not mirrored yet; online, those too that were only kept offline."""
    done = {x["id"] for x in ledger(job.dir) if job.mode in ("offline", x["mode"])}
    return [run for run in job.runs if run.id not in done]


def start(job: MirrorJob, module: str = "qaq.tracking.mirror") -> subprocess.Popen[bytes]:
    """Start mirroring (or `module`) in a process group of its own; returns at once."""
    job.dir.mkdir(parents=True, exist_ok=True)
    tree = TypeAdapter(MirrorJob).dump_python(job, mode="json")
    said = json.dumps([module, tree]).encode()
    file = job.dir / f"job-{hashlib.sha256(said).hexdigest()[:8]}.json"
    write_json(file, tree)
    with (job.dir / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(job.dir),
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], seconds: float = 60.0) -> bool:
    """Wait for the mirror at most so long, then end it; says whether all was mirrored."""
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def environment(folder: Path) -> dict[str, str]:
    """The environment for wandb: everything it writes stays in `folder`, and it keeps quiet."""
    mine = {
        "WANDB_DIR": str(folder.parent),
        "WANDB_CACHE_DIR": str(folder / ".cache"),
        "WANDB_CONFIG_DIR": str(folder / ".config"),
        "WANDB_DATA_DIR": str(folder / ".data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_INIT_TIMEOUT": os.environ.get("WANDB_INIT_TIMEOUT", "20"),
    }
    return {k: v for k, v in os.environ.items() if k not in FOREIGN} | mine


def mirror(job: MirrorJob) -> int:
    """Mirror every run that is not mirrored yet; returns how many failed.

    Offline, one bad run does not keep the others back. Online, the first failure ends it: a
    server that cannot be reached would cost its time limit once per run. Two mirrors of one
    folder take turns.
    """
    failed = 0
    with _lock(job.dir):
        for run in missing(job):
            try:
                folder = replay(job, run)
            except Exception:
                print(f"{run.job_type} {run.name}:\n{traceback.format_exc()}", file=sys.stderr)
                failed += 1
                if job.mode == "online":
                    break
                continue
            _note(job, run, folder)
    return failed


def ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """What has been mirrored: one line per run with id, mode, type, depth, experiment, folder."""
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / LEDGER).read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # torn: a mirror was ended in the middle of it
                yield parse_json(line)


def _note(job: MirrorJob, run: TrackedRun, folder: Path) -> None:
    line = {
        "id": run.id,
        "mode": job.mode,
        "type": run.job_type,
        "depth": job.depth(run),
        "experiment": job.experiment,
        "made": run.made,
        "folder": folder.name,
    }
    cut_torn_line(job.dir / LEDGER)
    with (job.dir / LEDGER).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it when this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        flock(file, fcntl.LOCK_EX, folder)
        yield


def main(path: Path) -> int:
    """Mirror the job in `path`, at low priority; 0 if every stage was mirrored as asked.

    What cannot be sent to the server is kept as offline runs, for `qaq sync`.
    """
    os.nice(10)
    job = TypeAdapter(MirrorJob).validate_python(read_json(path))
    failed = mirror(job)
    if failed and job.mode == "online":
        with contextlib.suppress(ImportError):
            import wandb

            wandb.teardown()  # its service still holds the ids of the runs that failed
        mirror(replace(job, mode="offline"))
    path.unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
