"""Inside the sandbox: a pool of forked workers that loses no item but the one that kills it.

A worker that dies or exceeds the deadline is replaced; its item is tried once more, with nothing
beside it, and then reported as lost. `concurrent.futures` gives up the whole pool instead, which is
how EvalPlus loses every result when one sample kills its worker.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from qaq.evaluation.sandbox import ring

Work = Callable[[int], dict[str, Any]]
Emit = Callable[[dict[str, Any]], None]


class WorkError(Exception):
    """The work itself raised: a fault of the judge's, never of a sample's. Holds the traceback."""


class _Worker:
    """One forked process that answers one request at a time."""

    def __init__(self, work: Work, setup: Callable[[set[int]], None] | None):
        requests, self._requests = multiprocessing.Pipe(duplex=False)
        self.replies, replies = multiprocessing.Pipe(duplex=False)
        self.process: BaseProcess = multiprocessing.get_context("fork").Process(
            target=_serve, args=(work, setup, requests, replies)
        )
        self.process.start()
        requests.close()
        replies.close()
        self.item: int | None = None
        self.since = 0.0

    def give(self, item: int) -> None:
        self.item, self.since = item, time.monotonic()
        self._requests.send_bytes(str(item).encode())

    def end(self) -> None:
        """Kill it, free its pipes; a sample that it runs is killed by the kernel with it."""
        self.process.kill()
        self.process.join()
        self._requests.close()
        self.replies.close()


def run(
    items: Sequence[int],
    work: Work,
    emit: Emit,
    *,
    workers: int,
    deadline: float,
    attempts: int = 2,
    setup: Callable[[set[int]], None] | None = None,
) -> None:
    """Do `work(item)` for every item in forked workers, in order, and emit each result.

    Events: `start` (an item was handed out), the work's own dict with `event=result`, and `lost`
    (`why` is `died`, `hung` or `failed`) for an item that was also tried alone, if `attempts` is
    2: what went wrong beside other items may be none of its doing.

    Args:
        items: numbers that `work` understands.
        work: runs in a worker; returns JSON values, of which `failed` alone says that it could not
            do the item and why.
        deadline: seconds after which a worker counts as hung.
        attempts: tries for an item whose worker died, hung or failed.
        setup: runs once in each new worker; receives the descriptors that it must keep.

    Raises:
        WorkError: `work` raised an exception.
    """
    lost = _pass(items, work, emit, workers, deadline, setup)
    for item, why in lost.items():
        again = _pass([item], work, emit, 1, deadline, setup) if attempts > 1 else {item: why}
        for _, last in again.items():
            emit({"event": "lost", "id": item, "why": last})


def _pass(
    items: Sequence[int],
    work: Work,
    emit: Emit,
    workers: int,
    deadline: float,
    setup: Callable[[set[int]], None] | None,
) -> dict[int, str]:
    """Try every item once; returns those without a result, and why."""
    waiting = deque(items)
    lost: dict[int, str] = {}
    pool = [_started(work, setup) for _ in range(min(workers, len(waiting)))]
    try:
        while waiting or any(w.item is not None for w in pool):
            for worker in pool:
                if worker.item is None and waiting:
                    item = waiting.popleft()
                    emit({"event": "start", "id": item})
                    worker.give(item)
            wait([end for w in pool for end in (w.replies, w.process.sentinel)], timeout=0.5)
            for place, worker in enumerate(pool):
                item_now = worker.item
                why = _collect(worker, emit, deadline)
                if why is None:
                    continue
                if item_now is not None:
                    lost[item_now] = why
                if why != "failed":
                    worker.end()
                    pool[place] = _started(work, setup)
    finally:
        for worker in pool:
            worker.end()
    return lost


def _started(work: Work, setup: Callable[[set[int]], None] | None) -> _Worker:
    """A new worker, after some patience with a machine that has no process left to give."""
    for wait_for in (0.1, 0.5, 2.0, 5.0):
        try:
            return _Worker(work, setup)
        except BlockingIOError:
            time.sleep(wait_for)
    return _Worker(work, setup)


def _collect(worker: _Worker, emit: Emit, deadline: float) -> str | None:
    """Emit the worker's answer if there is one; otherwise say whether it died, hangs or failed."""
    try:
        if worker.replies.poll():
            reply = json.loads(worker.replies.recv_bytes())
            if "raised" in reply:
                raise WorkError(reply["raised"])
            item, worker.item = worker.item, None
            if "failed" in reply:
                print(reply["failed"], file=sys.stderr, flush=True)
                return "failed"
            emit({"event": "result", "id": item} | reply)
            return None
    except (EOFError, OSError):
        return "died"
    if not worker.process.is_alive():
        return "died"
    if worker.item is not None and time.monotonic() - worker.since > deadline:
        return "hung"
    return None


def _serve(
    work: Work,
    setup: Callable[[set[int]], None] | None,
    requests: Connection,
    replies: Connection,
) -> None:
    """A worker's life."""
    ring.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if setup is not None:
        setup({requests.fileno(), replies.fileno()})
    while True:
        try:
            item = int(requests.recv_bytes())
        except EOFError:
            os._exit(0)
        try:
            reply = work(item)
        except BaseException:
            reply = {"raised": traceback.format_exc()}
        replies.send_bytes(json.dumps(reply).encode())
