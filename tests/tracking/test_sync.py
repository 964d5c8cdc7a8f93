"""Sending offline runs: the real `wandb sync` against a small server on this machine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qaq.host.errors import DataError
from qaq.tracking.mirror import finish, start
from qaq.tracking.replay import MirrorJob, run_id
from qaq.tracking.sync import sync

from .conftest import LOSSES, Server, key_of


def test_runs_are_sent_once_with_group_job_type_curve_and_lineage(
    chain: Callable[..., MirrorJob], wandb_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = chain()
    chosen = tuple(s for s in job.stages if s.kind in ("subset", "adapter"))
    job = chain(stages=chosen, report=None)
    assert finish(start(job)), (job.dir / "mirror.log").read_text()
    monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)

    first = sync(job.dir.parent)
    assert (len(first.sent), first.before, first.failed) == (2, (), ())
    subset, adapter = (run_id("small", key_of(kind)) for kind in ("subset", "adapter"))
    told = [v for v in wandb_server.variables("UpsertBucket") if v["groupName"]]
    assert {v["name"]: (v["groupName"], v["jobType"]) for v in told} == {
        subset: ("small", "subset"),
        adapter: ("small", "adapter"),
    }
    lines = [
        line
        for chunk in wandb_server.streams[adapter]
        for line in chunk.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
    ]
    assert sum('"loss"' in line for line in lines) == len(LOSSES)
    made = [v["input"] for v in wandb_server.variables("CreateArtifact")]
    makers = {v["artifactTypeName"]: v["runName"] for v in made if v["runName"]}
    assert makers == {"subset": subset, "adapter": adapter}
    digest = next(v["digest"] for v in made if v["artifactTypeName"] == "subset")
    used = [v["input"] for v in wandb_server.variables("UseArtifact")]
    assert [(v["runName"], v["artifactID"]) for v in used] == [(adapter, digest)]

    told_before = len(wandb_server.operations)
    second = sync(job.dir.parent)
    assert (second.sent, len(second.before)) == ((), 2)
    assert len(wandb_server.operations) == told_before


def test_a_store_without_offline_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no offline runs; run something"):
        sync(tmp_path)
