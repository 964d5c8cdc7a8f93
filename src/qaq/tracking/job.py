"""What is to be mirrored into Weights & Biases, as one file that a process reads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class FinishedStage:
    """One finished stage: its artifact folder and the keys of its inputs by role."""

    kind: str
    name: str
    key: str
    folder: Path
    inputs: dict[str, str]


@dataclass(frozen=True)
class TrackedRun:
    """One W&B run, made of one or several stages.

    Attributes:
        id: made of what it shows, so that mirroring it again changes nothing.
        job_type: `arm`, `comparison`, or the kind of a stage.
        name: as W&B shows it.
        config: what runs are grouped and plotted by.
        tags: the same, for W&B's filter.
        made: keys of the stages that it shows, by role: `subset`, `adapter`, `outcomes/SUITE`.
        record: where an adapter writes its curve while it trains.
    """

    id: str
    job_type: str
    name: str
    config: dict[str, Any]
    tags: tuple[str, ...]
    made: dict[str, str]
    record: Path | None = None


@dataclass(frozen=True)
class MirrorJob:
    """What to mirror. `dir` is `<store>/wandb`; `artifacts` as in `TrackingConfig`."""

    experiment: str
    project: str
    entity: str | None
    mode: Literal["offline", "online"]
    dir: Path
    stages: tuple[FinishedStage, ...]
    runs: tuple[TrackedRun, ...]
    artifacts: Literal["reference", "file"] = "reference"
    notes: str | None = None

    @cached_property
    def by_key(self) -> dict[str, FinishedStage]:
        """The stages by their keys."""
        return {stage.key: stage for stage in self.stages}

    def read(self, run: TrackedRun) -> list[FinishedStage]:
        """What the stages of a run were made from, without those stages themselves."""
        own = set(run.made.values())
        keys = {k for key in own for k in self.by_key[key].inputs.values()} - own
        return [self.by_key[key] for key in sorted(keys) if key in self.by_key]

    def depth(self, run: TrackedRun) -> int:
        """How many runs in a row must be sent before this one, so that makers come first."""
        read = {stage.key for stage in self.read(run)}
        makers = [r for r in self.runs if r.id != run.id and read & set(r.made.values())]
        return max((self.depth(maker) + 1 for maker in makers), default=0)


def run_id(experiment: str, job_type: str, made: Mapping[str, str], seed: int = 0) -> str:
    """The W&B id of a run; without the arm's name, which a sweep's comparison may give anew."""
    parts = [experiment, job_type, str(seed), *(f"{r}={key}" for r, key in sorted(made.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
