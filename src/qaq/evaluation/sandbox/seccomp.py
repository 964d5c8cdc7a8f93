"""A seccomp filter for one sample: a list of the system calls that computing needs, and no others.

Allowed are memory, reading, the process's own descriptors, signals, timers and questions about
itself; of `open`, `fcntl`, `ioctl`, `prlimit64`, `socketpair` and `sendto` only the harmless forms.
So there are no new processes, threads or programs, no sockets but a pair within the process (which
asyncio wants), no signals to anybody in whatever way, no System V or POSIX queues, semaphores and
shared memory, no change of any file, and nothing that a later kernel may add.

A call that is not listed is "not permitted"; those newer than `LAST_KNOWN`, and those for which the
C library has an older substitute, are "not implemented".

Standard library only: it runs inside the process that is about to execute hostile code.
"""

import ctypes
import errno
import os
import struct

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LAST_KNOWN = 462  # mseal, Linux 6.10

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
Numbers = tuple[int | None, int | None]

# name: (number on x86_64, number on aarch64); None where the architecture has no such call.
ALLOWED: dict[str, Numbers] = {
    # memory
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "mincore": (27, 232),
    "membarrier": (324, 283),
    # reading
    "read": (0, 63),
    "pread64": (17, 67),
    "readv": (19, 65),
    "preadv": (295, 69),
    "lseek": (8, 62),
    "close": (3, 57),
    "fstat": (5, 80),
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "fadvise64": (221, 223),
    # its own descriptors
    "write": (1, 64),
    "writev": (20, 66),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "recvfrom": (45, 207),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "shutdown": (48, 210),
    # its own signals and timers
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "pause": (34, None),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    "restart_syscall": (219, 128),
    # time and waiting
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "sched_yield": (24, 124),
    "futex": (202, 98),
    # questions about itself
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "getrandom": (318, 278),
    "getcpu": (309, 168),
    "sched_getaffinity": (204, 123),
    # what the C library does for the one thread there is, and the end
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

# "not implemented", so that the C library takes its older way (which is refused or allowed above)
SUBSTITUTED: dict[str, Numbers] = {
    "clone3": (435, 435),
    "close_range": (436, 436),
    "openat2": (437, 437),
    "epoll_pwait2": (441, 441),
}
CLONE: Numbers = (56, 220)  # "try again", which Python reports as "can't start new thread"

OPEN: tuple[Numbers, int] = ((2, None), 1)  # numbers, and which argument holds the flags
OPENAT: tuple[Numbers, int] = ((257, 56), 2)
FCNTL: Numbers = (72, 25)
IOCTL: Numbers = (16, 29)
PRLIMIT64: Numbers = (302, 261)  # first argument: whose; 0 is the caller
SOCKETPAIR: Numbers = (53, 199)
SENDTO: Numbers = (44, 206)

O_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
O_ASYNC = 0o20000  # a descriptor with this sends signals, to whom F_SETOWN names
F_SETFL = 4
FCNTL_ALLOWED = (0, 1, 2, 3, 1030)  # DUPFD, GETFD, SETFD, GETFL, DUPFD_CLOEXEC
IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
AF_UNIX, SOCK_STREAM, SOCK_KINDS = 1, 1, 0xF

LOAD, AND, RETURN = 0x20, 0x54, 0x06
JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT = 0x15, 0x35, 0x45
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def program(machine: str) -> bytes:
    """The filter as BPF instructions for `machine` (as `os.uname` names it).

    Raises:
        OSError: there is no table for this machine.
    """
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no seccomp table for {machine}")
    arch, column = ARCHITECTURES[machine]
    code = [
        _op(LOAD, ARCHITECTURE),
        _op(JUMP_EQUAL, arch, 1, 0),
        _op(RETURN, KILL),
        _op(LOAD, NUMBER),
        # also catches the x32 numbers, which start at 2 to the 30
        _op(JUMP_GREATER_EQUAL, LAST_KNOWN + 1, 0, 1),
        _op(RETURN, REFUSE | errno.ENOSYS),
    ]
    for numbers in ALLOWED.values():
        code += _case(numbers[column], [_op(RETURN, ALLOW)])
    for numbers in SUBSTITUTED.values():
        code += _case(numbers[column], [_op(RETURN, REFUSE | errno.ENOSYS)])
    code += _case(CLONE[column], [_op(RETURN, REFUSE | errno.EAGAIN)])
    for numbers, flags in (OPEN, OPENAT):
        code += _case(numbers[column], [_argument(flags), *_allow_without(O_CHANGES)])
    commands = [op for command in FCNTL_ALLOWED for op in _allow_if(command)]
    setting = [_op(JUMP_EQUAL, F_SETFL, 0, 4), _argument(2), *_allow_without(O_ASYNC)]
    code += _case(FCNTL[column], [_argument(1), *commands, *setting])
    commands = [op for command in IOCTL_ALLOWED for op in _allow_if(command)]
    code += _case(IOCTL[column], [_argument(1), *commands])
    code += _case(PRLIMIT64[column], [_argument(0), *_allow_if(0)])
    pair = [_argument(0), _op(JUMP_EQUAL, AF_UNIX, 0, 4), _argument(1), _op(AND, SOCK_KINDS)]
    code += _case(SOCKETPAIR[column], [*pair, *_allow_if(SOCK_STREAM)])
    # no address: both halves of the pointer are null
    nowhere = [_argument(4), _op(JUMP_EQUAL, 0, 0, 3), _argument(4, high=True), *_allow_if(0)]
    code += _case(SENDTO[column], nowhere)
    return b"".join([*code, _op(RETURN, REFUSE | errno.EPERM)])


def install(code: bytes | None = None) -> None:
    """Put the filter on this process, for ever; `code` is `program`'s, if it was made before.

    Raises:
        OSError: the kernel or the machine has no seccomp filter.
    """
    code = code or program(os.uname().machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`."""
    return struct.pack("HBBI", code, if_true, if_false, value)


def _argument(place: int, *, high: bool = False) -> bytes:
    """Load half of an argument (both machines are little-endian)."""
    return _op(LOAD, ARGUMENTS + 8 * place + 4 * high)


def _allow_if(value: int) -> list[bytes]:
    return [_op(JUMP_EQUAL, value, 0, 1), _op(RETURN, ALLOW)]


def _allow_without(bits: int) -> list[bytes]:
    return [_op(JUMP_ANY_BIT, bits, 1, 0), _op(RETURN, ALLOW)]


def _case(number: int | None, body: list[bytes]) -> list[bytes]:
    """What to do at one call; a body that falls through refuses."""
    if number is None:
        return []
    refusal = _op(RETURN, REFUSE | errno.EPERM)
    return [_op(JUMP_EQUAL, number, 0, len(body) + 1), *body, refusal]
