"""Killed anywhere, a run continues to the same adapter."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qaq import job as jobs
from qaq.artifacts import read_jsonl
from qaq.job import Job
from qaq.training import stage, trainer

MakeJob = Callable[..., Job]
ADAPTER = "adapter_model.safetensors"
WORKERS = Path(__file__).with_name("workers.py")

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
        reached = trainer.last_checkpoint(job.scratch / "checkpoints")
        assert (reached and int(reached.name.split("-")[1])) == expected, point
    last = [sys.executable, "-m", "qaq.worker", str(path)]
    subprocess.run(last, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    assert (job.out / ADAPTER).read_bytes() == (whole.out / ADAPTER).read_bytes()
    one, two = (list(read_jsonl(j.out / "training.jsonl")) for j in (whole, job))
    assert [x["loss"] for x in one] == [x["loss"] for x in two]
    assert [x["step"] for x in two] == list(range(1, 11))
