"""Inside the sandbox, in a worker: run a program in a helper's child, hear what it returns.

    with Helper(scratch) as helper:
        answers = helper.run(Call(code, entry_point, pickle.dumps(inputs), limits, memory))
        answers[0]      # the first return value, or an exception that says why there is none

Values are read as they are asked for, under a clock of this process: an input may take twice its
limit (the program's own timer stops it at one), all together no more than EvalPlus allows.
"""

import contextlib
import fcntl
import os
import pickle
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from qaq.evaluation.judge import helper, wire

SET_LIMIT = 60.0  # seconds; EvalPlus's cap on a whole set of tests, which no setting raises
EXTRA = 2.0  # seconds that EvalPlus adds to a set
START_SECONDS = 30.0  # for a helper to start, or to fork
PIPE_BYTES = 1 << 20
MOST_BYTES = 256 << 20  # of one value

Kind = Literal["wrong", "error", "timeout", "syntax", "killed"]


class HelperError(Exception):
    """The helper could not do its part; nothing is known about the sample."""


class Stopped(Exception):
    """There is no further value: why, and whether the program's process said so (`spoken`)."""

    def __init__(self, kind: Kind, *, spoken: bool):
        super().__init__(kind)
        self.kind: Kind = kind
        self.spoken = spoken


@dataclass(frozen=True)
class Call:
    """One run: a function on inputs in turn, or (`entry_point` empty) a program on one text.

    Args:
        code: the program.
        entry_point: the function's name.
        inputs: pickled: a list of argument lists; empty for a program.
        limits: seconds for each input.
        memory: bytes of address space.
        stdin: a program's standard input, as bytes.
    """

    code: str
    entry_point: str
    inputs: bytes
    limits: Sequence[float]
    memory: int
    stdin: bytes | None = None

    @property
    def seconds(self) -> float:
        """The most that the whole run may take, as EvalPlus reckons."""
        return min(SET_LIMIT, sum(self.limits)) + EXTRA


class Helper:
    """A helper process of this worker's own; a context manager."""

    def __init__(self, most_abi: int):
        self._most_abi = most_abi
        self._scratch = ""

    def __enter__(self) -> Self:
        self._scratch = tempfile.mkdtemp(prefix="samples-")
        self._control, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", helper.__name__, self._scratch,
                 str(self._most_abi)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            self._control.close()
            raise HelperError(f"the helper did not start: {error}") from None
        finally:
            theirs.close()
        self._control.settimeout(START_SECONDS)
        try:
            self._hear(1)
        except HelperError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._control.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, call: Call) -> "Answers":
        """Start a run; the answers must be closed before the next.

        Raises:
            HelperError: the helper is gone, or cannot fork.
        """
        pipes = [*os.pipe(), *os.pipe()]
        with contextlib.suppress(OSError):  # large answers in fewer pieces, where that is allowed
            fcntl.fcntl(pipes[3], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        orders, source, answers, sink = pipes[1], pipes[0], pipes[2], pipes[3]
        given = [source, sink]
        try:
            if call.stdin is not None:
                given.append(_file_of(call.stdin))
            socket.send_fds(self._control, [b"."], given)
            child = self._started()
        except (OSError, HelperError) as error:
            os.close(orders)
            os.close(answers)
            raise HelperError(str(error)) from None
        finally:
            for each in given:
                os.close(each)
        return Answers(call, orders, answers, child, self._control)

    def _started(self) -> int:
        said = self._hear(5)
        number = int(struct.unpack("<i", said[1:])[0])
        if said[:1] == helper.REFUSED:
            raise HelperError(f"the helper cannot fork: {os.strerror(number)}")
        return number

    def _hear(self, count: int) -> bytes:
        said = b""
        while len(said) < count:
            try:
                part = self._control.recv(count - len(said))
            except OSError as error:
                raise HelperError(f"the helper is silent: {error}") from None
            if not part:
                raise HelperError("the helper ended")
            said += part
        return said


class Answers:
    """What a program returns, in order; each value is read when it is first asked for."""

    def __init__(self, call: Call, orders: int, answers: int, child: int, control: socket.socket):
        self._call, self._pipe, self._child, self._control = call, answers, child, control
        self.keep = True  # values that were read, for who asks again
        self._values: list[Any] = []
        self._loaded = False
        self._end: Stopped | None = None
        self._until = time.monotonic() + call.seconds
        self._poll = selectors.DefaultSelector()
        self._poll.register(answers, selectors.EVENT_READ)
        order = {
            "code": call.code,
            "entry_point": call.entry_point,
            "limits": list(call.limits),
            "memory": call.memory,
            "program": not call.entry_point,
        }
        with os.fdopen(orders, "wb") as file, contextlib.suppress(BrokenPipeError):
            file.write(pickle.dumps(order) + call.inputs)

    @property
    def end(self) -> Stopped | None:
        """Why there are no more values, once that is known."""
        return self._end

    def load(self) -> None:
        """Wait until the program is loaded. Raises Stopped: it could not be."""
        if not self._loaded:
            self._frame(self._until)
            self._loaded = True

    def __getitem__(self, place: int) -> Any:
        """The value for an input. Raises Stopped: there is none."""
        self.load()
        while len(self._values) <= place:
            allowed = 2 * self._call.limits[len(self._values)]
            content = self._frame(min(self._until, time.monotonic() + allowed))
            try:
                value = wire.unpack(content)
            except wire.Unreadable:
                raise self._stop("error", spoken=True) from None
            self._values.append(value if self.keep else None)
            if len(self._values) > place:
                return value
        return self._values[place]

    def close(self) -> None:
        """End the run."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        self._poll.close()
        os.close(self._pipe)
        with contextlib.suppress(OSError):
            self._control.sendall(b".")

    def _frame(self, until: float) -> bytearray:
        """The content of the next frame."""
        if self._end is not None:
            raise self._end
        kind, length = helper.HEAD.unpack(self._read(helper.HEAD.size, until))
        if kind == helper.RAISED and length < 16:
            said = self._read(length, until)
            why = next((k for k in ("timeout", "syntax") if k.encode() == said), "error")
            raise self._stop(why, spoken=True)  # type: ignore[arg-type]
        expected = helper.VALUE if self._loaded else helper.READY
        if kind != expected or length > MOST_BYTES:
            raise self._stop("error", spoken=True)
        return self._read(length, until)

    def _read(self, count: int, until: float) -> bytearray:
        found = bytearray(count)
        left = memoryview(found)
        while left:
            wait = until - time.monotonic()
            if wait <= 0 or not self._poll.select(wait):
                raise self._stop("timeout", spoken=False)
            got = os.readv(self._pipe, [left])
            if not got:
                raise self._stop("killed", spoken=False)
            left = left[got:]
        return found

    def _stop(self, kind: Kind, *, spoken: bool) -> Stopped:
        self._end = Stopped(kind, spoken=spoken)
        return self._end


def _file_of(content: bytes) -> int:
    """A descriptor to read `content` from; a file in memory, which nobody can change."""
    file = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
    os.lseek(file, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def misjudged(right: Mapping[str, Any], wrong: Mapping[str, Any]) -> str | None:
    """What is not as it must be of the verdicts on a right and a wrong control program."""
    if (right["base"], right["plus"], right["suspect"]) != ("pass", "pass", False):
        return f"a right program was judged {right}"
    if (wrong["base"], wrong["failure"]) != ("fail", "wrong"):
        return f"a wrong program was judged {wrong}"
    return None
