"""Sweeps and stages on a real Slurm, which the tests start on this host."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run.test_sweep import kinds, overrides
from tests.slurm import Slurm, running, wait_until

pytestmark = pytest.mark.nightly

LAUNCH = ["hydra/launcher=slurm", "hydra.launcher.mem_gb=4", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def begin(slurm: Slurm, folder: Path, *arguments: str) -> subprocess.Popen:
    """A command of qaq, as on a login node."""
    environment = os.environ | slurm.environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "qaq.cli", *arguments], cwd=folder, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen, seconds: float = 900) -> str:
    out, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, out
    return out


def logs(folder: Path) -> str:
    found = folder.glob("store/.sweep/.submitit/*/*_log.*")
    return "".join(file.read_text() for file in sorted(found))


def jobs(slurm: Slurm) -> list[str]:
    return slurm.call("squeue", "-h", "-r", "-t", "running", "-o", "%i").split()


def training(folder: Path) -> bool:
    """Whether some steps of a training are done."""
    record = next(iter(folder.glob("store/.work/adapter-*/out/record.jsonl")), None)
    return record is not None and len(record.read_text().splitlines()) > 5


LONG = ["selector=full", "untuned=false", "train.epochs=60", "train.checkpoint_steps=1000"]


def test_what_several_jobs_need_is_made_first_and_no_job_waits_for_another(
    slurm, tiny_model, other_tiny_model, tmp_path
):
    command = [
        "run", "-m", *LAUNCH, "selector=rmi_band,random,diff_high",
        *overrides(tiny_model, tmp_path), f"models.weak.id={other_tiny_model}",
    ]  # fmt: skip
    said = ended(begin(slurm, tmp_path, *command))
    assert "2 stages that several jobs need come first" in said  # a scorer, the untuned model
    assert kinds(tmp_path / "store") == {
        "pairs": 1, "scores": 2, "subset": 3, "adapter": 3, "outcomes": 4, "report": 1,
    }  # fmt: skip
    waits = re.findall(r"(\w+) +\S+ +another process is making it", logs(tmp_path))
    assert set(waits) <= {"pairs", "overlaps"}  # neither runs a model
    again = ended(begin(slurm, tmp_path, *command))
    assert "3 jobs, 0 to run" in again


def test_a_job_that_slurm_queues_again_saves_and_goes_on(slurm, tiny_model, tmp_path):
    command = ["run", *LAUNCH, *LONG, *overrides(tiny_model, tmp_path)]  # one job, without -m
    process = begin(slurm, tmp_path, *command)
    wait_until(lambda: training(tmp_path), 300)
    [job] = jobs(slurm)
    slurm.call("scontrol", "requeue", job)
    wait_until(lambda: saved(tmp_path), 60)
    said = ended(process)
    assert "1 of 1 jobs" not in said and "failed" not in logs(tmp_path)
    assert "stopped by SIGTERM" in logs(tmp_path)
    assert [m["tries"] for m in manifests(tmp_path, "adapter")] == [2]


def saved(folder: Path) -> bool:
    return any(folder.glob("store/.work/adapter-*/scratch/checkpoints/checkpoint-*/complete"))


def manifests(folder: Path, kind: str) -> list[dict]:
    found = folder.glob(f"store/{kind}/*/manifest.json")
    return [json.loads(file.read_text()) for file in found]


def test_the_time_limit_s_signal_saves_and_queues_the_job_again(slurm, tiny_model, tmp_path):
    command = ["run", "-m", *LAUNCH, *LONG, *overrides(tiny_model, tmp_path)]
    process = begin(slurm, tmp_path, *command)
    wait_until(lambda: training(tmp_path), 300)
    [job] = jobs(slurm)
    slurm.call("scancel", "--signal=USR2", job)  # what --signal=USR2@300 has Slurm send
    wait_until(lambda: saved(tmp_path), 60)
    ended(process)
    # by itself: what it printed of that last is lost where srun ends before it
    assert "DUE TO JOB REQUEUE" in logs(tmp_path) and "failed" not in logs(tmp_path)
    assert [m["tries"] for m in manifests(tmp_path, "adapter")] == [2]


def test_a_cancelled_job_ends_the_waiting_and_is_named_with_its_command(
    slurm, tiny_model, tmp_path
):
    command = ["run", "-m", *LAUNCH, *LONG, *overrides(tiny_model, tmp_path)]
    process = begin(slurm, tmp_path, *command)
    wait_until(lambda: training(tmp_path), 300)
    slurm.call("scancel", jobs(slurm)[0])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "was lost" in said and "0 of 1 jobs are complete" in said
    assert "qaq run hydra/launcher=slurm" in said
    assert saved(tmp_path)


def test_jobs_that_slurm_refuses_are_one_sentence(slurm, tiny_model, tmp_path):
    command = ["run", "-m", *LAUNCH, "hydra.launcher.partition=nowhere", "selector=random"]
    process = begin(slurm, tmp_path, *command, *overrides(tiny_model, tmp_path))
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert "the jobs were not taken" in said and "invalid partition" in said


@pytest.mark.parametrize("stopped", [False, True])
def test_a_stage_over_two_hosts_in_a_job_of_a_sweep(slurm, tiny_model, tmp_path, stopped):
    command = [
        "run", "-m", *LAUNCH, "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1",
        "runtime.hosts=2", *LONG, *overrides(tiny_model, tmp_path),
    ]  # fmt: skip
    process = begin(slurm, tmp_path, *command)
    if stopped:
        wait_until(lambda: training(tmp_path), 300)
        slurm.call("scancel", "--signal=USR2", jobs(slurm)[0])
        wait_until(lambda: saved(tmp_path), 60)
    ended(process)
    [adapter] = manifests(tmp_path, "adapter")
    assert adapter["tries"] == 1 + stopped
