"""Finished stages as Weights & Biases runs: one per arm and seed, one for the comparison.

Group = experiment. An arm's run has what runs are grouped and plotted by as its config, its
training curve as its history, and its subset's facts, final pass@1, bits per byte and costs as its
summary. Artifacts carry the lineage (pool -> scores -> subset -> adapter -> outcomes) by their
manifests, which hold the SHA-256 of every file.
"""

import csv
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qaq.store.tables import read_json, read_jsonl
from qaq.tracking.job import FinishedStage, MirrorJob, TrackedRun
from qaq.tracking.summary import arm_summary, scalars

HELD = ("subset", "scores", "adapter")  # artifacts whose files are referred to, or copied
COMPARISON = "comparison"


def replay(job: MirrorJob, wanted: TrackedRun) -> Path:
    """Replay one run; returns its local folder."""
    for stale in job.dir.glob(f"*run-*-{wanted.id}"):  # a mirror was ended in the middle of it
        shutil.rmtree(stale)
    run = open_run(job, wanted)
    made = {role: job.by_key[key] for role, key in wanted.made.items()}
    try:
        for stage in made.values():
            for step, values in curve(stage.folder):
                run.log(values, step=step)
        for stage in job.read(wanted):
            _use(run, _artifact(job, stage), offline=job.mode == "offline")
        if wanted.job_type == "arm":
            run.summary.update(arm_summary(made, job.read(wanted)))
        else:
            for stage in made.values():
                run.summary.update(_stage_summary(stage))
        if wanted.job_type == COMPARISON:
            _comparison(run, made["report"].folder)
        for stage in made.values():
            artifact = _artifact(job, stage)
            if (stage.folder / "results.json").exists():
                artifact.add_file(str(stage.folder / "results.json"))
            for page in sorted(stage.folder.rglob("*.html")):  # which show rows and programs
                _add(job, artifact, page, str(page.relative_to(stage.folder)))
            run.log_artifact(artifact)
        folder = Path(run.dir).parent
    finally:
        run.finish()
    return folder


def open_run(job: MirrorJob, wanted: TrackedRun) -> Any:
    """Start the run, or go on with it where the server has it already."""
    import wandb

    return wandb.init(
        project=job.project,
        entity=job.entity,
        id=wanted.id,
        resume="allow" if job.mode == "online" else None,
        group=job.experiment,
        job_type=wanted.job_type,
        name=wanted.name,
        config=wanted.config,
        tags=wanted.tags,
        notes=job.notes,
        settings=_settings(job),
    )


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


def curve(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The points of a stage's record by step; of a step that was logged twice the later one."""
    record = folder / "record.jsonl"
    points: dict[int, dict[str, Any]] = {}
    for line in read_jsonl(record) if record.exists() else ():
        if "step" in line:
            points.setdefault(int(line["step"]), {}).update(point(line))
    yield from sorted(points.items())


def point(line: Mapping[str, Any]) -> dict[str, Any]:
    """What a line of a record says, without when."""
    return {name: value for name, value in line.items() if name not in ("time", "step")}


def _stage_summary(stage: FinishedStage) -> dict[str, Any]:
    """Facts of the record without a step, the stage's own summary, time and memory."""
    manifest = read_json(stage.folder / "manifest.json")
    record = stage.folder / "record.jsonl"
    facts: dict[str, Any] = {}
    for line in read_jsonl(record) if record.exists() else ():
        if "step" not in line:
            facts |= point(line)
    timing = {k: manifest[k] for k in ("seconds", "peak_rss_mib") if manifest.get(k) is not None}
    return facts | scalars(manifest.get("summary") or {}) | timing


def _artifact(job: MirrorJob, stage: FinishedStage) -> Any:
    """The W&B artifact of a stage: its manifest, main facts as metadata, and its files as asked."""
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
    for file in sorted(files) if stage.kind in HELD else ():
        _add(job, artifact, stage.folder / file, file)
    return artifact


def _add(job: MirrorJob, artifact: Any, path: Path, name: str) -> None:
    """A file as configured: its content, or where it lies in the store."""
    if job.artifacts == "file":
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
    else:  # unhashed: the manifest beside it has the SHA-256
        artifact.add_reference(path.absolute().as_uri(), name=name, checksum=False)


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
    """The comparison: its sentences, every table and every figure."""
    import wandb

    results = read_json(folder / "results.json")
    run.summary.update({"verdict": " ".join(results.get("verdict") or ())})
    shown: dict[str, Any] = {}
    for file in sorted((folder / "tables").glob("*.csv")):
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
