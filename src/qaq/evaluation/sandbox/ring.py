"""The inner ring: what a sample's own process gives up before it runs the sample.

Order matters: descriptors first (the judge's pipes are among them), then limits, environment and
capabilities, then Landlock, and seccomp last, which forbids the calls used before it. After
`tighten` returns, the process can compute, allocate within its limits, start threads and read the
interpreter's files. It can change no file anywhere.

Standard library only, and no import after the first sample runs.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from qaq.evaluation.sandbox import landlock, seccomp

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
CAPABILITY_VERSION_3 = 0x20080522
MAX_OPEN_FILES = 64

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/etc/ld.so.cache")
DEVICES = ("/dev/urandom", "/dev/random", "/dev/zero", "/etc/localtime", "/proc/meminfo")


def tighten(
    scratch: str | Path,
    libraries: Iterable[str | Path],
    *,
    keep: Iterable[int] = (),
    lifeline: int | None = None,
) -> int:
    """Give up everything that running a sample does not need; it cannot be undone.

    Args:
        scratch: an empty folder, which becomes the temporary folder.
        libraries: folders the interpreter imports from (see `import_folders`).
        keep: descriptors that stay open, besides 0 to 2, which become `/dev/null`.
        lifeline: a kept descriptor that the sample may not touch (see `lifeline_of`).

    Returns:
        The Landlock ABI in force; 0 means that all of the user's files can be read.

    Raises:
        OSError: the kernel refused one of the means; the sample must not run then.
    """
    kept = {*keep} | ({lifeline} if lifeline is not None else set())
    _close_all_but(kept)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, max([MAX_OPEN_FILES, *(k + 1 for k in kept)])),
    ):
        _, hard = resource.getrlimit(limit)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))
    memory = os.environ.get("EVALPLUS_MAX_MEMORY_BYTES")  # EvalPlus reads it after this
    os.environ.clear()
    # what programs may rely on everywhere, with nothing of the machine in it
    os.environ |= {"HOME": str(scratch), "TMPDIR": str(scratch), "PATH": os.defpath}
    if memory is not None:
        os.environ["EVALPLUS_MAX_MEMORY_BYTES"] = memory
    tempfile.tempdir = str(scratch)
    libc = ctypes.CDLL(None, use_errno=True)
    die_with_parent()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _drop_capabilities(libc)
    version = landlock.restrict(read=[*SYSTEM, *DEVICES, *libraries, scratch], write=())
    seccomp.install(lifeline)
    return version


def restrict_judge(
    scratch: str | Path,
    libraries: Iterable[str | Path],
    read: Iterable[str | Path] = (),
    write: Iterable[str | Path] = (),
) -> int:
    """Landlock on a whole judge process, where nothing around it hides files; returns the ABI.

    `/dev/shm` holds the locks and counters that `multiprocessing` shares with a sample's process.
    """
    return landlock.restrict(
        read=[*SYSTEM, *DEVICES, *libraries, *read],
        write=[scratch, *write, "/dev/null", "/dev/shm"],
    )


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def lifeline_of(launcher: str = "_launch") -> int | None:
    """The descriptor by which `multiprocessing` learns that this forked child has ended.

    It is a local of `Popen._launch`, below which the child runs. Closing or writing it makes the
    parent believe that the child is gone, and then wait for it without limit.
    """
    frame = sys._getframe()
    while frame.f_code.co_name != launcher or "child_w" not in frame.f_locals:
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return int(frame.f_locals["child_w"])


def import_folders() -> list[str]:
    """Folders from which the running interpreter may import, this package's own left out."""
    own = str(Path(__file__).resolve().parents[3])
    folders = [sys.prefix, sys.base_prefix, *(p for p in sys.path if p and Path(p).is_dir())]
    return [f for f in dict.fromkeys(folders) if not (f == own and "site-packages" not in own)]


def _close_all_but(kept: set[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in kept:
            os.dup2(null, standard)
    low = 3
    for descriptor in sorted(k for k in kept if k > 2):
        os.closerange(low, descriptor)
        low = descriptor + 1
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(low, 1 << 20 if limit == resource.RLIM_INFINITY else max(limit, 4096))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up root's powers, which would lift resource limits and file permissions."""
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    if libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "the capabilities could not be dropped")
