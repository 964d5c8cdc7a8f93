"""The stage as its own processes: shards, kills, several ranks, and what a table says of itself."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from qaq.host.errors import DataError, StageError
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.run.launch import launcher
from qaq.scoring import stage
from qaq.scoring.config import ScoresStage
from qaq.scoring.engine import Engine
from qaq.store import jobs
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS as PAIRS_SCHEMA
from qaq.store.tables import SCORES, read_table, write_rows

from .conftest import PAIRS, Tiny

ROWS = 240
SHARD = 8


def pairs(rows=ROWS):
    chance = random.Random(0)
    made = []
    for i in range(rows):
        question, answer = PAIRS[i % len(PAIRS)]
        made.append(
            {
                "row_id": f"{i:016x}",
                "question": f"{question} ({i})",
                "answer": answer * chance.randint(1, 4),
                "source": "test",
                "defect": None,
            }
        )
    return made


@pytest.fixture
def make_job(tiny_model: Path, tmp_path: Path) -> Callable[..., Job]:
    def make(name="work", rows=None, max_failed_share=0.01, **runtime) -> Job:
        folder = tmp_path / name
        for part in ("pairs", "out", "scratch"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        write_rows(
            folder / "pairs" / "pairs.parquet", pairs() if rows is None else rows, PAIRS_SCHEMA
        )
        framing = {"name": "chat", "kind": "chat", "max_failed_share": max_failed_share}
        job = Job(
            kind="scores",
            module="qaq.scoring.stage",
            name=name,
            key="0" * 64,
            config={
                "model": {"name": "tiny", "id": str(tiny_model), "dtype": "float32"},
                "framing": framing,
                "system_prompt": None,
            },
            inputs={"pairs": folder / "pairs"},
            out=folder / "out",
            scratch=folder / "scratch",
            runtime=RuntimeConfig(
                **{"device": "cpu", "shard_rows": SHARD, "token_budget": 512} | runtime
            ),
        )
        jobs.save(job, folder / "job.json")
        return job

    return make


def start(job: Job, *launcher: str) -> subprocess.Popen:
    command = [
        *(launcher or [sys.executable]),
        "-m",
        "qaq.run.worker",
        str(job.out.parent / "job.json"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, env=environment)


def two_processes() -> list[str]:
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    launch = [accelerate, "launch", "--num_processes", "2", "--num_machines", "1", "--multi_gpu"]
    return [*launch, "--mixed_precision", "no", "--dynamo_backend", "no"]


def shards(job: Job) -> set[str]:
    return {p.name for p in (job.out / "shards").glob("part-*.parquet")}


def until_some_are_done(job: Job, process: subprocess.Popen, more_than: int) -> None:
    deadline = time.monotonic() + 120
    while len(shards(job)) <= more_than and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def child(process: subprocess.Popen, rank: int) -> int:
    """The process id of a rank under a launcher."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    return next(
        int(pid)
        for pid in listed
        if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )


def table(job: Job) -> list[dict]:
    return read_table(job.out / "shards", SCORES).to_pylist()


def largest_gap(one: list[dict], two: list[dict]) -> float:
    """In nats per token; infinite where anything but a sum differs."""
    gap = 0.0
    for a, b in zip(one, two, strict=True):
        if {k: v for k, v in a.items() if "nll" not in k} != {
            k: v for k, v in b.items() if "nll" not in k
        }:
            return math.inf
        for span in ("q", "q_given_a", "a", "a_given_q"):
            gap = max(gap, abs(a[f"nll_{span}"] - b[f"nll_{span}"]) / a[f"tokens_{span}"])
    return gap


def test_every_row_has_one_line_in_the_pool_s_order_whatever_the_shards(make_job):
    job = make_job("one", shard_rows=1000)
    assert stage.run(job) == {"rows": ROWS, "unscored": 0, "truncated": 0}
    whole = table(job)
    assert [row["row_id"] for row in whole] == [row["row_id"] for row in pairs()]
    cut = make_job("two", shard_rows=7, token_budget=100)
    stage.run(cut)
    assert len(shards(cut)) == math.ceil(ROWS / 7)
    assert largest_gap(whole, table(cut)) < 1e-5


def test_the_progress_of_a_shard_is_the_share_of_its_tokens(tiny: Tiny):
    """So the time left is true from the first batch on; whole rows end with the last ones."""
    rows, tasks = stage.tokenise(pairs(60), tiny.framer("chat"))
    engine = Engine(tiny.model)
    total = sum(task.length for task in tasks)
    seen = []

    class Recorded(Progress):
        def update(self, items, tokens=0):
            super().update(items, tokens)
            seen.append((self.count, self.tokens))

    shown = Recorded("scoring", 60, "rows")
    stage.score_tasks(rows, tasks, engine, 512, shown)
    assert len(seen) > 10
    assert all(abs(count / 60 - tokens / total) <= 1 / 60 for count, tokens in seen)
    assert (shown.count, shown.tokens) == (60, total)


def test_finished_shards_are_not_touched_again(make_job):
    job = make_job()
    stage.run(job)
    expected = table(job)
    kept, lost = job.out / "shards" / "part-000003.parquet", job.out / "shards"
    before = kept.stat().st_mtime_ns
    (lost / "part-000007.parquet").unlink()
    (lost / ".part-000007.parquet.1.tmp").write_bytes(b"torn")  # as a killed writer leaves it
    stage.run(job)
    assert kept.stat().st_mtime_ns == before
    assert table(job) == expected


@pytest.mark.parametrize("fault", ["torn", "other rows", "empty"])
def test_a_damaged_shard_is_named_and_made_again(make_job, capsys, fault):
    job = make_job("damaged")
    stage.run(job)
    before = table(job)
    first, bad = (stage.shard_path(job.out / "shards", n) for n in (0, 1))
    content = {"torn": bad.read_bytes()[:100], "other rows": first.read_bytes(), "empty": b""}
    bad.write_bytes(content[fault])
    stage.run(job)
    assert str(bad) in capsys.readouterr().err
    assert table(job) == before


def test_too_many_rows_without_a_score_fail_the_stage_with_the_counts(make_job):
    rows = pairs(40)
    for row in rows[:2]:
        row["answer"] = ""
    with pytest.raises(DataError, match=r"2 of 40 .* 2 x the answer has no tokens"):
        stage.run(make_job("fails", rows))
    assert stage.run(make_job("allowed", rows, max_failed_share=0.05))["unscored"] == 2


def test_a_rank_waits_for_the_others_shards(make_job, monkeypatch):
    job = make_job(rows=pairs(32))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert stage.run(job) == {}
    assert shards(job) == {"part-000001.parquet", "part-000003.parquet"}
    monkeypatch.setenv("RANK", "0")
    assert stage.run(job)["rows"] == 32


@pytest.mark.slow
def test_a_process_killed_again_and_again_leaves_the_same_table(make_job):
    whole = make_job("whole")
    assert start(whole).wait() == 0
    killed = make_job("killed")
    chance = random.Random(3)
    done = 0
    for _ in range(4):
        process = start(killed)
        until_some_are_done(killed, process, done)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed: more rows"
        assert len(shards(killed)) > done
        done = len(shards(killed))
    assert done < ROWS // SHARD
    assert start(killed).wait() == 0
    assert table(killed) == table(whole)
    readable = [pq.read_table(p).num_rows for p in (killed.out / "shards").glob("part-*.parquet")]
    assert readable == [SHARD] * (ROWS // SHARD)


@pytest.mark.slow
def test_two_processes_give_the_table_of_one_even_if_a_rank_dies_on_the_way(make_job):
    one = make_job("one")
    assert start(one).wait() == 0
    two = make_job("two")
    process = start(two, *two_processes())
    until_some_are_done(two, process, 2)
    os.kill(child(process, rank=1), signal.SIGKILL)
    assert process.wait() != 0
    left = shards(two)
    assert 2 < len(left) < ROWS // SHARD
    times = {name: (two.out / "shards" / name).stat().st_mtime_ns for name in left}
    assert start(two, *two_processes()).wait() == 0
    assert table(two) == table(one)
    assert times == {name: (two.out / "shards" / name).stat().st_mtime_ns for name in left}
    records = {p.name for p in two.out.glob("record*.jsonl")}
    assert records == {"record.jsonl", "record-1.jsonl"}, "both ranks scored shards"


SRUN = """#!/bin/sh
# Slurm's srun on one machine: a task for each node, told its number
for option; do
  case "$option" in
    --nodes=*) nodes=${option#--nodes=}; shift ;;
    --*) shift ;;
    *) break ;;
  esac
done
node=0
while [ $node -lt "$nodes" ]; do
  SLURM_NODEID=$node "$@" & tasks="$tasks $!"
  node=$((node + 1))
done
for task in $tasks; do wait "$task" || failed=1; done
exit ${failed:-0}
"""


@pytest.mark.slow
def test_two_hosts_that_srun_reaches_give_the_table_of_one(make_job, tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    one, two = make_job("one"), make_job("two", hosts=2)
    assert start(one).wait() == 0
    launch = launcher(ScoresStage.STAGE, two.runtime)
    assert start(two, *launch).wait() == 0
    assert table(two) == table(one)
    assert {p.name for p in two.out.glob("record*.jsonl")} == {"record.jsonl", "record-1.jsonl"}


def test_more_hosts_than_the_job_has_nodes_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    with pytest.raises(StageError, match=r"runtime\.hosts=2 needs a Slurm job of so many nodes"):
        launcher(ScoresStage.STAGE, RuntimeConfig(hosts=2))


def test_hosts_without_slurm_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(StageError, match=r"runtime\.hosts=3 needs Slurm's srun") as caught:
        launcher(ScoresStage.STAGE, RuntimeConfig(hosts=3))
    assert caught.value.exit_code == 2
