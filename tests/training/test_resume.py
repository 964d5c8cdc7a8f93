"""Killed anywhere, a run continues to the same adapter."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qaq.store import jobs
from qaq.store.jobs import Job
from qaq.store.tables import read_jsonl
from qaq.training import stage
from qaq.training.checkpoints import COMPLETE, last_checkpoint, lost, mark

MakeJob = Callable[..., Job]
ADAPTER = "adapter_model.safetensors"
WORKERS = Path(__file__).with_name("workers.py")


def losses(job: Job) -> list[float]:
    return [line["loss"] for line in read_jsonl(job.out / "training.jsonl")]


def run_worker(job: Job, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "job.json"
    jobs.save(job, path)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "qaq.run.worker", str(path)], env=environment)


def test_killed_in_the_middle_it_continues_to_the_same_adapter(
    make_job: MakeJob, tmp_path: Path
) -> None:
    shape = {"rows": 40, "epochs": 16, "checkpoint_steps": 3}
    torch.set_num_threads(1)
    whole = make_job("whole", **shape)
    stage.run(whole)
    killed = make_job("killed", **shape)
    checkpoints = killed.scratch / "checkpoints"
    process = run_worker(killed, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob(f"checkpoint-*/{COMPLETE}")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.out / ADAPTER).exists()
    reached = last_checkpoint(checkpoints)
    assert reached is not None
    assert int(reached.name.split("-")[1]) < 80
    torn = checkpoints / "checkpoint-999"  # killed in the middle of saving
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    assert run_worker(killed, tmp_path / "killed").wait() == 0
    assert (killed.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()
    assert losses(killed) == losses(whole)
    summary = json.loads((tmp_path / "killed" / "done.json").read_text())["summary"]
    assert summary["steps"] == 80


@pytest.mark.parametrize("other", ["checkpoints-deepspeed-8", "checkpoints-fsdp"])
def test_the_checkpoints_of_another_way_to_share_the_model_are_not_gone_on_from(
    make_job: MakeJob, capfd: pytest.CaptureFixture[str], other: str
) -> None:
    """Transformers would take DeepSpeed's and begin the optimiser and the schedule anew."""
    shape = {"rows": 24, "epochs": 2, "checkpoint_steps": 2, "schedule": "linear"}
    whole, changed = make_job("whole", **shape), make_job("changed", **shape)
    stage.run(whole)
    stage.run(make_job("changed", **shape))
    (changed.scratch / "checkpoints").rename(changed.scratch / other)
    capfd.readouterr()
    stage.run(changed)
    said = f"training begins again: an earlier try shared the model in another way ({other})"
    assert said in capfd.readouterr().err
    one, two = (list(read_jsonl(job.out / "training.jsonl")) for job in (whole, changed))
    assert [x["learning_rate"] for x in two] == [x["learning_rate"] for x in one]
    assert (changed.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()


def test_each_way_to_share_the_model_has_checkpoints_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qaq.training.processes import checkpoints

    def named(**launched: str) -> list[str]:
        with monkeypatch.context() as environment:
            for name in ("DEEPSPEED", "FSDP"):
                environment.setenv(f"ACCELERATE_USE_{name}", launched.get(name, "false"))
            return [checkpoints(tmp_path, processes).name for processes in (1, 2, 8)]

    plain, fsdp, deepspeed = named(), named(FSDP="true"), named(DEEPSPEED="true")
    assert (set(plain), set(fsdp)) == ({"checkpoints"}, {"checkpoints-fsdp"})
    assert len(set(deepspeed)) == 3 and not set(deepspeed) & {*plain, *fsdp}


def test_checkpoints_are_pruned(make_job: MakeJob) -> None:
    job = make_job(rows=40, epochs=2, checkpoint_steps=1)
    stage.run(job)
    kept = sorted(p.name for p in (job.scratch / "checkpoints").glob("checkpoint-*"))
    assert kept == ["checkpoint-10", "checkpoint-9"]


def saved(folder: Path, step: int) -> Path:
    """A checkpoint as the Trainer leaves it, a folder of one process's states included."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "global_step").mkdir(parents=True)
    for name in ("optimizer.pt", "rng_state_1.pth", "global_step/zero_1.pt"):
        (checkpoint / name).write_bytes(bytes(100 + step))
    return checkpoint


def test_the_steps_say_which_checkpoints_stay_whatever_the_clock_says(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        checkpoint = saved(tmp_path, step)
        mark(checkpoint)
        ahead = time.time() + 3600 * (11 - step)  # the clock is set back, again and again
        os.utime(checkpoint, (ahead, ahead))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-11"
    assert lost(tmp_path) == []


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state_1.pth", "global_step/zero_1.pt"])
@pytest.mark.parametrize("left", [None, 0, 50])  # bytes of the file; None: it is gone
def test_a_checkpoint_that_lost_a_file_or_its_end_is_none(
    tmp_path: Path, name: str, left: int | None
) -> None:
    for step in (3, 6):
        mark(saved(tmp_path, step))
    file = tmp_path / "checkpoint-6" / name
    file.unlink() if left is None else os.truncate(file, left)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert lost(tmp_path) == ["checkpoint-6"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: (p[-1] / "optimizer.pt").unlink(), "goes on from checkpoint-4: the files"),
        (lambda p: [(q / COMPLETE).write_bytes(b"") for q in p], "begins again: the files of"),
    ],
)  # fmt: skip
def test_from_damaged_checkpoints_the_same_adapter_comes_and_they_are_named(
    make_job: MakeJob,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[list[Path]], object],
    said: str,
) -> None:
    shape = {"rows": 24, "epochs": 2, "checkpoint_steps": 2}
    whole, torn = make_job("whole", **shape), make_job("torn", **shape)
    stage.run(whole)
    stage.run(torn)
    damage(sorted((torn.scratch / "checkpoints").iterdir()))
    capfd.readouterr()
    stage.run(torn)
    assert f"training {said}" in capfd.readouterr().err
    assert (torn.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()


# (where it dies, at which call, the checkpoint that the next attempt may rest on)
DEATHS = [
    ("qaq.training.stage:build", 1, None),
    ("qaq.training.trainer:pack", 6, None),  # between two micro-batches of the second step
    ("peft.peft_model:safe_save_file", 1, None),  # a checkpoint without weights
    ("torch:save", 2, None),  # a checkpoint with weights and half of its state
    ("qaq.training.trainer:Recorder.on_save", 1, None),  # a checkpoint that nobody marked
    ("qaq.training.trainer:pack", 15, 3),
    ("qaq.training.trainer:Recorder.on_save", 2, 6),
    ("qaq.training.stage:publish", 1, 10),  # trained, not published
    ("qaq.training.card:card", 1, 10),  # published but for its card
]


@pytest.mark.slow
def test_killed_at_every_kind_of_moment_it_ends_with_the_same_bytes(make_job: MakeJob) -> None:
    torch.set_num_threads(1)
    shape = {"rows": 40, "epochs": 2, "checkpoint_steps": 3, "runtime": {"micro_batch": 2}}
    whole = make_job("whole", **shape)
    stage.run(whole)
    job = make_job("killed", **shape)
    path = job.out.parent / "job.json"
    jobs.save(job, path)
    for point, count, expected in DEATHS:
        environment = os.environ | {"POINT": point, "COUNT": str(count), "OMP_NUM_THREADS": "1"}
        died = subprocess.run([sys.executable, WORKERS, "kill", path], env=environment, check=False)
        assert died.returncode == -signal.SIGKILL, point
        assert not (job.out.parent / "done.json").exists()
        reached = last_checkpoint(job.scratch / "checkpoints")
        assert (reached and int(reached.name.split("-")[1])) == expected, point
    last = [sys.executable, "-m", "qaq.run.worker", str(path)]
    subprocess.run(last, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    assert (job.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()
    one, two = (list(read_jsonl(j.out / "training.jsonl")) for j in (whole, job))
    assert [x["loss"] for x in one] == [x["loss"] for x in two]
    assert [x["step"] for x in two] == list(range(1, 11))
