"""Training is followed while it runs, against a small server on this machine."""

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qaq.tracking.job import MirrorJob
from qaq.tracking.live import following

from .conftest import Server


def online(chain: Callable[..., MirrorJob], record: Path) -> MirrorJob:
    job = chain(mode="online")
    return replace(job, runs=(replace(job.runs[0], record=record), *job.runs[1:]), stages=())


def losses(server: Server, run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in server.history(run) if '"loss"' in line]


def test_losses_arrive_while_the_stage_still_writes(
    chain: Callable[..., MirrorJob],
    tmp_path: Path,
    wandb_server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    out = tmp_path / "work" / "out"
    record = out / "record.jsonl"
    job = online(chain, record)
    with following(job):
        out.mkdir(parents=True)
        with record.open("a") as file:
            for step, loss in ((1, 2.0), (2, 1.5)):
                file.write(json.dumps({"time": 1.0, "step": step, "loss": loss}) + "\n")
                file.flush()
                limit = time.monotonic() + 60
                while loss not in losses(wandb_server, job.runs[0].id):
                    assert time.monotonic() < limit, (job.dir / "mirror.log").read_text()
                    time.sleep(0.2)
            file.write(json.dumps({"time": 1.0, "step": 3, "loss": 1.25}) + "\n")
        out.rename(tmp_path / "published")  # as the store does
    assert losses(wandb_server, job.runs[0].id) == [2.0, 1.5, 1.25]


def test_a_server_that_is_away_neither_fails_nor_slows_what_is_followed(
    chain: Callable[..., MirrorJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    record = tmp_path / "record.jsonl"
    with following(online(chain, record)):
        started = time.monotonic()
        record.write_text('{"step": 1, "loss": 2.0}\n')
        assert time.monotonic() - started < 1
        log = tmp_path / "store" / "wandb" / "mirror.log"
        while "Traceback" not in log.read_text():  # it tried, and failed by itself
            assert time.monotonic() - started < 120
            time.sleep(0.2)
    assert record.read_text() == '{"step": 1, "loss": 2.0}\n'


def test_a_follower_ends_with_the_process_that_started_it(
    chain: Callable[..., MirrorJob], tmp_path: Path
) -> None:
    job = online(chain, tmp_path / "never.jsonl")
    code = (
        "import sys, pickle, os\n"
        "from qaq.tracking import mirror\n"
        "follower = mirror.start(pickle.load(sys.stdin.buffer), 'qaq.tracking.live')\n"
        "print(follower.pid, flush=True)\n"
        "import time; time.sleep(3)\n"  # so that it has seen its parent
        "os._exit(9)\n"
    )

    parent = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(job), capture_output=True, check=False
    )
    follower = Path("/proc") / parent.stdout.decode().strip()
    limit = time.monotonic() + 30
    while follower.exists() and time.monotonic() < limit:
        time.sleep(0.2)
    assert not follower.exists()


def test_offline_nothing_is_followed(
    chain: Callable[..., MirrorJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaq.tracking.mirror.start", lambda *a: pytest.fail("started"))
    job = replace(online(chain, tmp_path / "record.jsonl"), mode="offline")
    with following(job), following(None):
        pass
