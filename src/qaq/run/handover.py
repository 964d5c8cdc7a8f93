"""Hands what a run makes to Weights & Biases: at its end, and while it trains where asked.

The local record is the truth: whatever happens to the mirror, a process of its own, the run has its
result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from qaq.reporting.config import ReportStage
from qaq.run.config import UNTUNED, ArmConfig, Config, arms_of
from qaq.run.pipeline import Run
from qaq.run.runner import Result
from qaq.run.stage import Stage
from qaq.store.store import Store
from qaq.tracking import mirror
from qaq.tracking.job import FinishedStage, MirrorJob, TrackedRun, run_id


def planned(run: Run, store: Store, report: bool) -> MirrorJob | None:
    """The W&B runs of an experiment as it is planned; None where none are wanted.

    Without `report` it is a job of a sweep; its parent makes the arms' runs when it compares.
    """
    tracking = run.config.tracking
    if tracking.wandb == "disabled":
        return None
    runs = [*_arm_runs(run, store), _comparison(run)]
    if tracking.stages:
        runs += [_stage_run(run.config, stage) for stage in run.stages[:-1]]
    return MirrorJob(
        experiment=run.config.experiment,
        project=tracking.project,
        entity=tracking.entity,
        mode=tracking.wandb,
        dir=store.root / "wandb",
        stages=(),
        runs=tuple(r for r in runs if report or r.job_type != "comparison"),
        artifacts=tracking.artifacts,
        notes=tracking.notes,
    )


def hand_over(
    job: MirrorJob | None, results: Sequence[Result], report: bool, say: Callable[[str], None]
) -> bool:
    """Mirror the runs whose stages are all there, and that were not mirrored before.

    A failure is logged and changes nothing; the same command tries again.

    Returns:
        Whether runs are kept offline, for `qaq sync`.
    """
    if job is None:
        return False
    stages = tuple(
        FinishedStage(
            kind=r.stage.kind,
            name=r.stage.name,
            key=r.stage.key,
            folder=r.artifact.path,
            inputs={role: s.key for role, s in r.stage.inputs.items()},
        )
        for r in results
        if r.artifact is not None
    )
    keys = {stage.key for stage in stages}
    runs = [r for r in job.runs if keys.issuperset(r.made.values())]
    runs = [r for r in runs if report or r.job_type != "arm"]
    job = replace(job, stages=stages, runs=tuple(runs))
    if not mirror.missing(job):
        return False
    try:
        done = mirror.copied(job)
    except OSError as error:
        say(f"W&B       not mirrored ({error}); the local record is complete")
        return False
    state = f"{len(runs)} runs ({job.mode})" if done else "not mirrored"
    say(f"W&B       {state}; log: {job.dir / mirror.LOG}")
    return any(line["mode"] == "offline" for line in mirror.ledger(job.dir))


def _arm_runs(run: Run, store: Store) -> Iterator[TrackedRun]:
    report, config = run.stages[-1], run.config
    if not isinstance(report.config, ReportStage):
        return
    found: dict[tuple[str, int], dict[str, Stage]] = {}
    for role, stage in report.inputs.items():
        match role.split("/"):
            case [("subset" | "adapter" | "outcomes") as kind, arm, number, *suite]:
                found.setdefault((arm, int(number)), {})["/".join([kind, *suite])] = stage
    arms, asked = arms_of(config), {arm.name: arm for arm in report.config.arms}
    for (name, seed), stages in found.items():
        keys = {role: stage.key for role, stage in stages.items()}
        last = stages.get("adapter") or stages.get("subset") or next(iter(stages.values()))
        rule = asked[name].method if name in asked else UNTUNED
        ratio = 1.0 if rule == "full" else asked[name].ratio if name in asked else None
        adapter = stages.get("adapter")
        waits = adapter is not None and store.find(adapter.kind, adapter.key) is None
        yield TrackedRun(
            id=run_id(config.experiment, "arm", keys, seed),
            job_type="arm",
            name=name if name == UNTUNED else f"{name}-seed{seed}",
            config={
                "arm": name,
                "rule": rule,
                "ratio": ratio,
                "seed": seed if name in asked else None,
                **_shared(config, arms.get(name)),
                "key": last.key,
                "keys": keys,
            },
            tags=_tags(config, rule),
            made=keys,
            record=store.work_folder(adapter.kind, adapter.key) / "out" / "record.jsonl"
            if adapter is not None and waits
            else None,
        )


def _comparison(run: Run) -> TrackedRun:
    config, stage = run.config, run.stages[-1]
    keys = {"report": stage.key}
    return TrackedRun(
        id=run_id(config.experiment, "comparison", keys),
        job_type="comparison",
        name=config.experiment,
        config={**_shared(config, None), "arms": sorted(arms_of(config)), "key": stage.key},
        tags=_tags(config),
        made=keys,
    )


def _stage_run(config: Config, stage: Stage) -> TrackedRun:
    keys = {stage.kind: stage.key}
    return TrackedRun(
        id=run_id(config.experiment, stage.kind, keys),
        job_type=stage.kind,
        name=stage.name,
        config={**stage.tree, "key": stage.key},
        tags=_tags(config),
        made=keys,
    )


def _shared(config: Config, arm: ArmConfig | None) -> dict[str, Any]:
    """What runs are grouped by besides; the scorers are the arm's own where it has some."""
    roles = ("strong", "weak", "target")
    return {
        "models": {
            role: (getattr(arm, role, None) or getattr(config.models, role)).name for role in roles
        },
        "benchmark": config.benchmark.name,
        "data": config.data.name,
        "noise": config.noise.name,
        "framing": config.framing.name,
    }


def _tags(config: Config, *more: str) -> tuple[str, ...]:
    """At most 64 characters each, which is what W&B takes."""
    found = (config.experiment, *more, *config.tracking.tags)
    return tuple(dict.fromkeys(tag[:64] for tag in found))
