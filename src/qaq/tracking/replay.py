"""One finished stage as one Weights & Biases run.

Group = experiment, job type = kind of stage. The id is made from the experiment and the artifact's
key, so replaying again changes nothing. Artifacts carry the lineage (pool -> scores -> subset ->
adapter -> outcomes) by their manifests, which hold the SHA-256 of every file; the files themselves,
weights above all, stay where they are. The report's run is the comparison: its tables and figures.
"""

import csv
import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qaq.store.tables import read_json, read_jsonl

SHOWN = ("results", "tests_pass", "tests_bits", "retention", "separation", "paper")  # tables


@dataclass(frozen=True)
class FinishedStage:
    """One finished stage: its artifact folder and the keys of its inputs by role."""

    kind: str
    name: str
    key: str
    folder: Path
    inputs: dict[str, str]


@dataclass(frozen=True)
class MirrorJob:
    """What to mirror. `dir` is `<store>/wandb`; `report` the report's folder, if there is one."""

    experiment: str
    project: str
    entity: str | None
    mode: Literal["offline", "online"]
    dir: Path
    stages: tuple[FinishedStage, ...]
    report: Path | None = None


def run_id(experiment: str, key: str) -> str:
    """The W&B id of a stage's run within an experiment."""
    return hashlib.sha256(f"{experiment}\0{key}".encode()).hexdigest()[:16]


def replay(job: MirrorJob, stage: FinishedStage, stages: Mapping[str, FinishedStage]) -> Path:
    """Replay one stage into a run of its own; returns the run's local folder.

    Args:
        job: where to, and how.
        stage: what to replay.
        stages: every stage of the job by key, for the lineage.
    """
    import wandb

    identity = run_id(job.experiment, stage.key)
    for stale in job.dir.glob(f"*run-*-{identity}"):  # a mirror was ended in the middle of it
        shutil.rmtree(stale)
    manifest = read_json(stage.folder / "manifest.json")
    run = wandb.init(
        project=job.project,
        entity=job.entity,
        id=identity,
        resume="allow" if job.mode == "online" else None,
        group=job.experiment,
        job_type=stage.kind,
        name=stage.name,
        config=_config(manifest),
        settings=_settings(job),
    )
    try:
        _history(run, stage, manifest)
        for key in sorted(set(stage.inputs.values())):
            if key in stages:
                _use(run, _artifact(stages[key]), offline=job.mode == "offline")
        is_report = job.report is not None and stage.folder == job.report
        artifact = _artifact(stage)
        if is_report:
            _comparison(run, stage.folder)
            artifact.add_file(str(stage.folder / "index.html"))
            artifact.add_file(str(stage.folder / "results.json"))
        run.log_artifact(artifact)
        folder = Path(run.dir).parent
    finally:
        run.finish()
    return folder


def _settings(job: MirrorJob) -> Any:
    """Quiet and quick: no system probes, no console capture, no git, no package list."""
    import wandb

    return wandb.Settings(
        mode=job.mode,
        root_dir=str(job.dir.parent),
        console="off",
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
    )


def _config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: manifest.get(name) for name in ("key", "packages", "hardware")}
    return {**(manifest.get("config") or {}), "artifact": facts}


def _history(run: Any, stage: FinishedStage, manifest: Mapping[str, Any]) -> None:
    """The record's points become the history; facts without a step go to the summary."""
    facts: dict[str, Any] = {}
    record = stage.folder / "record.jsonl"
    points: dict[int, dict[str, Any]] = {}
    for line in read_jsonl(record) if record.exists() else ():
        values = {k: v for k, v in line.items() if k not in ("time", "step")}
        if "step" in line:
            points.setdefault(int(line["step"]), {}).update(values)
        else:
            facts |= values
    for step, values in sorted(points.items()):
        run.log(values, step=step)
    timing = {k: manifest[k] for k in ("seconds", "peak_rss_mib") if manifest.get(k) is not None}
    run.summary.update({**facts, **(manifest.get("summary") or {}), **timing})


def _artifact(stage: FinishedStage) -> Any:
    """The W&B artifact of a stage: its manifest, and the main facts as metadata."""
    import wandb

    manifest = read_json(stage.folder / "manifest.json")
    files = manifest.get("files") or {}
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{stage.kind}-{stage.name}")[:100]
    artifact = wandb.Artifact(
        f"{name}-{stage.key[:8]}",
        type=stage.kind,
        metadata={
            "key": stage.key,
            "folder": f"{stage.kind}/{stage.folder.name}",
            "files": len(files),
            "bytes": sum(fact["bytes"] for fact in files.values()),
        },
    )
    artifact.add_file(str(stage.folder / "manifest.json"))
    return artifact


def _use(run: Any, artifact: Any, offline: bool) -> None:
    """Note that the run used the artifact.

    `Run.use_artifact` refuses to work offline, although the call it makes for a new artifact is
    one that an offline run can keep and replay; so offline that call is made directly.
    """
    if offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)


def _comparison(run: Any, folder: Path) -> None:
    """The comparison: the main tables and every figure."""
    import wandb

    shown: dict[str, Any] = {}
    for file in filter(Path.exists, (folder / "tables" / f"{name}.csv" for name in SHOWN)):
        with file.open(encoding="utf-8", newline="") as text:
            head, *rows = list(csv.reader(text))
        columns = [[_value(cell) for cell in column] for column in zip(*rows, strict=True)]
        # A column of one kind: numbers only where every filled cell is one.
        columns = [
            c if all(v is None or isinstance(v, float) for v in c) else [*map(_text, c)]
            for c in columns
        ]
        data = [list(row) for row in zip(*columns, strict=True)]
        shown[f"tables/{file.stem}"] = wandb.Table(columns=head, data=data)
    for file in sorted((folder / "figures").glob("*.png")):
        shown[f"figures/{file.stem}"] = wandb.Image(str(file))
    run.log(shown)


def _value(cell: str) -> float | str | None:
    try:
        return float(cell)
    except ValueError:
        return cell or None


def _text(value: float | str | None) -> str | None:
    return value if value is None else str(value)
