"""A seccomp filter for one sample: compute, allocate, read; nothing that reaches others.

Refused: new processes and programs, sockets, signals and limits of other processes, shared memory
outside the resource limits, every change of a file or folder anywhere (also of permissions and
ownership, which Landlock does not cover), tracing, mounts, and every kernel service that a program
under test has no use for. System calls newer than the table answer "not implemented". Threads, a
pair of connected streams and reading stay possible.

Standard library only: it runs inside the process that is about to execute hostile code.
"""

import ctypes
import errno
import os
import struct

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
CLONE_THREAD = 0x10000
LAST_KNOWN = 462  # mseal, Linux 6.10

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# name: (number on x86_64, number on aarch64); None where the architecture has no such call.
DENIED: dict[str, tuple[int | None, int | None]] = {
    # processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "prctl": (157, 167),
    "personality": (135, 92),
    # signals
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # network
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    # memory that the resource limits do not count, and other processes' memory and scheduling
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274),
    # permissions, ownership, times and attributes of files
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "truncate": (76, 45),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    # the system
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "fanotify_init": (300, 262),
    # ways to move bytes or descriptors around the guard on the life-line
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "close_range": (436, 436),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
}

NOT_ON_OTHERS = {"prlimit64": (302, 261), "sched_setaffinity": (203, 122)}  # first argument: pid
SOCKETPAIR = (53, 199)  # arguments: family, type
AF_UNIX, NO_STREAM = 1, 0xE
CLONE = (56, 220)
CLONE3 = (435, 435)

# Calls that could close, copy or write the life-line, with the arguments that hold a descriptor.
ON_LIFELINE: dict[str, tuple[tuple[int | None, int | None], tuple[int, ...]]] = {
    "close": ((3, 57), (0,)),
    "dup": ((32, 23), (0,)),
    "dup2": ((33, None), (0, 1)),
    "dup3": ((292, 24), (0, 1)),
    "fcntl": ((72, 25), (0,)),
    "write": ((1, 64), (0,)),
    "writev": ((20, 66), (0,)),
    "sendfile": ((40, 71), (0,)),
}

# Files and folders are neither made, renamed nor removed, nor opened for writing.
FILE_CHANGES: dict[str, tuple[int | None, int | None]] = {
    "creat": (85, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "openat2": (437, 437),
}
OPEN = ((2, None), 1)  # the call's numbers and which argument holds the flags
OPENAT = ((257, 56), 2)
O_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def program(machine: str, lifeline: int | None) -> bytes:
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
    for numbers in (*DENIED.values(), *FILE_CHANGES.values()):
        number = numbers[column]
        if number is not None:
            code += [_op(JUMP_EQUAL, number, 0, 1), _op(RETURN, REFUSE | errno.EPERM)]
    code += [_op(JUMP_EQUAL, CLONE3[column], 0, 1), _op(RETURN, REFUSE | errno.ENOSYS)]
    code += _by_argument(CLONE[column], 0, (JUMP_ANY_BIT, CLONE_THREAD), refuse_if=False)
    # asyncio wakes itself through a pair of streams; datagrams could be sent to any socket
    code += _by_argument(SOCKETPAIR[column], 0, (JUMP_EQUAL, AF_UNIX), refuse_if=False)
    code += _by_argument(SOCKETPAIR[column], 1, (JUMP_ANY_BIT, NO_STREAM), refuse_if=True)
    for numbers in NOT_ON_OTHERS.values():
        code += _by_argument(numbers[column], 0, (JUMP_EQUAL, 0), refuse_if=False)
    if lifeline is not None:
        for numbers, arguments in ON_LIFELINE.values():
            for argument in arguments:
                test = (JUMP_EQUAL, lifeline)
                code += _by_argument(numbers[column], argument, test, refuse_if=True)
    for numbers, argument in (OPEN, OPENAT):
        test = (JUMP_ANY_BIT, O_CHANGES)
        code += _by_argument(numbers[column], argument, test, refuse_if=True)
    return b"".join([*code, _op(RETURN, ALLOW)])


def install(lifeline: int | None = None) -> None:
    """Put the filter on this process, for ever.

    Args:
        lifeline: a descriptor that must stay open and untouched, or null.

    Raises:
        OSError: the kernel or the machine has no seccomp filter.
    """
    code = program(os.uname().machine, lifeline)
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


def _by_argument(
    number: int | None, argument: int, test: tuple[int, int], *, refuse_if: bool
) -> list[bytes]:
    """Refuse call `number` depending on a test of the low half of one argument."""
    if number is None:
        return []
    jump, value = test
    to_refusal = (0, 1) if refuse_if else (1, 0)
    return [
        _op(JUMP_EQUAL, number, 0, 4),
        _op(LOAD, ARGUMENTS + 8 * argument),
        _op(jump, value, *to_refusal),
        _op(RETURN, REFUSE | errno.EPERM),
        _op(LOAD, NUMBER),
    ]
