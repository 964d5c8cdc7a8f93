"""Stages that fail in every way a machine offers, in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qaq.host.errors import DataError, Preempted, UserError
from qaq.host.runtime import RuntimeConfig
from qaq.run import runner
from qaq.run.compose import compose
from qaq.run.pipeline import plan
from qaq.run.stage import Stage
from qaq.store import failures
from qaq.store.inspection import find_artifact, report_lines, status_lines
from qaq.store.store import Store

ACTING = Path(__file__).parents[1] / "acting"
SEARCHED = os.pathsep.join([str(ACTING), *filter(None, sys.path)])


@pytest.fixture
def acting(monkeypatch):
    """The acting stage, known here and in the workers."""
    monkeypatch.syspath_prepend(ACTING)
    monkeypatch.setenv("PYTHONPATH", SEARCHED)
    from acting import Act

    def stage(act: str, text: str = "", **inputs: Stage) -> Stage:
        return Stage(Act(act, text), f"{act}{text}", inputs)

    return stage


def make(plan, folder, **runtime):
    said = []
    store = Store(folder / "store")
    return store, runner.make(plan, store, RuntimeConfig(**runtime), said.append), said


@pytest.mark.parametrize(
    ("act", "message", "trace"),
    [
        ("raise", "ValueError: the stage's own words", 'raise ValueError("the stage'),
        ("kill", "was killed by signal 9 (if memory ran out: lower runtime.", "no traceback"),
        ("crash", "was killed by signal 11", "in run"),
        ("eat", "MemoryError; lower runtime.token_budget", "bytearray"),
    ],
)
def test_a_failed_stage_leaves_its_status_and_traceback_and_the_others_go_on(
    acting, tmp_path, act, message, trace
):
    bad, good = acting(act), acting("write")
    behind = acting("write", "behind", first=bad)
    store, results, _ = make([bad, behind, good], tmp_path)
    assert [r.state for r in results] == ["failed", "skipped", "ran"]
    assert results[0].error.exit_code == 1
    work = store.work_folder("acting", bad.key)
    assert message in failures.read(work).message
    assert trace in failures.traceback_file(work).read_text()
    assert str(failures.traceback_file(work)) in str(results[0].error)


def test_a_worker_takes_no_module_from_the_folder_in_which_qaq_was_started(
    acting, tmp_path, monkeypatch
):
    (tmp_path / "acting.py").write_text("raise RuntimeError('not this one')\n")
    monkeypatch.chdir(tmp_path)
    _, results, _ = make([acting("write")], tmp_path)
    assert [r.state for r in results] == ["ran"]


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_processes_the_failure_counts_and_not_that_the_others_were_stopped(
    tmp_path, first
):
    """Whichever it was, and though the reports of those that were stopped come last, or first."""
    work = Store(tmp_path).work("acting", "0" * 64)
    errors = {first: DataError("no rows"), 1 - first: Preempted("SIGTERM"), 2: OSError("closed")}
    for order in ([first, 1 - first, 2], [1 - first, first, 2]):
        failures.prepare(work)
        for rank in order:
            failures.report(errors[rank], work, rank, tmp_path)
            time.sleep(0.02)  # the clock of a file system has ticks
        settled = failures.settle(work, 1, processes=3)
        assert (settled.message, settled.code) == ("no rows", 2)
        assert failures.read(work) == settled


@pytest.mark.parametrize(
    ("reports", "launcher", "code"), [(3, 1, 75), (2, 1, 1), (2, 0, 75), (0, 1, 1)]
)
def test_a_process_without_a_report_among_those_that_were_stopped_was_killed(
    tmp_path, reports, launcher, code
):
    """Unless the launcher ended well, as on several hosts that were all asked to stop."""
    work = Store(tmp_path).work("acting", "0" * 64)
    failures.prepare(work)
    for rank in range(reports):
        failures.report(Preempted("SIGTERM"), work, rank, tmp_path)
    settled = failures.settle(work, launcher, processes=3)
    assert settled.code == code
    assert ("one of its 3 processes left no report" in settled.message) == (code == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "said", "code"),
    [("refuse", "no rows", 2), ("kill", "one of its 2 processes left no report", 1)],
)
def test_a_launched_stage_of_which_one_process_fails_is_no_preemption(
    acting, tmp_path, act, said, code
):
    from acting import ActTogether

    plan = [Stage(ActTogether(act), act, {})]
    _, [result], _ = make(plan, tmp_path, processes=2, device="cpu")
    assert result.error.exit_code == code
    assert said in str(result.error)


def test_a_stage_s_line_fits_and_says_which_of_how_many_and_its_facts(acting, tmp_path):
    long = "writes-" + "a-name-that-is-longer-than-a-line-has-room-for-" * 2
    _, results, said = make([acting("write"), acting("write", long)], tmp_path)
    assert [r.state for r in results] == ["ran", "ran"]
    assert all(len(line) <= runner.WIDTH for line in said)
    assert [line.split()[:5] for line in said[::2]] == [
        [*f"{k} of 2 acting".split(), name] for k, name in ((1, "write"), (2, said[2].split()[4]))
    ]
    cut = said[2].split()[4]
    assert cut.endswith("…") and find_artifact(tmp_path / "store", cut).manifest["name"] == (
        f"write{long}"
    )


def test_what_a_summary_lacks_is_not_shown(acting):
    facts = replace(acting("write").declared, facts=("{rows} rows", "loss {loss:.2f}")).facts_of
    assert facts({"rows": 3, "loss": 1.234}) == ["3 rows", "loss 1.23"]
    assert facts({"rows": 3, "loss": None}) == ["3 rows"] and facts({}) == []


def test_on_failure_stop_starts_nothing_more(acting, tmp_path):
    _, results, _ = make([acting("raise"), acting("write")], tmp_path, on_failure="stop")
    assert [r.state for r in results] == ["failed"]


def test_a_second_run_does_only_what_is_missing_and_forgets_the_old_failure(acting, tmp_path):
    good, bad = acting("write"), acting("raise")
    store, _, _ = make([good, bad], tmp_path)
    work = store.work_folder("acting", bad.key)
    job = json.loads((work / "job.json").read_text())
    assert job["config"]["act"] == "raise"
    _, results, _ = make([good, bad], tmp_path)
    assert [r.state for r in results] == ["reused", "failed"]


def test_the_status_tells_what_failed_and_what_runs_and_who_makes_it(acting, tmp_path):
    bad, running = acting("raise"), acting("write")
    store, _, _ = make([bad], tmp_path)
    store.work("acting", running.key)
    with store.lock("acting", running.key):
        lines = status_lines(store.root)
    assert any("failed at 20" in line and "the stage's own words" in line for line in lines)
    assert any(f"running (pid {os.getpid()} on" in line for line in lines)
    assert any("unfinished; the run that needs it" in line for line in status_lines(store.root))


def test_a_damaged_file_is_named_by_status(acting, tmp_path):
    store, _, _ = make([acting("write")], tmp_path)
    next(store.root.glob("acting/*/data.txt")).write_text("CONTENT")
    assert not any("DAMAGED" in line for line in status_lines(store.root))
    assert any("DAMAGED" in line for line in status_lines(store.root, verify=True))


def test_changed_bytes_are_found_by_their_hash_named_and_made_again(acting, tmp_path):
    first = acting("write")
    make([first], tmp_path)
    file = next((tmp_path / "store").glob("acting/*/data.txt"))
    file.write_text("CONTENT")  # of the same size
    _, results, said = make([first, acting("write", "reader", first=first)], tmp_path)
    assert [r.state for r in results] == ["ran", "ran"]
    assert any("damaged" in line and str(file) in line for line in said)
    assert file.read_text() == "content"
    assert list((tmp_path / "store" / ".trash").iterdir()) == []


def test_a_second_attempt_keeps_the_shard_size_of_the_first(acting, tmp_path):
    """Its shards are there; others would be cut at other rows."""
    plan = [acting("second")]
    _, (failed,), _ = make(plan, tmp_path, shard_rows=5)
    assert failed.state == "failed"
    store, (ran,), _ = make(plan, tmp_path, shard_rows=9)
    assert ran.state == "ran"
    (made,) = store.root.glob("acting/*/data.txt")
    assert made.read_text() == "5"


def test_the_seconds_of_all_tries_add_up(acting, tmp_path):
    """The first try sleeps a second and fails."""
    plan = [acting("second")]
    make(plan, tmp_path)
    _, (ran,), _ = make(plan, tmp_path)
    assert (ran.state, ran.artifact.manifest["tries"]) == ("ran", 2)
    assert ran.artifact.manifest["seconds"] > 1
    assert ran.artifact.manifest["peak_rss_mib"] > 0


def test_what_a_stage_says_of_how_it_worked_is_shown_and_stays_in_the_manifest(
    acting, tmp_path, capfd
):
    plan = [acting("second")]
    make(plan, tmp_path)
    _, (ran,), _ = make(plan, tmp_path)
    said = ["with the model's own forward", "in the second attempt"]
    assert ran.artifact.manifest["notices"] == said
    assert [line for line in capfd.readouterr().err.splitlines() if line in said] == said


def test_a_damaged_page_is_made_again_and_not_shown(acting, tmp_path):
    plan = [acting("page")]
    store, _, _ = make(plan, tmp_path)
    page = next(store.root.glob("acting/*/summary.txt"))
    page.write_text("all is bad!")
    with pytest.raises(UserError, match=r"damaged or missing: .*summary\.txt; run its experiment"):
        report_lines(store.root, None)
    _, (again,), said = make(plan, tmp_path)
    assert again.state == "ran"
    assert any(str(page) in line for line in said)
    assert page.read_text() == "all is well"
    assert report_lines(store.root, None)[0] == "all is well"


@pytest.mark.parametrize("text", ["", "content and more"])
def test_a_file_of_another_length_is_named_and_made_again(acting, tmp_path, text):
    plan = [acting("write")]
    store, _, _ = make(plan, tmp_path)
    file = next(store.root.glob("acting/*/data.txt"))
    file.write_text(text)
    _, (again,), said = make(plan, tmp_path)
    assert again.state == "ran"
    assert any(f"damaged: {file}; making it again" in line for line in said)
    assert file.read_text() == "content"
    _, (reused,), said = make(plan, tmp_path)
    assert reused.state == "reused"
    assert not any("damaged" in line for line in said)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "", "{", "[" * 200_000])
def test_a_damaged_manifest_is_named_and_its_artifact_made_again(acting, tmp_path, text):
    plan = [acting("write")]
    store, _, _ = make(plan, tmp_path)
    manifest = next(store.root.glob("acting/*/manifest.json"))
    manifest.write_text(text)
    assert f"DAMAGED: {manifest}; run its experiment again" in "\n".join(status_lines(store.root))
    for wanted in (manifest.parent.name, manifest.parent.name[:2]):
        with pytest.raises(UserError, match=r"manifest\.json is damaged; run its experiment"):
            find_artifact(store.root, wanted)
    _, (again,), said = make(plan, tmp_path)
    assert again.state == "ran"
    assert any(f"damaged: {manifest}" in line for line in said)
    assert status_lines(store.root)[0].startswith("acting ")


READ_ONLY = """
set -e
"$2" "$3" "$1" write
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
"$2" "$3" "$1" write
"$2" "$3" "$1" page
"""


def test_a_complete_store_that_cannot_be_written_is_read(tmp_path):
    """On a read-only mount of its own; what is missing there fails in one sentence."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces")
    command, environment = script(tmp_path)
    shell = ["unshare", "-rm", "sh", "-c", READ_ONLY, "sh", str(tmp_path / "disk"), *command]
    (tmp_path / "disk").mkdir()
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "reused None" in done.stdout
    assert "Read-only file system" in done.stdout
    assert "failed" in done.stdout
    assert "Traceback" not in done.stderr


def test_what_nobody_reads_is_not_hashed_again(acting, tmp_path):
    first = acting("write")
    make([first], tmp_path)
    next((tmp_path / "store").glob("acting/*/data.txt")).write_text("CONTENT")
    _, results, _ = make([first], tmp_path)
    assert [r.state for r in results] == ["reused"]


DISK = """
set -e
mkdir -p "$1"
mount -t tmpfs -o size=8m tmpfs "$1"
"$2" "$3" "$1" fill
mount -o remount,size=256m "$1"
"$2" "$3" "$1" fill
"""

RUN = """
import sys
from pathlib import Path
from qaq.store import failures
from qaq.store import jobs as job
from qaq.host.runtime import RuntimeConfig
from qaq.host.errors import Preempted
from qaq.run.stage import Stage
from qaq.run.runner import make
from qaq.store.store import Store
import acting
stage = Stage(acting.Act(sys.argv[2]), sys.argv[2])
store = Store(Path(sys.argv[1]) / "store")
try:
    [result] = make([stage], store, RuntimeConfig(), print)
except Preempted as error:
    print(error)
    sys.exit(error.exit_code)
work = store.work_folder("acting", stage.key)
print(result.state, failures.read(work) and failures.read(work).message)
"""


def script(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    file = tmp_path / "run.py"
    file.write_text(RUN)
    return [sys.executable, str(file)], os.environ | {"PYTHONPATH": SEARCHED}


def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(tmp_path):
    """On a file system of 8 MB of its own, in a mount namespace."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    command, environment = script(tmp_path)
    shell = ["unshare", "-rm", "sh", "-c", DISK, "sh", str(tmp_path / "disk"), *command]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (line for line in done.stdout.splitlines() if " None" in line or "full" in line
                     if line.startswith(("failed", "ran")))  # fmt: skip
    assert first.startswith("failed the disk is full while writing")
    assert second == "ran None"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("act", ["wait", "save"])
def test_a_signal_lets_the_stage_save_and_ends_with_exit_code_75(tmp_path, act, number):
    command, environment = script(tmp_path)
    process = subprocess.Popen(
        [*command, str(tmp_path), act], env=environment, stdout=subprocess.PIPE, text=True
    )
    scratch = wait_for(lambda: next(tmp_path.glob("store/.work/*/scratch/started"), None)).parent
    started = time.monotonic()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 75, out
    assert time.monotonic() - started < 10  # the worker would have slept for 30 s
    assert f"stopped by {number.name}; run the same command again to continue" in out
    assert (scratch / "saved").exists() == (act == "save")


HOLDING = """
import sys, time
from pathlib import Path
from qaq.store.store import Store
with Store(Path(sys.argv[1])).lock("pairs", sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_while_another_makes_the_stage_ends_with_exit_code_75(tmp_path, number):
    ask = ["selector=full", "train=none", "data.limit=9", f"runtime.store={tmp_path}"]
    pairs = plan(compose(ask))[0]
    holder = [sys.executable, "-c", HOLDING, str(tmp_path), pairs.key]
    with subprocess.Popen(holder, stdout=subprocess.PIPE) as holding:
        assert holding.stdout.readline() == b"held\n"
        command = [sys.executable, "-m", "qaq.cli", "run", *ask]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, **pipe) as process:
            while "another process is making it" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        holding.kill()
    assert process.returncode == 75, out
    assert f"qaq: stopped by {number.name}; run the same command again to continue" in out


def test_a_signal_is_not_taken_for_a_way_of_working_that_failed(tmp_path):
    """Libraries, and ours, try one way of running a model and then another."""
    command, environment = script(tmp_path)
    process = subprocess.Popen(
        [*command, str(tmp_path), "swallow"], env=environment, stdout=subprocess.PIPE, text=True
    )
    scratch = wait_for(lambda: next(tmp_path.glob("store/.work/*/scratch/started"), None)).parent
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 75, out
    assert failures.read(scratch.parent).message.startswith("stopped by SIGTERM")
    assert not (scratch.parent / "out" / "data.txt").exists()


def wait_for(found, seconds: float = 20):
    """The first true value of `found()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")
