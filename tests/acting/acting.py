"""A stage for tests of the runner: it does what it is told, in a real worker process."""

import contextlib
import ctypes
import os
import resource
import signal
import time
from dataclasses import dataclass
from typing import ClassVar

from qaq.host.errors import DataError
from qaq.host.terminal import notice
from qaq.store.stages import StageKind


@dataclass(frozen=True)
class Act:
    """What to do; `text` only makes another key."""

    STAGE: ClassVar = StageKind("acting", module="acting", version=1, inputs=("*",))

    act: str
    text: str = ""


@dataclass(frozen=True)
class ActTogether(Act):
    """The same in several processes, of which the second does `act` and the others wait."""

    STAGE: ClassVar = StageKind("acting", module="acting", version=1, inputs=("*",), shared=True)


def run(job):
    """Do it."""
    act = "wait" if job.world_size > 1 and job.rank != 1 else job.config["act"]
    if act in ("raise", "refuse"):
        raise ValueError("the stage's own words") if act == "raise" else DataError("no rows")
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "crash":
        ctypes.string_at(0)
    if act == "eat":
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        bytearray(8 << 30)
    if act == "fill":
        with (job.out / "big").open("wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    if act in ("wait", "swallow"):
        (job.scratch / "started").touch()
        with contextlib.suppress(*[Exception] if act == "swallow" else []):
            time.sleep(30)
    if act == "second":
        begun = job.scratch / "begun"
        if not begun.exists():
            begun.touch()
            notice("with the model's own forward")
            time.sleep(1)
            raise ValueError("only at the second attempt")
        notice("in the second attempt")
        (job.out / "data.txt").write_text(str(job.runtime.shard_rows))
        return {}
    if act == "save":
        from qaq.host.preemption import deferred

        with deferred() as told:
            (job.scratch / "started").touch()
            while not told():
                time.sleep(0.02)
            (job.scratch / "saved").touch()
    if act == "page":
        (job.out / "summary.txt").write_text("all is well")
    (job.out / "data.txt").write_text(job.config["text"] or "content")
    return {"read": [str(path / "data.txt") for path in job.inputs.values()]}
