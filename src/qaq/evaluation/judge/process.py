"""Start a judge inside its sandbox, listen to it, and watch over it.

The host's side of `judge_inside`. The judge gets a bare environment, an order on standard input
and a leash (a pipe whose end in this process closes when this process ends, however it ends). Two
watches run while it works: over silence (a hung judge is killed with all it started) and over the
memory of the whole tree (the largest process without children is killed, which is a sample's).
"""

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]

from qaq.evaluation import sandbox
from qaq.evaluation.sandbox import Level, View
from qaq.host.errors import QaqError

Event = dict[str, Any]
MODULE = "qaq.evaluation.judge.inside"
MEMORY_SHARE = 0.85  # of the machine's (or the container's) memory, for all samples together
TICK = 0.25  # seconds between looks at the memory
LOG_BYTES = 4000


@dataclass(frozen=True)
class End:
    """How a judge ended: `done`, or `died` or `hung` with the end of what it printed."""

    how: Literal["done", "died", "hung"]
    detail: str = ""


def run(
    level: Level,
    order: dict[str, Any],
    folder: Path,
    on_event: Callable[[Event], None],
    *,
    read: tuple[Path, ...] = (),
    write: tuple[Path, ...] = (),
    extra_environment: dict[str, str] | None = None,
    silence: float,
    memory_bytes: int | None = None,
) -> End:
    """Run one judge to its end, calling `on_event` for each event as it comes.

    Args:
        order: what `judge_inside` shall do; the paths and the leash are added here.
        folder: for the log, and for scratch files where the level has no private `/tmp`.
        on_event: receives `start`, `result` and `lost` events.
        write: paths that the judge may change (only where it makes a ground truth).
        extra_environment: what EvalPlus reads from variables.
        silence: seconds without an event after which the judge counts as hung.
        memory_bytes: for the whole tree; a share of the machine's memory if null.

    Raises:
        QaqError: the judge says that it cannot work (its traceback is in `judge.log`).
    """
    folder = folder.absolute()  # the judge works in another folder
    folder.mkdir(parents=True, exist_ok=True)
    with sandbox.scratch_folder(folder) as scratch:
        view = View(scratch=scratch, read=read, write=write)
        with _started(level, order, view, folder, extra_environment or {}) as process:
            limit = memory_bytes or int(MEMORY_SHARE * total_memory())
            end = _listen(process, on_event, silence, limit)
    if end is not None:
        return End(end)
    return End("died", _tail(folder / "judge.log"))


@contextmanager
def _started(
    level: Level, order: dict[str, Any], view: View, folder: Path, extra: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    leash, held = os.pipe()
    order = order | {
        "leash": leash,
        "self_restrict": level.self_restrict,
        "most_abi": level.landlock_abi,
        "read": [str(p) for p in view.read],
        "write": [str(p) for p in view.write],
    }
    with tempfile.TemporaryFile() as stdin, (folder / "judge.log").open("ab") as log:
        stdin.write(json.dumps(order).encode())
        stdin.seek(0)
        process = subprocess.Popen(
            sandbox.command(level, MODULE, view),
            env=sandbox.environment(level, view, extra),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(leash,),
            cwd="/",
            start_new_session=True,
        )
        os.close(leash)
        try:
            yield process
        finally:
            os.close(held)
            _kill_tree(process)


def _listen(
    process: subprocess.Popen[bytes],
    on_event: Callable[[Event], None],
    silence: float,
    memory_bytes: int,
) -> Literal["done", "hung"] | None:
    """Handle events until the judge says that it is done (`done`), is silent, or has ended."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    buffer, heard, looked = b"", time.monotonic(), time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=TICK)
            now = time.monotonic()
            if now - looked >= TICK:
                _hold_memory(process.pid, memory_bytes)
                looked = now
            if not ready:
                if now - heard > silence:
                    return "hung"
                continue
            chunk = os.read(stream, 1 << 20)
            if not chunk:
                return None
            heard = now
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event["event"] == "done":
                    return "done"
                if event["event"] == "error":
                    raise QaqError(f"the judge cannot work: {event['text']} (see judge.log)")
                on_event(event)


def total_memory() -> int:
    """Bytes of memory of this machine, or of this container if that is less."""
    total = int(psutil.virtual_memory().total)
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path(file).read_text()))
    return total


def _hold_memory(root: int, limit: int) -> None:
    """Kill the largest process without children while the tree holds more than `limit` bytes.

    Resident sizes count shared pages in each process; only when their sum is over the limit is
    the exact figure (proportional sizes, slow to read) asked for.
    """
    try:
        tree = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    if sum(_size(p, exact=False) for p in tree) <= limit:
        return
    sizes = {p.pid: _size(p, exact=True) for p in tree}
    if sum(sizes.values()) <= limit:
        return
    parents = {_parent(p) for p in tree}
    leaves = [p for p in tree if p.pid not in parents]
    if leaves:
        with suppress(psutil.NoSuchProcess):
            max(leaves, key=lambda p: sizes[p.pid]).kill()


def _size(process: psutil.Process, *, exact: bool) -> int:
    try:
        if exact:
            with suppress(psutil.AccessDenied):  # a sample's process shows only its resident size
                return int(process.memory_full_info().pss)
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    for each in tree:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tail(log: Path) -> str:
    with suppress(OSError):
        return log.read_bytes()[-LOG_BYTES:].decode(errors="replace").strip()
    return ""
