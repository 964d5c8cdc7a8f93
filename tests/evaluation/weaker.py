"""Run a command on a kernel that refuses what stronger kernels offer.

    python weaker.py landlock,namespaces COMMAND …

A seccomp filter answers as such kernels do: Landlock's calls "not implemented" (Linux before
5.13), new user namespaces "not permitted" (Ubuntu 24.04 for ordinary users, many containers).
"""

import ctypes
import errno
import os
import platform
import struct
import sys

LANDLOCK = (444, 445, 446)
CALLS = {"x86_64": (272, 56, 435), "aarch64": (97, 220, 435)}  # unshare, clone, clone3
CLONE_NEWUSER = 0x10000000
REFUSE, ALLOW = 0x00050000, 0x7FFF0000


def op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def main() -> None:
    without = sys.argv[1].split(",")
    unshare, clone, clone3 = CALLS[platform.machine()]
    code = [op(0x20, 0)]
    if "landlock" in without:
        for call in LANDLOCK:
            code += [op(0x15, call, 0, 1), op(0x06, REFUSE | errno.ENOSYS)]
    if "namespaces" in without:
        code += [op(0x15, clone3, 0, 1), op(0x06, REFUSE | errno.ENOSYS)]
        for call in (unshare, clone):
            code += [op(0x15, call, 0, 3), op(0x20, 16), op(0x45, CLONE_NEWUSER, 0, 1)]
            code += [op(0x06, REFUSE | errno.EPERM)]
            code += [op(0x20, 0)]
    program = b"".join([*code, op(0x06, ALLOW)])
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, header, 0, 0) == 0
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
