"""The process that forks samples, and what a sample's own process does: `python -m …judge.helper`.

A bare interpreter: it never sees a problem, an expected value or a sample of another task, so that
nothing of the kind can be found in a sample's memory, on its stack or through `gc`. A worker hands
it two pipes by a Unix socket (its standard input) for each run; the child forked for it reads the
program and the inputs from one and writes what the program returns into the other. Judging happens
in the worker. The helper gives up files, environment and powers before its first fork; each child
seals itself (`qaq.evaluation.sandbox.ring`) before it runs anything.

Frames that a child writes: a kind (one byte), a length (eight bytes), the content. `R`: the program
was loaded. `V`: a value. `X`: an exception, by the kind of failure. Hostile code can write them,
too, which is no more than answering.
"""

import contextlib
import importlib.util
import io
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from qaq.evaluation.judge import wire
from qaq.evaluation.sandbox import ring, seccomp

HEAD = struct.Struct("<cQ")
READY, VALUE, RAISED = b"R", b"V", b"X"
STARTED, REFUSED = b"S", b"E"
# What programs often use: imported once here instead of in each run.
COMMON = (
    "collections", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "math",
    "numpy", "operator", "random", "re", "statistics", "string", "typing",
)  # fmt: skip


def main() -> None:
    """Fork a child for each pair of pipes that comes, until the worker goes."""
    scratch, most_abi = sys.argv[1], int(sys.argv[2])
    ring.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=os.dup(0))
    os.chdir(scratch)
    guard = _guard()
    for name in COMMON:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    libraries = ring.import_folders()
    code = seccomp.program(os.uname().machine)
    ring.enclose(scratch, libraries, most_abi=most_abi)
    control.sendall(STARTED)
    while True:
        _, pipes, _, _ = socket.recv_fds(control, 1, 3)
        if not pipes:
            os._exit(0)
        try:
            child = os.fork()
        except OSError as error:
            control.sendall(REFUSED + struct.pack("<i", error.errno or 0))
            child = -1
        if child == 0:
            _child(guard, pipes, code)
        for pipe in pipes:
            os.close(pipe)
        if child > 0:
            control.sendall(STARTED + struct.pack("<i", child))
            control.recv(1)  # the worker has killed it, so its number was its own until now
            os.waitpid(child, 0)


def _guard() -> Any:
    """EvalPlus's guard, timer and silencer, without the package around them and its oracles."""
    package = importlib.util.find_spec("evalplus")
    assert package is not None and package.origin is not None
    file = Path(package.origin).parent / "eval" / "utils.py"
    spec = importlib.util.spec_from_file_location("guard", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _child(guard: Any, pipes: list[int], code: bytes) -> NoReturn:
    """A sample's own process, from the fork to its end."""
    try:
        source, sink, *stdin = pipes
        with os.fdopen(source, "rb") as orders:
            order = pickle.load(orders)
            inputs = pickle.load(orders)
        if stdin:
            os.dup2(stdin[0], 0)
        ring.die_with_parent()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ring.seal({sink, *((0,) if stdin else ())}, code)
        out = os.fdopen(sink, "wb", buffering=0)
        run = _run_program if order["program"] else _run_function
        run(guard, out, order, inputs)
    except BaseException:
        with contextlib.suppress(BaseException):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _run_function(guard: Any, out: BinaryIO, order: dict[str, Any], inputs: list[Any]) -> None:
    """Load a program, call its function with each input; as EvalPlus's `unsafe_execute` does."""
    end = os._exit
    _limit_memory(order["memory"])
    guard.reliability_guard()
    names: dict[str, Any] = {}
    try:
        with guard.swallow_io():
            exec(_compiled(order["code"], out, end), names)
            function = names[order["entry_point"]]
    except BaseException as error:
        _tell(out, RAISED, _kind(guard, error))
        return
    _tell(out, READY)
    for arguments, seconds in zip(inputs, order["limits"], strict=True):
        try:
            with guard.time_limit(seconds), guard.swallow_io():
                value = function(*arguments)
        except BaseException as error:
            _tell(out, RAISED, _kind(guard, error))
            return
        _tell(out, VALUE, wire.pack(value))


class _Output(io.BytesIO):
    """What a program writes, whether by Python or to the descriptor, and whatever it closes."""

    def __init__(self) -> None:
        super().__init__()
        self._elsewhere = os.write

    def close(self) -> None:
        """It is read when the program has ended."""

    def fileno(self) -> int:
        """Standard output's."""
        return 1

    def write_to(self, descriptor: int, data: Any) -> int:
        """In place of `os.write`."""
        return self.write(data) if descriptor == 1 else self._elsewhere(descriptor, data)


def _run_program(guard: Any, out: BinaryIO, order: dict[str, Any], _: list[Any]) -> None:
    """Run a whole program on its standard input; its standard output is the value."""
    end = os._exit
    _limit_memory(order["memory"])
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    code = _compiled(order["code"], out, end)
    _tell(out, READY)
    written = _Output()
    os.write = written.write_to
    sys.argv = ["program.py"]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(written, encoding="utf-8", errors="replace")
    sys.stderr = io.StringIO()
    shown = sys.stdout
    try:
        with guard.time_limit(order["limits"][0]):
            exec(code, names)
    except SystemExit:
        pass
    except BaseException as error:
        _tell(out, RAISED, _kind(guard, error))
        return
    for stream in (sys.stdout, shown):  # the program may have put another in place
        with contextlib.suppress(Exception):
            stream.flush()
    _tell(out, VALUE, wire.pack(written.getvalue().decode("utf-8", "replace")))


def _limit_memory(wanted: int) -> None:
    """Bound address space, data and stack; a stack that may not be so large is what it may be."""
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK):
        _, hard = resource.getrlimit(limit)
        lowered = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (lowered, lowered))


def _compiled(text: str, out: BinaryIO, end: Any) -> Any:
    """The program's code; one that does not compile ends the run."""
    try:
        return compile(text, "<string>", "exec", dont_inherit=True)
    except BaseException:
        _tell(out, RAISED, b"syntax")
        end(0)


def _kind(guard: Any, error: BaseException) -> bytes:
    return b"timeout" if isinstance(error, guard.TimeoutException) else b"error"


def _tell(out: BinaryIO, kind: bytes, content: bytes | memoryview = b"") -> None:
    """Write one frame; the pipe takes it in pieces."""
    for part in (HEAD.pack(kind, len(content)), content):
        left = memoryview(part)
        while left:
            left = left[out.write(left) :]


if __name__ == "__main__":
    main()
