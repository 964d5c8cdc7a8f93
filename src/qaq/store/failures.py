"""What a stage that did not end well leaves in its work folder, at once and whatever killed it.

`failure.json` (message, traceback, exit code, time) and `traceback.txt`. The stage's own process
writes them where it can; where it was killed, or crashed below Python, the process that started
it does. Both give back some reserved disk space first, so that a full disk can be reported too.
"""

import datetime
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from qaq.host.errors import Preempted, QaqError
from qaq.host.terminal import show
from qaq.store.disk import explain_os_error, is_disk_full
from qaq.store.tables import read_json, write_json

LESS_MEMORY = (
    "lower runtime.token_budget, runtime.micro_batch or runtime.generation_batch (none of them "
    "changes a result), or use a machine with more"
)
RESERVED = 1 << 16  # bytes
STALE = ("done.json", "failure*.json", "traceback.txt", "crash*.txt")


@dataclass(frozen=True)
class Failure:
    """A stage's end. `code` is 2 for the user's mistakes, 75 after a signal, else 1."""

    message: str
    traceback: str
    code: int
    at: str


def prepare(work: Path) -> None:
    """Clear the reports of an earlier try and reserve the space for this one's."""
    for pattern in STALE:
        for stale in work.glob(pattern):
            stale.unlink()
    _reserve(work).write_bytes(bytes(RESERVED))


def crash_file(work: Path, rank: int) -> Path:
    """Where a process of the stage writes the stacks of its threads if the interpreter crashes."""
    return work / f"crash-{rank}.txt"


def report(error: Exception | Preempted, work: Path, rank: int, out: Path) -> int:
    """Write down an error of the stage's own process; returns its exit code."""
    code = error.exit_code if isinstance(error, QaqError | Preempted) else 1
    failure = Failure(explain(error, out), traceback.format_exc(), code, _now())
    _write(failure, work, "failure.json" if rank == 0 else f"failure-{rank}.json")
    return code


def settle(work: Path, code: int, processes: int = 1) -> Failure:
    """The failure of a stage whose process ended with `code`; it is on disk afterwards.

    Of several `processes` the first to fail counts: their launcher then stops the others, which
    report just that. Where fewer than all report it and none anything else, one was killed.
    """
    found = [(f.stat().st_mtime_ns, Failure(**read_json(f))) for f in work.glob("failure*.json")]
    failures = [one for _, one in sorted(found, key=lambda one: (_stopped(one[1]), one[0]))]
    if failures and not (_stopped(failures[0]) and code and len(found) < processes):
        failure = failures[0]
    else:
        failure = _silent(work, code, processes)
    _write(failure, work, "failure.json")
    return failure


def _stopped(failure: Failure) -> bool:
    return failure.code == Preempted.exit_code


def read(work: Path) -> Failure | None:
    """The failure that was left in a work folder, if any."""
    try:
        return Failure(**read_json(work / "failure.json"))
    except (OSError, ValueError, TypeError):
        return None


def traceback_file(work: Path) -> Path:
    """Where the traceback lies as text."""
    return work / "traceback.txt"


def explain(error: Exception | Preempted, out: Path) -> str:
    """One sentence for an error: what happened and, where it is known, what to do."""
    if isinstance(error, QaqError | Preempted):
        return str(error)
    if isinstance(error, OSError) or is_disk_full(error):
        named = error.filename if isinstance(error, OSError) else None
        wrapped = error if isinstance(error, OSError) else OSError(str(error))
        return explain_os_error(wrapped, Path(named or out))
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"{text}; {LESS_MEMORY}"
    return text


def _silent(work: Path, code: int, processes: int) -> Failure:
    """For a process that could not write a report: killed, or crashed below Python.

    The exit code of several is that of their launcher, which does not say how one ended.
    """
    stacks = "".join(file.read_text(encoding="utf-8") for file in sorted(work.glob("crash*.txt")))
    reason = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    several = f"one of its {processes} processes left no report and their launcher"
    which = several if processes > 1 else "its process"
    advice = f" (if memory ran out: {LESS_MEMORY})" if code == -9 or processes > 1 else ""
    return Failure(
        message=f"{which} {reason}{advice}; run the same command to continue",
        traceback=stacks or f"The process {reason} and left no traceback.\n",
        code=1,
        at=_now(),
    )


def _write(failure: Failure, work: Path, name: str) -> None:
    try:
        _reserve(work).unlink(missing_ok=True)
        write_json(work / name, asdict(failure))
        traceback_file(work).write_text(failure.traceback, encoding="utf-8")
    except OSError:  # somebody else took that space too; nothing may hide the failure itself
        show(failure.traceback, error=True)


def _reserve(work: Path) -> Path:
    return work / ".reserve"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
