"""SIGTERM and SIGUSR2: what a cluster sends before it takes a machine away.

The process that started a stage passes the signal on and waits for the stage to end. A stage that
resumes from what is on disk ends at once; one that must save first asks for it with `deferred`.
Then the signal goes where it would have gone: to a launcher's handler, which queues the job again,
or into `Preempted`, exit code 75 (EX_TEMPFAIL: the same command, later, goes on).
"""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from qaq.host.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class _Notice:
    """The signal that this process received; `deferring` while a stage looks at `asked` itself."""

    asked: int | None = None
    deferring = False


def stop_when_asked() -> None:
    """In a stage's process: SIGTERM and SIGUSR2 raise `Preempted`."""

    def received(number: int, frame: FrameType | None) -> None:
        first, _Notice.asked = _Notice.asked is None, number
        if first and not _Notice.deferring:  # a second one must not disturb the leaving
            raise Preempted(name(number))

    for number in SIGNALS:
        signal.signal(number, received)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """In here a signal only makes the yielded function true; `Preempted` follows at the end."""
    _Notice.deferring = True
    try:
        yield lambda: _Notice.asked is not None
    finally:
        _Notice.deferring = False
    if _Notice.asked is not None:
        raise Preempted(name(_Notice.asked))


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """In here SIGTERM and SIGUSR2 raise `Preempted`, where nobody else handles them.

    For the process that starts stages while none is running: it plans, or waits for a lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) == 1:  # a second one must not disturb the leaving
            raise Preempted(name(number))

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def wait_for(process: subprocess.Popen[Any], passed: signal.Signals = signal.SIGTERM) -> int:
    """The exit code of a stage's process; a signal meanwhile is passed on to it as `passed`.

    A cluster may send SIGTERM to all processes of a job (`scontrol requeue`); then the stage has it
    already.

    Raises:
        Preempted: this process was asked to stop, and the stage has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        return process.wait()
    received: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not received:
            process.send_signal(passed)
        received.append(signal.Signals(number))

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        # SIGUSR2 is what submitit queues a job again after; on SIGTERM it does nothing
        number = signal.SIGUSR2 if signal.SIGUSR2 in received else received[0]
        handler = before[number]
        if callable(handler):
            handler(number, None)
        raise Preempted(name(number))
    return code


def name(number: int) -> str:
    """A signal's name, for messages."""
    return signal.Signals(number).name
