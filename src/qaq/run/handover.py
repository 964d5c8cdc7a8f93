"""Hands what a run made to the Weights & Biases mirror, a process of its own.

The local record is the truth: whatever happens to the mirror, the run has its result.
"""

from collections.abc import Callable

from qaq.reporting.config import ReportStage
from qaq.run.config import Config
from qaq.run.runner import Result
from qaq.store.store import Store

REPORT = ReportStage.STAGE.kind
PATIENCE = 120.0  # seconds that a finished run waits for its mirror


def hand_over(
    config: Config, store: Store, results: list[Result], say: Callable[[str], None]
) -> None:
    """Mirror the finished stages of a run; a failure is logged in one line and changes nothing."""
    made = [r for r in results if r.artifact is not None]
    if config.tracking.wandb == "disabled" or not any(r.state == "ran" for r in made):
        return
    from qaq.tracking import mirror

    stages = [
        {
            "kind": r.stage.kind,
            "name": r.stage.name,
            "key": r.stage.key,
            "folder": str(r.artifact.path),
            "inputs": {role: s.key for role, s in r.stage.inputs.items()},
        }
        for r in made
        if r.artifact is not None
    ]
    reports = [str(r.artifact.path) for r in made if r.artifact and r.stage.kind == REPORT]
    job = {
        "experiment": config.experiment,
        "project": config.tracking.project,
        "entity": config.tracking.entity,
        "mode": config.tracking.wandb,
        "dir": str(store.root / "wandb"),
        "stages": stages,
        "report": reports[0] if reports else None,
    }
    try:
        done = mirror.finish(mirror.start(job), PATIENCE)
    except OSError as error:
        say(f"W&B       not mirrored ({error}); the local record is complete")
        return
    state = f"mirrored ({config.tracking.wandb})" if done else "not mirrored"
    say(f"W&B       {state}; log: {store.root / 'wandb' / mirror.LOG}")
