"""Makes what a plan names and the store does not hold: one process per stage.

The parent keeps the lock's descriptor open in the child too, so a lock outlives a killed parent
for exactly as long as its child still writes. Files that a stage is about to read are compared with
their hashes first, and an artifact that fails is named and made again.
"""

import datetime
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from qaq import __version__
from qaq.host import hardware
from qaq.host.errors import Preempted, StageError, StoreError, UserError
from qaq.host.preemption import wait_for
from qaq.host.progress import duration
from qaq.host.runtime import RuntimeConfig
from qaq.run.launch import SAVING, launcher, processes
from qaq.run.stage import Stage
from qaq.store import failures, jobs
from qaq.store.inspection import SUMMARY
from qaq.store.manifest import Artifact
from qaq.store.store import Store
from qaq.store.tables import appearing, read_json, spans_scored

Say = Callable[[str], None]

Tell = Callable[[Stage, str], None]
WIDTH = 100  # of a stage's line
SPENT = ("seconds", "energy_joules", "tries")  # on a table that gets more spans, on all of them
NAME = 34  # of an artifact in it, at least


@dataclass(frozen=True)
class Result:
    """What became of a stage: `ran`, `reused`, `failed`, or `skipped` (an input failed)."""

    stage: Stage
    state: str
    seconds: float
    artifact: Artifact | None = None
    error: StageError | None = None


def make(
    plan: list[Stage],
    store: Store,
    runtime: RuntimeConfig,
    say: Say,
    *,
    reasons: bool = True,
    read: Collection[str] = (),
) -> list[Result]:
    """Make every stage of the plan, in order; a failure stops only what rests on it.

    With `reasons` the line of a stage that failed is followed by why; callers that raise it say
    it themselves. `read` are keys of artifacts that the caller is going to read.

    Raises:
        Preempted: this process was asked to stop; what was done is on disk.
    """
    results: dict[str, Result] = {}
    places = {stage.key: f"{k} of {len(plan)}" for k, stage in enumerate(plan, 1)}

    def tell(stage: Stage, state: str) -> None:
        say(line(places[stage.key], stage, state))

    with store.lease(stage.key for stage in plan):
        damaged = find_damage(plan, store, tell, read)
        for stage in plan:
            result = _attempt(stage, results, store, runtime, tell, stage.key in damaged)
            results[stage.key] = result
            say(describe(result, places[stage.key], reasons))
            if result.error and runtime.on_failure == "stop":
                break
    return list(results.values())


def find_damage(
    plan: list[Stage], store: Store, tell: Tell, read: Collection[str] = ()
) -> set[str]:
    """Keys of artifacts that are about to be read and whose bytes are not the published.

    Only those are hashed: `read`, and of a run that reuses everything, the report.
    """
    damaged: set[str] = set()
    read = set(read)
    for stage in reversed(plan):  # readers come before what they read
        artifact = store.find(stage.kind, stage.key)
        if artifact is None and (torn := store.torn(stage.kind, stage.key)):
            tell(stage, f"damaged: {torn}; making it again")
        if artifact and SUMMARY in artifact.manifest["files"]:
            read.add(stage.key)  # by the user
        if artifact and stage.key in read and (bad := artifact.damage()):
            where = ", ".join(str(artifact.path / name) for name in bad)
            tell(stage, f"damaged: {where}; making it again")
            damaged.add(stage.key)
        if artifact is None or stage.lacking(artifact) or stage.key in damaged:
            read |= {s.key for s in stage.inputs.values()}
    return damaged


def describe(result: Result, place: str, reason: bool = True) -> str:
    """One line of at most `WIDTH` characters: which, what, whether it ran, how long, its facts.

    All of a stage's figures are in its manifest. `reason`: say below why a stage failed.
    """
    if result.error:
        failed = line(place, result.stage, result.state)
        return f"{failed}\n  {result.error}" if reason else failed
    summary = result.artifact.manifest.get("summary", {}) if result.artifact else {}
    facts = result.stage.declared.facts_of(summary)
    while True:
        took = f"{result.state:<7} {duration(result.seconds):>8}  {', '.join(facts)}".rstrip()
        found = line(place, result.stage, took)
        if len(found) <= WIDTH or not facts:
            return found
        facts.pop()


def line(place: str, stage: Stage, state: str) -> str:
    """A stage's place in the plan, its kind and name, and what is to be said of it.

    A name that leaves no room is cut; its start names the artifact all the same.
    """
    head = f"{place:>8}  {stage.kind:<10} "
    room = max(NAME, WIDTH - len(head) - len(state) - 1)
    name = stage.name if len(stage.name) <= room else stage.name[: room - 1] + "…"
    return f"{head}{name:<{NAME}} {state}"


def _attempt(
    stage: Stage,
    results: dict[str, Result],
    store: Store,
    runtime: RuntimeConfig,
    tell: Tell,
    damaged: bool,
) -> Result:
    inputs = {role: results.get(s.key) for role, s in stage.inputs.items()}
    if any(r is None or r.artifact is None for r in inputs.values()):
        return Result(stage, "skipped", 0.0)
    started = time.monotonic()
    folders = {role: r.artifact.path for role, r in inputs.items() if r and r.artifact}
    try:
        artifact, state = _make(stage, folders, store, runtime, tell, damaged)
        return Result(stage, state, time.monotonic() - started, artifact)
    except StageError as error:
        known = error
    except (StoreError, OSError) as error:
        known = StageError(f"{stage.kind} {stage.name}: {failures.explain(error, store.root)}")
        work = store.work_folder(stage.kind, stage.key)
        if work.is_dir():
            failures.report(error, work, 0, store.root)
    return Result(stage, "failed", time.monotonic() - started, error=known)


def _make(
    stage: Stage,
    folders: dict[str, Path],
    store: Store,
    runtime: RuntimeConfig,
    tell: Tell,
    damaged: bool,
) -> tuple[Artifact, str]:
    found = stage.find(store)
    if found and not damaged:
        return found, "reused"

    def waiting(holder: str) -> None:
        tell(stage, f"another process is making it ({holder}); waiting")

    with store.lock(stage.kind, stage.key, waiting) as lock:
        found = store.find(stage.kind, stage.key)  # made by whoever held the lock
        bad = bool(found and (damaged or stage.lacking(found)) and found.damage())
        if found and not bad and not stage.lacking(found):
            return found, "reused"
        if found and bad:
            store.discard(found.path)
        work = store.work(stage.kind, stage.key)
        before = found if found and not bad else None
        if before:
            runtime = _take_up(before, work / "out", runtime)
        _refuse_changes(stage, work)
        tell(stage, "running")
        try:
            done = _spawn(stage, folders, work, runtime, lock)
        except StageError:
            _refuse_changes(stage, work, begun=True)
            raise
        _refuse_changes(stage, work, begun=True)
        if before:
            done |= {field: _sum(before.manifest[field], done[field]) for field in SPENT}
            done["notices"] = [*before.manifest.get("notices", []), *done["notices"]]
        manifest = {
            **stage.identity,
            **done,
            "input_folders": {role: str(path.name) for role, path in folders.items()},
            "full_config": stage.tree,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "qaq": __version__,
            "revision": code_revision(),
            "hardware": hardware.describe(),
        }
        return store.publish(stage.kind, stage.name, stage.key, manifest, replace=before), "ran"


def _refuse_changes(stage: Stage, work: Path, begun: bool = False) -> None:
    """Check that what the stage reads from elsewhere is still what its key names.

    What a worker left is thrown away where it may have read something else.

    Raises:
        StageError: it is not, or it is gone.
    """
    what = f"{stage.kind} {stage.name}"
    try:
        changed = stage.changed()
    except UserError as error:
        raise StageError(f"{what}: {error}", 2) from None
    if not changed:
        return
    found = StageError(
        f"{what}: its model, pool or benchmark was changed since the run was planned "
        f"({', '.join(changed)}); run the same command again",
        2,
    )
    if begun:
        shutil.rmtree(work)
        work.mkdir()
    failures.report(found, work, 0, work)
    raise found


def _take_up(before: Artifact, out: Path, runtime: RuntimeConfig) -> RuntimeConfig:
    """Lay the shards of a score table into the work folder, where they get the spans they lack.

    Those of an earlier try that hold more already stay. Returns the settings with the shards' size.
    """
    shards = [name for name in before.manifest["files"] if name.startswith("shards/")]
    held = set(spans_scored(before.path / "shards"))
    for name in shards:
        target = out / name
        if not held <= _held(target):
            target.parent.mkdir(exist_ok=True)
            with appearing(target) as temporary:
                shutil.copyfile(before.path / name, temporary)
    rows = pq.read_metadata(before.path / min(shards)).num_rows
    return replace(runtime, shard_rows=rows)


def _held(shard: Path) -> set[str]:
    """The spans of a shard; none of one that is not there or was torn."""
    try:
        return set(spans_scored(shard))
    except (OSError, ValueError):
        return set()


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _spawn(
    stage: Stage, folders: dict[str, Path], work: Path, runtime: RuntimeConfig, lock: int
) -> dict[str, Any]:
    """Run the stage's worker to its end; returns what it reported, raises what went wrong."""
    path = work / "job.json"
    if path.is_file():  # what an earlier attempt left is cut into shards of its size
        runtime = replace(runtime, shard_rows=read_json(path)["runtime"]["shard_rows"])
    job = jobs.Job(
        module=stage.declared.module,
        kind=stage.kind,
        name=stage.name,
        key=stage.key,
        config=stage.tree,
        inputs=folders,
        out=work / "out",
        scratch=work / "scratch",
        runtime=runtime,
        command=shlex.join(["qaq", *sys.argv[1:]]),
        revision=code_revision(),
    )
    failures.prepare(work)
    jobs.save(job, path)
    command = [*launcher(stage.declared, runtime), "-m", "qaq.run.worker", str(path)]
    safe = {"PYTHONSAFEPATH": "1"}  # no module of the current folder before the user's own
    env = SAVING | os.environ | safe
    process = subprocess.Popen(command, pass_fds=(lock,), stdin=subprocess.DEVNULL, env=env)
    # srun ends its tasks on SIGTERM; SIGUSR2 it hands on to them
    code = wait_for(process, signal.SIGUSR2 if command[0] == "srun" else signal.SIGTERM)
    done = work / "done.json"
    if code == 0 and done.is_file():
        result: dict[str, Any] = read_json(done)
        return result
    failure = failures.settle(work, code, processes(stage.declared, runtime))
    if failure.code == Preempted.exit_code or code == -signal.SIGTERM:  # the signal was the stage's
        raise Preempted(signal.SIGTERM.name)
    hint = f"\n  traceback: {failures.traceback_file(work)}" if failure.code == 1 else ""
    raise StageError(f"{stage.kind} {stage.name}: {failure.message}{hint}", failure.code)


def code_revision() -> str:
    """The commit of this checkout, with `+changes` where files differ; the version elsewhere."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return __version__
    head = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", "src", "conf")
    return f"{head}+changes" if head and changes else head or __version__


def _git(root: Path, *command: str) -> str:
    call = ["git", "-C", str(root), *command]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()
