"""Follows fine-tuning into Weights & Biases while it runs: `python -m qaq.tracking.live JOB.json`.

For `tracking.wandb=online`. It reads what the stage writes into its local record, from another
process of lower priority: nothing that happens here reaches the stage. It ends with the process
that started it. `qaq.tracking.mirror` goes on with the same runs afterwards and completes them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import TypeAdapter

from qaq.store.tables import read_json
from qaq.tracking import mirror
from qaq.tracking.job import MirrorJob, TrackedRun
from qaq.tracking.replay import open_run, point

PAUSE = 2.0  # seconds between two looks at a record
PATIENCE = 30.0  # seconds that a run has to say goodbye to the server


@contextlib.contextmanager
def following(job: MirrorJob | None) -> Iterator[None]:
    """Follow the runs of `job` that train meanwhile; None, or no such run, follows nothing."""
    follower = None
    if job is not None and job.mode == "online" and any(run.record for run in job.runs):
        with contextlib.suppress(OSError):
            follower = mirror.start(job, "qaq.tracking.live")
    try:
        yield
    finally:
        if follower is not None:
            _end(follower)


def _end(follower: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        follower.terminate()
    mirror.finish(follower, PATIENCE)


def follow(job: MirrorJob, since: float, ended: Callable[[], bool]) -> None:
    """Send points of each record written to after `since`, one run after the other."""
    waiting = [run for run in job.runs if run.record is not None]
    while waiting and not ended():
        for run in waiting:
            if _written(run.record) > since:  # an older one is of a try that ended
                _send(job, run, ended)
                waiting.remove(run)
                break
        else:
            time.sleep(PAUSE)


def _send(job: MirrorJob, wanted: TrackedRun, ended: Callable[[], bool]) -> None:
    """Send one record, a line as it comes, until its stage is done and has moved it away."""
    assert wanted.record is not None
    run = open_run(job, wanted)
    try:
        with wanted.record.open(encoding="utf-8") as file:
            last, rest = False, ""
            while not last:
                last = ended() or not wanted.record.exists()  # then read once more
                *lines, rest = (rest + file.read()).split("\n")
                for line in map(json.loads, filter(None, lines)):
                    if "step" in line:
                        # else W&B keeps a step back until the next one comes
                        run.log(point(line), step=line["step"], commit=True)
                if not last:
                    time.sleep(PAUSE)
    finally:
        run.finish()


def _written(record: Path | None) -> float:
    try:
        return record.stat().st_mtime if record else 0.0
    except OSError:
        return 0.0


def main(path: Path) -> int:
    """Follow the job in `path` at low priority until asked to end, or until the parent is gone."""
    os.nice(10)
    parent, asked = os.getppid(), False

    def ask(signum: int, frame: FrameType | None) -> Any:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    job = TypeAdapter(MirrorJob).validate_python(read_json(path))
    since = path.stat().st_mtime  # of the file, since this process took time to start
    path.unlink()
    follow(job, since, lambda: asked or os.getppid() != parent)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
