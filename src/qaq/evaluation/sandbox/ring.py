"""The inner ring: what a process gives up before it runs hostile text or code.

It has two halves, because samples are forked from a helper that must still be able to fork:
`enclose` (limits, environment, capabilities, files by Landlock) is put on once and inherited,
`seal` (descriptors, then seccomp, which forbids the calls used before it) is put on by each
sample's own process. `tighten` is both. A sealed process can compute, allocate within its limits
and read the interpreter's files. It can change no file anywhere and start nothing.

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
ANY_ABI = 1 << 30

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/nix/store", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero", "/etc/localtime")
ABOUT_THE_MACHINE = ("/proc/meminfo", "/proc/cpuinfo")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NOT_FOR_SAMPLES = ("qaq", "evalplus")  # packages with problems, solutions and oracles in them


def tighten(
    scratch: str | Path,
    libraries: Iterable[str | Path],
    *,
    keep: Iterable[int] = (),
    most_abi: int = ANY_ABI,
) -> int:
    """Give up everything that computing does not need; it cannot be undone.

    Args:
        scratch: an empty folder, which becomes the temporary folder.
        libraries: folders the interpreter imports from (see `import_folders`).
        keep: descriptors that stay open, besides 0 to 2, which become `/dev/null`.
        most_abi: the greatest Landlock ABI to use.

    Returns:
        The Landlock ABI in force; 0 means that all of the user's files can be read.

    Raises:
        OSError: the kernel refused one of the means; nothing must run then.
    """
    version = enclose(scratch, libraries, most_abi=most_abi)
    seal(keep)
    return version


class _Here:
    """What `seal` needs of the time before `enclose`."""

    null = -1


def enclose(
    scratch: str | Path, libraries: Iterable[str | Path], *, most_abi: int = ANY_ABI
) -> int:
    """The half that is inherited: limits, environment, capabilities, files; returns the ABI.

    Raises:
        OSError: the kernel refused one of the means.
    """
    _Here.null = os.open(os.devnull, os.O_RDWR)  # Landlock will refuse to open it for writing
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        _, hard = resource.getrlimit(limit)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowered, lowered))
    os.environ.clear()
    # what programs may rely on everywhere, with nothing of the machine in it
    own = {"HOME": str(scratch), "TMPDIR": str(scratch), "PATH": os.defpath}
    os.environ.update(own | ONE_THREAD)
    tempfile.tempdir = str(scratch)
    libc = ctypes.CDLL(None, use_errno=True)
    die_with_parent()
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _drop_capabilities(libc)
    readable, listed = _without_answers([*SYSTEM, *libraries])
    return landlock.restrict(
        read=[*DEVICES, *ABOUT_THE_MACHINE, *readable, scratch],
        write=(),
        most=most_abi,
        listed=listed,
    )


def seal(keep: Iterable[int] = (), code: bytes | None = None) -> None:
    """The half that ends forking: descriptors, and the filter; `code` may be made before."""
    _close_all_but({*keep})
    seccomp.install(code)


def restrict_judge(
    scratch: str | Path,
    libraries: Iterable[str | Path],
    read: Iterable[str | Path] = (),
    write: Iterable[str | Path] = (),
    most_abi: int = ANY_ABI,
) -> int:
    """Landlock on a whole judge process, where nothing around it hides files; returns the ABI."""
    return landlock.restrict(
        read=[*SYSTEM, *DEVICES, *ABOUT_THE_MACHINE, *libraries, *read],
        write=[scratch, *write, "/dev/null"],
        most=most_abi,
        listed=[Path(__file__).resolve().parents[3]],  # where the helper looks for this package
    )


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def import_folders() -> list[str]:
    """Folders from which the running interpreter may import, this package's own left out."""
    own = str(Path(__file__).resolve().parents[3])
    folders = [sys.prefix, sys.base_prefix, *(p for p in sys.path if p and Path(p).is_dir())]
    return [f for f in dict.fromkeys(folders) if not (f == own and "site-packages" not in own)]


def _without_answers(libraries: Iterable[str | Path]) -> tuple[list[Path], list[Path]]:
    """Library folders without the packages that hold answers: what may be read, what listed.

    Landlock knows no exceptions below an allowed folder, so a folder above such a package is
    taken apart down to it: its names can be listed, its other parts read.
    """
    left = [path for folder in libraries if (path := Path(folder).resolve()).exists()]
    barred = [f / n for f in left for n in NOT_FOR_SAMPLES if (f / n).is_dir()]
    barred.append(Path(__file__).resolve().parents[2])  # this package, wherever it lies
    readable: list[Path] = []
    listed: dict[Path, None] = {}
    while left:
        path = left.pop().resolve()
        if path in barred or path in listed:
            continue
        if any(package.is_relative_to(path) for package in barred):
            listed[path] = None
            left += path.iterdir()
        else:
            readable.append(path)
    return list(dict.fromkeys(readable)), list(listed)


def _close_all_but(kept: set[int]) -> None:
    for standard in (0, 1, 2):
        if standard not in kept:
            os.dup2(_Here.null, standard)
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
