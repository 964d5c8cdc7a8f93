"""A whole experiment's runs, planned, mirrored and read back: what a W&B user does with no work."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qaq.run.compose import compose
from qaq.run.handover import hand_over, planned
from qaq.run.pipeline import Run
from qaq.run.runner import Result
from qaq.run.stage import Stage
from qaq.store.manifest import Artifact
from qaq.store.store import Store
from qaq.store.tables import read_json, write_json, write_jsonl

from ..test_end_to_end import overrides
from .reading import shown

RATIOS, SEEDS = (0.25, 0.5), (1, 2)


def made(stage: Stage, root: Path) -> Artifact:
    """An artifact with figures of its own in place of what the stage would measure."""
    folder = root / stage.kind / f"{stage.name}-{stage.key[:8]}"
    folder.mkdir(parents=True)
    number = int(stage.key[:4], 16)
    summary: dict[str, Any] = {}
    if stage.kind == "subset":
        summary = {"rows": 40, "kept": round(40 * (stage.config.ratio or 1))}
    if stage.kind == "adapter":
        lines = [{"time": 1.0, "step": s, "loss": 2 - s / 10} for s in (1, 2, 3)]
        write_jsonl(folder / "record.jsonl", lines)
    if stage.kind == "outcomes":
        rates = {f"pass_at_1_{which}": number / 2**16 for which in ("base", "plus")}
        bits = {"bits_per_byte": 1 + number / 2**16, "bits_unknown": 0}
        write_json(folder / "scores.json", {"problems": 4, **rates, **bits})
    if stage.kind == "report":
        write_json(folder / "results.json", {"verdict": ["Nothing differs."]})
    write_json(folder / "manifest.json", {"files": {}, "summary": summary, "seconds": 1.0})
    return Artifact(folder, read_json(folder / "manifest.json"))


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("groupings")
    arms = "{band:{selector:{method:rmi_band}},random:{selector:{method:random}}}"
    chosen = [o for o in overrides(tiny_model, folder) if not o.startswith("tracking")]
    config = compose(
        [
            *(o for o in chosen if not o.startswith("ratio")),
            f"arms={arms}",
            f"ratios={list(RATIOS)}",
            f"seeds={list(SEEDS)}",
            "untuned=false",
            "tracking.tags=[mine]",
            "tracking.notes=a note",
            "tracking.entity=us",
            "name=groups",
        ]
    )
    run, store = Run(config), Store(config.runtime.store)
    job = planned(run, store, report=True)
    results = [Result(s, "ran", 1.0, made(s, store.root)) for s in run.stages]
    said: list[str] = []
    assert hand_over(job, results, True, said.append), said
    reused = [replace(result, state="reused") for result in results]
    ledger = store.root / "wandb" / "mirrored.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    for left in (lines, lines[1:]):  # as if the mirror had been ended before the last of them
        ledger.write_bytes(b"".join(left))
        said.clear()
        assert hand_over(job, reused, True, said.append) == (left != lines)
        assert len(said) == (left != lines)
        ids = [json.loads(line)["id"] for line in ledger.read_bytes().splitlines()]
        assert sorted(ids) == sorted(tracked.id for tracked in job.runs)
    return [shown(folder) for folder in sorted((store.root / "wandb").glob("offline-run-*"))]


@pytest.fixture(scope="module")
def arms(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in runs if r["job_type"] == "arm"]


def test_there_is_one_run_for_each_arm_and_seed_and_one_comparison(
    runs: list[dict[str, Any]],
) -> None:
    kinds = sorted(run["job_type"] for run in runs)
    assert kinds == ["arm"] * (2 * len(RATIOS) * len(SEEDS)) + ["comparison"]
    assert {(r["group"], r["entity"], r["notes"]) for r in runs} == {("groups", "us", "a note")}
    assert all({"groups", "mine"} <= set(r["tags"]) for r in runs)


def test_runs_group_by_rule(arms: list[dict[str, Any]]) -> None:
    groups: dict[str, list[float]] = defaultdict(list)
    for run in arms:
        groups[run["config"]["rule"]].append(run["summary"]["pass_at_1_plus"])
    assert {rule: len(found) for rule, found in groups.items()} == {"rmi_band": 4, "random": 4}
    assert all(run["config"]["rule"] in run["tags"] for run in arms)


def test_ratio_plots_against_pass_at_1(arms: list[dict[str, Any]]) -> None:
    points = {(r["config"]["ratio"], r["summary"]["pass_at_1_plus"]) for r in arms}
    assert {ratio for ratio, _ in points} == set(RATIOS)
    assert len(points) == len(arms)  # each adapter has a rate of its own
    assert all(r["summary"]["subset/share"] == r["config"]["ratio"] for r in arms)


def test_parallel_coordinates_have_every_axis_as_a_number_or_a_word(
    arms: list[dict[str, Any]],
) -> None:
    for run in arms:
        config = run["config"]
        assert isinstance(config["rule"], str)
        assert isinstance(config["ratio"], float)
        assert config["seed"] in SEEDS
        assert set(config["models"]) == {"strong", "weak", "target"}
        assert all(isinstance(config[n], str) for n in ("benchmark", "data", "framing", "key"))
        numbers = ("pass_at_1_plus", "bits_per_byte", "cost/training_seconds")
        assert all(isinstance(run["summary"][name], (float, int)) for name in numbers)
        losses = [p["loss"] for p in run["history"] if "loss" in p]
        assert losses == [1.9, 1.8, 1.7]


def test_stages_have_runs_of_their_own_only_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    chosen = [o for o in overrides(tiny_model, tmp_path) if not o.startswith("tracking")]
    run = Run(compose([*chosen, "tracking.stages=true"]))
    job = planned(run, Store(run.config.runtime.store), report=True)
    assert job is not None
    kinds = {r.job_type for r in job.runs}
    assert kinds == {"arm", "comparison", *(stage.kind for stage in run.stages[:-1])}
