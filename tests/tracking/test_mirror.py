"""Mirroring into offline W&B runs, read back with wandb's own reader."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qaq.tracking import mirror
from qaq.tracking.job import MirrorJob
from qaq.tracking.mirror import LEDGER, environment, finish, ledger, start

from .conftest import LOSSES, STEP, build_chain, key_of
from .reading import shown

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


def run_of(job: MirrorJob, job_type: str) -> dict[str, Any]:
    (wanted,) = [run for run in job.runs if run.job_type == job_type]
    (folder,) = job.dir.glob(f"offline-run-*-{wanted.id}")
    return shown(folder)


@pytest.mark.parametrize(
    ("job_type", "used", "made"),
    [
        ("arm", {"pairs", "scores"}, {"subset", "adapter", "outcomes"}),
        ("comparison", {"pairs", "scores", "subset", "adapter", "outcomes"}, {"report"}),
        ("scores", {"pairs"}, {"scores"}),
    ],
)
def test_a_run_has_its_group_config_tags_and_lineage(
    done: MirrorJob, job_type: str, used: set[str], made: set[str]
) -> None:
    run = run_of(done, job_type)
    (wanted,) = [r for r in done.runs if r.job_type == job_type]
    assert (run["group"], run["job_type"], run["project"]) == ("small", job_type, "qaq")
    assert wanted.config.items() <= run["config"].items()
    assert run["tags"] == ["small", job_type]
    artifacts = run["artifacts"]
    assert {a["type"] for a in artifacts if a.get("use_after_commit")} == used
    found = {a["type"] for a in artifacts if not a.get("use_after_commit")}
    assert found - {"run_table"} == made


def test_an_arms_run_has_its_curve_its_subset_its_rates_and_its_costs(done: MirrorJob) -> None:
    run = run_of(done, "arm")
    points = [p for p in run["history"] if "loss" in p]
    assert [(p["_step"], p["loss"]) for p in points] == [
        (i + 1, loss) for i, loss in enumerate(LOSSES)
    ]
    assert all(STEP.items() <= p.items() for p in points)
    summary = run["summary"]
    assert summary["pass_at_1_plus"] == summary["mini/pass_at_1_plus"] == 0.25
    assert (summary["bits_per_byte"], summary["subset/share"]) == (0.75, 0.4)
    assert summary["subset/reasons/dropped: lower"] == 6
    # one table of scores was read, one adapter trained, one suite judged: 1.5 s each
    costs = [summary[f"cost/{name}_seconds"] for name in ("scoring", "training", "evaluation")]
    assert costs == [1.5, 1.5, 1.5]


@pytest.mark.parametrize("way", ["reference", "file"])
def test_the_weights_are_referred_to_or_sent_as_configured(chain: Chain, way: str) -> None:
    job = chain(artifacts=way)
    assert mirrored(replace(job, runs=job.runs[:1])), log_of(job)
    (adapter,) = [a for a in run_of(job, "arm")["artifacts"] if a["type"] == "adapter"]
    (weights,) = [e for e in adapter["manifest"]["contents"] if e["path"] == "adapter.safetensors"]
    assert int(weights["size"]) == 7000
    assert ("ref" in weights, "local_path" in weights) == (way == "reference", way == "file")


def test_the_comparison_run_has_verdict_table_and_figure(done: MirrorJob) -> None:
    run = run_of(done, "comparison")
    logged: dict[str, Any] = {}
    for point in run["history"]:
        logged |= point
    assert logged["tables/results._type"] == "table-file"
    assert (logged["tables/results.nrows"], logged["tables/results.ncols"]) == (2, 3)
    assert logged["figures/quality._type"] == "image-file"
    assert run["summary"]["verdict"] == "Nothing differs."
    (artifact,) = [a for a in run["artifacts"] if a["type"] == "report"]
    names = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert names == {"manifest.json", "index.html", "results.json"}
    (page,) = [e for e in artifact["manifest"]["contents"] if e["path"] == "index.html"]
    assert "ref" in page  # it shows rows of the pool, which are not sent unless asked for


def test_mirroring_twice_adds_nothing(done: MirrorJob) -> None:
    before = sorted(done.dir.rglob("*.wandb"))
    assert mirrored(done), log_of(done)
    assert sorted(done.dir.rglob("*.wandb")) == before
    assert len(before) == len(done.runs) == len(list(ledger(done.dir)))


def test_a_torn_line_of_the_ledger_hides_no_other_and_is_not_added_to(chain: Chain) -> None:
    job = chain()
    assert mirrored(replace(job, runs=job.runs[2:])), log_of(job)
    file = job.dir / LEDGER
    line = file.read_bytes()
    file.write_bytes(b'{"id": "x", "mo' + line + line + line[:-9])  # as an earlier release left it
    assert {x["id"] for x in ledger(job.dir)} == {job.runs[2].id}
    assert mirrored(job), log_of(job)
    assert {x["id"] for x in ledger(job.dir)} == {run.id for run in job.runs}
    assert len(list(job.dir.glob("offline-run-*"))) == len(job.runs)


def test_makers_are_sent_before_users(done: MirrorJob) -> None:
    depth = {line["type"]: line["depth"] for line in ledger(done.dir)}
    assert depth == {"scores": 0, "arm": 1, "comparison": 2}


def test_a_mirror_killed_in_the_middle_starts_that_run_afresh(chain: Chain) -> None:
    job = chain()
    half = job.dir / f"offline-run-20200101_000000-{job.runs[0].id}"
    half.mkdir(parents=True)
    (half / "torn.wandb").write_bytes(b"torn")
    assert mirrored(replace(job, runs=job.runs[:1])), log_of(job)
    assert not half.exists()
    assert len(list(job.dir.glob("offline-run-*"))) == 1


def test_a_broken_stage_is_logged_and_the_other_runs_are_mirrored(chain: Chain) -> None:
    job = chain()
    (broken,) = [s for s in job.stages if s.key == key_of("subset")]
    (broken.folder / "manifest.json").write_text("not json")
    assert not mirrored(job)
    assert "arm arm:" in log_of(job)
    # The comparison used the subset, so it fails with it; the rest is there.
    assert {line["type"] for line in ledger(job.dir)} == {"scores"}


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
    assert not mirrored(replace(job, runs=job.runs[:2]))
    assert {line["mode"] for line in ledger(job.dir)} == {"offline"}
    assert len(list(ledger(job.dir))) == 2


def test_what_a_server_that_hangs_did_not_take_in_time_is_kept_offline(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "600")
    monkeypatch.setattr(mirror, "patience", lambda job: 8.0 if job.mode == "online" else 100.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        job = chain(mode="online")
        assert not mirror.copied(job)
    kept = list(ledger(job.dir))
    assert {line["id"] for line in kept} == {run.id for run in job.runs}
    assert {line["mode"] for line in kept} == {"offline"}


def test_wandb_missing_is_a_line_in_the_log(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "wandb.py").write_text("raise ImportError('wandb is not installed')\n")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])
    )
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
    assert mirrored(job), log_of(job)
    assert [p for p in home.rglob("*") if p.is_file()] == []
    assert log_of(job) == ""


def test_a_run_id_in_the_users_environment_does_not_merge_the_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not {"WANDB_RUN_ID", "WANDB_MODE"} & set(environment(Path("store/wandb")))
