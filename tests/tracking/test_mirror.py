"""Mirroring into offline W&B runs, read back with wandb's own reader."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qaq.tracking.mirror import environment, finish, ledger, start
from qaq.tracking.replay import MirrorJob, run_id

from .conftest import CHAIN, LOSSES, STEP, build_chain, key_of

Chain = Callable[..., MirrorJob]


def mirrored(job: MirrorJob, seconds: float = 60) -> bool:
    return finish(start(job), seconds)


def log_of(job: MirrorJob) -> str:
    return (job.dir / "mirror.log").read_text()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> MirrorJob:
    """A chain of stages, mirrored."""
    job = build_chain(tmp_path_factory.mktemp("done"))
    assert mirrored(job), log_of(job)
    return job


def records(job: MirrorJob, kind: str) -> list[dict[str, Any]]:
    """Every record of the run of one stage, as wandb's own reader tells them."""
    (folder,) = job.dir.glob(f"offline-run-*-{run_id(job.experiment, key_of(kind))}")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    told = subprocess.run(
        command, env=environment(job.dir), capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in told.stdout.splitlines()]


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r[kind] for r in found if r["type"] == kind]


@pytest.mark.parametrize(("kind", "inputs"), CHAIN)
def test_a_stage_becomes_a_run_of_its_experiment_and_kind_with_lineage(
    done: MirrorJob, kind: str, inputs: tuple[str, ...]
) -> None:
    found = records(done, kind)
    (run,) = of_type(found, "run")
    assert (run["run_group"], run["job_type"], run["project"]) == ("small", kind, "qaq")
    assert run["run_id"] == run_id("small", key_of(kind))
    config = run["config"]["update"]
    assert config["train"] == {"epochs": 3}
    assert config["artifact"]["key"] == key_of(kind)
    artifacts = of_type(found, "artifact")
    used = {a["type"] for a in artifacts if a.get("use_after_commit")}
    made = {a["type"] for a in artifacts if not a.get("use_after_commit")} - {"run_table"}
    assert (used, made) == (set(inputs), {kind})
    names = {e["path"] for a in artifacts for e in a["manifest"]["contents"]}
    assert not [name for name in names if "safetensors" in name]


def test_the_loss_curve_and_the_summary_arrive_as_recorded(done: MirrorJob) -> None:
    found = records(done, "adapter")
    points = [h["item"] for h in of_type(found, "history")]
    assert [(p["_step"], p["loss"]) for p in points if "loss" in p] == [
        (i + 1, loss) for i, loss in enumerate(LOSSES)
    ]
    assert all(STEP.items() <= p.items() for p in points if "loss" in p)
    summary: dict[str, Any] = {}
    for told in of_type(found, "summary"):
        summary |= told["update"]
    assert (summary["rows"], summary["seconds"], summary["device"]) == (10, 1.5, "cpu")


def test_the_comparison_run_has_the_table_and_the_figure(done: MirrorJob) -> None:
    found = records(done, "report")
    logged: dict[str, Any] = {}
    for point in of_type(found, "history"):
        logged |= point["item"]
    assert logged["tables/results._type"] == "table-file"
    assert (logged["tables/results.nrows"], logged["tables/results.ncols"]) == (2, 3)
    assert logged["figures/quality._type"] == "image-file"
    (artifact,) = [a for a in of_type(found, "artifact") if a["type"] == "report"]
    names = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert names == {"manifest.json", "index.html", "results.json"}


def test_mirroring_twice_adds_nothing(done: MirrorJob) -> None:
    before = sorted(done.dir.rglob("*.wandb"))
    assert mirrored(done), log_of(done)
    assert sorted(done.dir.rglob("*.wandb")) == before
    assert len(before) == len(CHAIN) == len(list(ledger(done.dir)))


def test_a_mirror_killed_in_the_middle_starts_that_run_afresh(chain: Chain) -> None:
    job = chain()
    half = job.dir / f"offline-run-20200101_000000-{run_id('small', key_of('pairs'))}"
    half.mkdir(parents=True)
    (half / "torn.wandb").write_bytes(b"torn")
    assert mirrored(replace(job, stages=job.stages[:1])), log_of(job)
    assert not half.exists()
    assert len(list(job.dir.glob("offline-run-*"))) == 1


def test_a_broken_stage_is_logged_and_the_others_are_mirrored(chain: Chain) -> None:
    job = chain()
    (job.stages[2].folder / "manifest.json").write_text("not json")
    assert not mirrored(job)
    assert "subset one:" in log_of(job)
    # The adapter and the report used the subset, so they fail with it; the rest is there.
    assert {line["kind"] for line in ledger(job.dir)} == {"pairs", "scores", "outcomes"}


def test_a_mirror_that_hangs_is_ended_at_its_time_limit(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    started = time.monotonic()
    assert not finish(process, seconds=0.5)
    assert time.monotonic() - started < 5
    assert process.returncode is not None


def test_an_unreachable_server_leaves_offline_runs_for_later(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    job = chain(mode="online")
    assert not mirrored(replace(job, stages=job.stages[:2]))
    assert {line["mode"] for line in ledger(job.dir)} == {"offline"}
    assert len(list(ledger(job.dir))) == 2


def test_wandb_missing_is_a_line_in_the_log(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "wandb.py").write_text("raise ImportError('wandb is not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    job = chain()
    assert not mirrored(job)
    assert "wandb is not installed" in log_of(job)


def test_nothing_is_written_to_the_home_folder_and_nothing_is_printed(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [n for n in os.environ if n.startswith("XDG_")]:
        monkeypatch.delenv(name)
    job = chain()
    assert mirrored(replace(job, stages=job.stages[-2:])), log_of(job)
    assert [p for p in home.rglob("*") if p.is_file()] == []
    assert log_of(job) == ""


def test_a_run_id_in_the_users_environment_does_not_merge_the_stages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not {"WANDB_RUN_ID", "WANDB_MODE"} & set(environment(Path("store/wandb")))
