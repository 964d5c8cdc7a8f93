"""Hostile programs: contained, failed or named as suspect, and no other verdict changes."""

import contextlib
import ctypes
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from qaq.evaluation import sandbox
from qaq.evaluation.benchmarks import Benchmark
from qaq.evaluation.judge import truth as judge_truth
from qaq.evaluation.judge.inside import truth_file
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Outcome, Sample
from qaq.evaluation.sandbox import landlock
from qaq.host.errors import SandboxError

from . import hostile

HONEST = "def f(x):\n    return x + 1\n"
WRONG = "def f(x):\n    return x\n"
TOKEN = "hf_this_is_a_secret_of_the_user"
LEVELS = (
    "bubblewrap",
    pytest.param("unshare", marks=pytest.mark.slow),
    pytest.param("landlock", marks=pytest.mark.slow),
    pytest.param("limits", marks=pytest.mark.slow),
)

KILLING = [
    name for name in hostile.OUTSIDE if name.startswith(("kills its", "has the kernel signal"))
]

Make = Callable[..., Benchmark]


@dataclass
class Listener:
    """Counts what reaches this machine's loopback."""

    port: int
    abstract: str
    hits: list[str] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.socket())
        tcp.bind(("127.0.0.1", 0))
        tcp.listen(8)
        port = tcp.getsockname()[1]
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", port))
        name = f"qaq-test-{port}"
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.bind("\0" + name)
        local.listen(8)
        found = Listener(port, name)

        def hear(end: socket.socket, kind: str) -> None:
            with contextlib.suppress(OSError):
                while True:
                    end.recv(100) if kind == "udp" else end.accept()
                    found.hits.append(kind)

        for end, kind in ((tcp, "tcp"), (udp, "udp"), (local, "unix")):
            threading.Thread(target=hear, args=(end, kind), daemon=True).start()
        yield found


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    try:
        sandbox.choose(request.param)
    except SandboxError as error:
        pytest.skip(str(error))
    return str(request.param)


def run(
    make: Make, programs: dict[str, str], level: str, work: Path, seconds: float = 1.0, **task: Any
) -> dict[str, Outcome]:
    """Judge the programs among honest and wrong ones; check these, return the rest by name."""
    names = list(programs)
    lines = [program for name in names for program in (HONEST, programs[name], WRONG)]
    benchmark = make(lines, **task)
    samples = [Sample(f"Own/{i}", 0, "", text) for i, text in enumerate(lines)]
    # the same text for different tasks is judged for each
    chosen = JudgeSettings(sandbox=level, min_time_limit=seconds)  # type: ignore[arg-type]
    outcomes = judge(benchmark, samples, chosen, work).outcomes
    for honest in outcomes[0::3]:
        assert (honest.plus_passed, honest.suspect) == (True, False)
    for wrong in outcomes[2::3]:
        assert (wrong.base_status, wrong.failure) == ("fail", "wrong")
    assert not left_over()
    return dict(zip(names, outcomes[1::3], strict=True))


def left_over() -> list[psutil.Process]:
    """Processes below this one that should have ended with the judge."""
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=5)
    return psutil.Process().children(recursive=True)


@pytest.fixture
def ipc() -> Iterator[dict[str, object]]:
    """A shared memory, a semaphore and two queues of this process, as other programs have them."""
    libc, rt = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("librt.so.1", use_errno=True)
    shared = libc.shmget(0, 4096, 0o1666)
    semaphore = libc.semget(0, 1, 0o1666)
    queue = libc.msgget(0, 0o1666)
    assert min(shared, semaphore, queue) >= 0
    name = f"qaq-{os.getpid()}"
    rt.mq_open(f"/{name}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    yield {"shared": shared, "semaphore": semaphore, "queue": queue, "posix_queue": name}
    libc.shmctl(shared, 0, None), libc.semctl(semaphore, 0, 0), libc.msgctl(queue, 0, None)
    rt.mq_unlink(f"/{name}".encode())


@dataclass
class Home:
    """What a user has to lose, and what an attack would need to know."""

    folder: Path
    told: dict[str, object]

    def touched(self) -> list[str]:
        """Everything that is not as it was."""
        victim, inner = self.folder / "victim", self.folder / "folder"
        faults = {
            "the victim's text": not victim.exists() or victim.read_text() != "precious",
            "the victim's mode": not victim.exists() or victim.stat().st_mode & 0o777 != 0o600,
            "the names": sorted(p.name for p in self.folder.iterdir())
            != ["folder", "secret", "victim"],
            "the folder": not inner.is_dir() or list(inner.iterdir()) != [],
        }
        return [what for what, is_so in faults.items() if is_so]


@pytest.fixture
def home(
    tmp_path: Path,
    listener: Listener,
    ipc: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> Home:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", TOKEN)
    folder = tmp_path / "home"
    (folder / "folder").mkdir(parents=True)
    (folder / "secret").write_text(TOKEN)
    (folder / "victim").write_text("precious")
    (folder / "victim").chmod(0o600)
    (tmp_path / "work").mkdir()
    told = ipc | {
        "token": TOKEN,
        "secret": folder / "secret",
        "victim": folder / "victim",
        "folder": folder / "folder",
        "truth": tmp_path / "truth.pkl",
        "data": tmp_path / "own.jsonl",
        "port": listener.port,
        "abstract": listener.abstract,
        "journal": tmp_path / "work" / "journal.jsonl",
    }
    return Home(folder, told)


def test_no_attack_reaches_the_machine(
    make_benchmark: Make, listener: Listener, home: Home, level: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    benchmark = make_benchmark(list(hostile.OUTSIDE) * 3)
    truth = judge_truth.ensure(benchmark, sandbox.choose(level), work)  # type: ignore[arg-type]
    told = home.told | {"truth": truth_file(truth, "Own/0")}
    programs = {name: text.format(**told) for name, text in hostile.OUTSIDE.items()}

    outcomes = run(make_benchmark, programs, level, work)

    assert [name for name, o in outcomes.items() if o.base_passed or o.plus_passed] == []
    assert listener.hits == []
    assert home.touched() == []
    assert TOKEN not in (work / "judge.log").read_text()


@pytest.mark.parametrize("name", hostile.WORKS_UNSTOPPED)
def test_the_attack_works_where_nothing_stops_it(
    name: str, make_benchmark: Make, home: Home, tmp_path: Path
) -> None:
    make_benchmark(["any"])
    (tmp_path / "truth.pkl").write_bytes(pickle.dumps({"base": [2]}))
    program = tmp_path / "program.py"
    program.write_text(hostile.OUTSIDE[name].format(**home.told) + "\nassert f(1) == 2\n")
    parent = (
        f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, {str(program)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=False)
    if "POSIX queue" in name and ended.returncode == 1:
        pytest.skip("this kernel has no POSIX queues")
    assert ended.returncode == (-9 if name in KILLING else 0)


def test_each_kind_of_end_has_its_name(make_benchmark: Make, tmp_path: Path) -> None:
    kinds = {
        "leaves by os._exit(0)": "killed",
        "leaves by sys.exit(0)": "error",
        "leaves at import": "killed",
        "crashes the interpreter": "killed",
        "asks for 20 GiB": "error",
    }
    programs = {name: hostile.OUTSIDE[name].format() for name in kinds}
    programs["does not compile"] = "def f(x:\n    return x + 1\n"
    programs["has another name"] = "def g(x):\n    return x + 1\n"
    programs["asserts in vain"] = "def f(x):\n    assert False\n"
    programs["returns another type"] = "def f(x):\n    return str(x)\n"
    programs["takes two arguments"] = "def f(x, y):\n    return x\n"
    programs["loops"] = hostile.SLOW["loops in the function"]
    expected = kinds | {
        "does not compile": "syntax",
        "has another name": "error",
        "asserts in vain": "error",
        "returns another type": "wrong",
        "takes two arguments": "error",
        "loops": "timeout",
    }
    outcomes = run(make_benchmark, programs, "auto", tmp_path / "work")
    assert {name: o.failure for name, o in outcomes.items()} == expected


def test_no_cheat_knows_the_answer(make_benchmark: Make, level: str, tmp_path: Path) -> None:
    outcomes = run(make_benchmark, hostile.CHEATS, level, tmp_path / "work")
    assert {n: (o.base_passed, o.plus_passed) for n, o in outcomes.items()} == dict.fromkeys(
        hostile.CHEATS, (False, False)
    )


@pytest.mark.parametrize("name", hostile.WORK_IN_ONE_PROCESS)
def test_the_cheat_works_where_the_program_runs_beside_the_checker(name: str) -> None:
    """Else the test above would show nothing."""
    code = f"""
problem = {{"prompt": "def f(x):\\n", "canonical_solution": "    return x + 1\\n"}}
problem["base_input"] = []
def check(program, inputs, expected):
    names = {{}}
    exec(program, names)
    return [names["f"](x) == y for x, y in zip(inputs, expected)]
found = check({hostile.CHEATS[name]!r}, [1, 2, 40], [2, 3, 41])
assert all(found), found
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_patched_numpy_changes_nothing(make_benchmark: Make, tmp_path: Path) -> None:
    benchmark = make_benchmark(
        ["cheat", "honest"], atol=1e-6, canonical_solution="    return x + 0.5"
    )
    samples = [
        Sample("Own/0", 0, "", hostile.NUMPY_CHEAT),
        Sample("Own/1", 0, "", "def f(x):\n    return x + 0.5000001\n"),
    ]
    result = judge(benchmark, samples, JudgeSettings(), tmp_path / "work")
    assert [(o.plus_passed, o.suspect) for o in result.outcomes] == [(False, False), (True, False)]


def test_whatever_a_program_sends_is_its_own_failure_and_soon(
    make_benchmark: Make, level: str, tmp_path: Path
) -> None:
    programs = {n: hostile.FORGE.format(content=text) for n, text in hostile.FORGED.items()}
    started = time.monotonic()
    outcomes = run(make_benchmark, programs, level, tmp_path / "work", seconds=0.5)
    assert {n: o.base_passed for n, o in outcomes.items()} == dict.fromkeys(programs, False)
    # three and two inputs of half a second, twice; then tried alone; on a machine that is busy
    assert time.monotonic() - started < 60


def test_on_an_older_kernel_nobody_is_reached_by_signals(
    make_benchmark: Make, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 3)  # Linux 6.2: signals are not confined
    monkeypatch.setattr(sandbox, "choose", sandbox.choose.__wrapped__)
    names = [n for n in hostile.OUTSIDE if "signal" in n or "kills" in n or "process's" in n]
    assert len(names) > 5
    programs = {n: hostile.OUTSIDE[n].format(**home.told) for n in names}
    for name in ("landlock", "limits"):
        assert sandbox.choose(name).landlock_abi == 3
        outcomes = run(make_benchmark, programs, name, tmp_path / name)
        assert [n for n, o in outcomes.items() if o.base_passed] == []


@pytest.mark.slow
def test_programs_that_never_end_are_ended(
    make_benchmark: Make, level: str, tmp_path: Path
) -> None:
    one = {"base_input": [[1]], "plus_input": [[5]]}  # EvalPlus waits for as many limits as inputs
    outcomes = run(make_benchmark, hostile.SLOW, level, tmp_path / "work", seconds=0.3, **one)
    for name, outcome in outcomes.items():
        assert not outcome.base_passed, name
        ended_itself = name.startswith(("closes", "tells"))
        assert outcome.failure in (("killed", "error") if ended_itself else ("timeout",)), name
        # two sets of one input: a limit of 0.3 s each, EvalPlus's 2 s beside it, and a busy machine
        assert outcome.seconds < 2 * (0.3 + 2) + 10, name


def test_memory_taken_by_several_samples_together_is_held(
    make_benchmark: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaq.evaluation.judge.process.total_memory", lambda: 700 << 20)
    greedy = """
import time
def f(x):
    block = b"x" * (900 << 20)
    time.sleep(3)
    return x + 1
"""
    outcomes = run(make_benchmark, {"takes 900 MiB": greedy}, "auto", tmp_path / "work", 4.0)
    assert outcomes["takes 900 MiB"].failure == "killed"
