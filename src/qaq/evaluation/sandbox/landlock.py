"""Landlock: a process gives up the file system, except for the paths it names.

Rules are inherited by children and can never be loosened. TCP is given up where the kernel can
(ABI 4), signals to and abstract sockets of processes outside likewise (ABI 6). Landlock leaves
permissions, ownership and times of files alone; `qaq.evaluation.sandbox.seccomp` refuses those.

Standard library only. Source: the kernel's `Documentation/userspace-api/landlock.rst`.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1
VERSION_FLAG = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = (
    1,
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 14,
    1 << 15,
)
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP = 0b11  # bind, connect
SCOPES = 0b11  # abstract Unix sockets, signals


def abi() -> int:
    """The kernel's Landlock version, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, 0, VERSION_FLAG)))


def restrict(
    read: Iterable[str | Path],
    write: Iterable[str | Path],
    most: int,
    listed: Iterable[str | Path] = (),
) -> int:
    """Give up all files but `read` (and what lies below) and `write` (read and change).

    Paths that do not exist are left out.

    Args:
        most: the greatest ABI to use, whatever the kernel has.
        listed: folders whose names may be listed without reading what lies in them.

    Returns:
        The ABI used, 0 if the kernel has no Landlock (nothing was restricted then).

    Raises:
        OSError: the kernel has Landlock but refused.
    """
    version = min(abi(), most)
    if version == 0:
        return 0
    rights = max(bits for since, bits in RIGHTS_BY_ABI.items() if since <= version)
    attribute = struct.pack("Q", rights)
    if version >= 4:
        attribute += struct.pack("Q", TCP)
    if version >= 6:
        attribute += struct.pack("Q", SCOPES)
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = libc.syscall(CREATE_RULESET, attribute, len(attribute), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock refused the rule set")
    try:
        for paths, allowed in ((read, READ), (write, rights & ~EXECUTE), (listed, READ_DIR)):
            for path in paths:
                _allow(libc, ruleset, path, allowed & rights)
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")
        if libc.syscall(RESTRICT_SELF, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "Landlock refused the restriction")
    finally:
        os.close(ruleset)
    return version


def _allow(libc: ctypes.CDLL, ruleset: int, path: str | Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= ON_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        if libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0) != 0:
            raise OSError(ctypes.get_errno(), f"Landlock refused a rule for {path}")
    finally:
        os.close(descriptor)
