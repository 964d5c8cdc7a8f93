"""Copies local records into Weights & Biases runs: `python -m qaq.tracking.mirror JOB.json`.

The local record is the truth; this is a view of it. It runs in a process of its own, after the
work, so that W&B missing, misconfigured or unreachable can neither fail nor slow a run: the caller
gives it a time limit (`finish`), and whatever goes wrong is written to `mirror.log`.

One run per stage: group = experiment, job type = kind of stage. Its id is made from the experiment
and the artifact's key, so mirroring again changes nothing; what is done is noted in
`mirrored.jsonl`. Artifacts carry the lineage (pool -> scores -> subset -> adapter -> outcomes) by
their manifests, which hold the SHA-256 of every file; the files themselves, weights above all, stay
where they are.

Offline (the default) nothing is sent and no key is needed; `qaq.tracking.sync` sends it later.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from qaq.artifacts import read_json, read_jsonl, write_json

LEDGER, LOG = "mirrored.jsonl", "mirror.log"
SHOWN = ("results", "tests_pass", "tests_bits", "retention", "separation", "paper")  # tables
# A user's own settings for these would send all stages into one run, or none.
FOREIGN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_MODE", "WANDB_DISABLED")


@dataclass(frozen=True)
class Stage:
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
    stages: tuple[Stage, ...]
    report: Path | None = None


def start(job: MirrorJob | Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start mirroring in a process (and process group) of its own; returns at once.

    `job` may be the plain tree of a `MirrorJob`, as in its file.
    """
    job = TypeAdapter(MirrorJob).validate_python(job)
    job.dir.mkdir(parents=True, exist_ok=True)
    tree = TypeAdapter(MirrorJob).dump_python(job, mode="json")
    file = job.dir / f"job-{hashlib.sha256(json.dumps(tree).encode()).hexdigest()[:8]}.json"
    write_json(file, tree)
    with (job.dir / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "qaq.tracking.mirror", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(job.dir),
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], seconds: float = 60.0) -> bool:
    """Wait for the mirror at most so long, then end it; says whether all was mirrored."""
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def environment(folder: Path) -> dict[str, str]:
    """The environment for wandb: everything it writes stays in `folder`, and it keeps quiet."""
    mine = {
        "WANDB_DIR": str(folder.parent),
        "WANDB_CACHE_DIR": str(folder / ".cache"),
        "WANDB_CONFIG_DIR": str(folder / ".config"),
        "WANDB_DATA_DIR": str(folder / ".data"),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_INIT_TIMEOUT": os.environ.get("WANDB_INIT_TIMEOUT", "20"),
    }
    return {k: v for k, v in os.environ.items() if k not in FOREIGN} | mine


def run_id(experiment: str, key: str) -> str:
    """The W&B id of a stage's run within an experiment."""
    return hashlib.sha256(f"{experiment}\0{key}".encode()).hexdigest()[:16]


def mirror(job: MirrorJob) -> int:
    """Mirror every stage that is not mirrored yet; returns how many failed.

    Offline, one bad stage does not keep the others back. Online, the first failure ends it: a
    server that cannot be reached would cost its time limit once per stage. Two mirrors of one
    folder take turns.
    """
    failed = 0
    stages = {stage.key: stage for stage in job.stages}
    with _lock(job.dir):
        done = {x["id"] for x in ledger(job.dir) if job.mode in ("offline", x["mode"])}
        for stage in job.stages:
            identity = run_id(job.experiment, stage.key)
            if identity in done:
                continue
            try:
                folder = _mirror_stage(job, stage, identity, stages)
            except Exception:
                print(f"{stage.kind} {stage.name}:\n{traceback.format_exc()}", file=sys.stderr)
                failed += 1
                if job.mode == "online":
                    break
                continue
            done.add(identity)
            _note(job, stage, identity, folder)
    return failed


def ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """What has been mirrored: one line per run with id, mode, kind, experiment and folder."""
    with contextlib.suppress(FileNotFoundError):
        yield from read_jsonl(folder / LEDGER)


def _note(job: MirrorJob, stage: Stage, identity: str, folder: Path) -> None:
    line = {
        "id": identity,
        "mode": job.mode,
        "kind": stage.kind,
        "experiment": job.experiment,
        "key": stage.key,
        "folder": folder.name,
    }
    with (job.dir / LEDGER).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _mirror_stage(job: MirrorJob, stage: Stage, identity: str, stages: Mapping[str, Stage]) -> Path:
    """Replay one stage into a run; returns the run's local folder."""
    import wandb

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
        _replay(run, stage, manifest)
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


def _replay(run: Any, stage: Stage, manifest: Mapping[str, Any]) -> None:
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


def _artifact(stage: Stage) -> Any:
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


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it when this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(path: Path) -> int:
    """Mirror the job in `path`, at low priority; 0 if every stage was mirrored as asked.

    What cannot be sent to the server is kept as offline runs, for `qaq sync`.
    """
    os.nice(10)
    job = TypeAdapter(MirrorJob).validate_python(read_json(path))
    failed = mirror(job)
    if failed and job.mode == "online":
        with contextlib.suppress(ImportError):
            import wandb

            wandb.teardown()  # its service still holds the ids of the runs that failed
        mirror(replace(job, mode="offline"))
    path.unlink()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
