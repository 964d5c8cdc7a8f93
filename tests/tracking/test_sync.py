"""Sending offline runs: the real `wandb sync` against a small server on this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qaq.host.errors import DataError
from qaq.tracking.job import MirrorJob
from qaq.tracking.mirror import finish, start
from qaq.tracking.sync import sync

from .conftest import LOSSES, Server


def test_runs_are_sent_once_with_group_job_type_curve_and_lineage(
    chain: Callable[..., MirrorJob], wandb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = chain()
    arm, _, scores = job.runs
    job = chain(runs=(arm, scores))
    assert finish(start(job)), (job.dir / "mirror.log").read_text()
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)

    first = sync(job.dir.parent)
    assert (len(first.sent), first.before, first.failed) == (2, (), ())
    asked = [v for v in wandb_server.variables("UpsertBucket") if v["groupName"]]
    assert {v["name"]: (v["groupName"], v["jobType"]) for v in asked} == {
        arm.id: ("small", "arm"),
        scores.id: ("small", "scores"),
    }
    assert sum('"loss"' in line for line in wandb_server.history(arm.id)) == len(LOSSES)
    made = [v["input"] for v in wandb_server.variables("CreateArtifact")]
    makers = {v["artifactTypeName"]: v["runName"] for v in made if v["runName"]}
    assert makers == {
        "scores": scores.id,
        **dict.fromkeys(("subset", "adapter", "outcomes"), arm.id),
    }
    digest = next(v["digest"] for v in made if v["artifactTypeName"] == "scores")
    used = [v["input"] for v in wandb_server.variables("UseArtifact")]
    assert (arm.id, digest) in [(v["runName"], v["artifactID"]) for v in used]

    asked_before = len(wandb_server.operations)
    second = sync(job.dir.parent)
    assert (second.sent, len(second.before)) == ((), 2)
    assert len(wandb_server.operations) == asked_before


def test_a_store_without_offline_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no offline runs; run something"):
        sync(tmp_path)
