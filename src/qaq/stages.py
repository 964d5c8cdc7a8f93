"""The config of each stage: exactly what it needs of the experiment, nothing else.

The planner fills these in, the key is made from them (see `qaq.run.config.keyed`), and the stage
reads them back from its job file. Roles of a stage's inputs are written beside each.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.data.config import DataConfig, NoiseConfig
from qaq.evidence.config import PrimaryConfig
from qaq.evaluation.config import EvalConfig, Suite
from qaq.models.config import ModelConfig
from qaq.scoring.config import FramingConfig
from qaq.selection.config import SelectorConfig
from qaq.studies.config import StudyConfig
from qaq.training.config import TrainConfig

FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class PairsStage:
    """No inputs."""

    data: DataConfig
    noise: NoiseConfig


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ScoresStage:
    """Inputs: `pairs`; `adapter`, to score with the fine-tuned model."""

    model: ModelConfig
    framing: FramingConfig
    system_prompt: str | None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OverlapsStage:
    """Inputs: `pairs`."""

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"specs"})

    suites: tuple[str, ...]
    specs: dict[str, Suite] = Field(default_factory=dict)  # those without one are known suites


@dataclass(frozen=True, kw_only=True, config=FORBID)
class EmbeddingsStage:
    """Inputs: `pairs`, to embed a pool; or none, to embed the target queries.

    The last three fields concern queries only: their file, and whose problems they must not repeat.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"queries", "specs"})

    model: ModelConfig
    system_prompt: str | None
    max_tokens: int
    queries: Path | None = None
    suites: tuple[str, ...] = ()
    specs: dict[str, Suite] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class SubsetStage:
    """Inputs: `pairs`, and what the selector needs: `strong`, `weak` (scores), `embeddings` and
    `queries` (embeddings of the pool and of the target queries), `overlaps`.

    `ratio` and `seed` are null for rules that do not use them, so that arms which differ only
    there share one subset.
    """

    selector: SelectorConfig
    ratio: float | None
    seed: int | None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class AdapterStage:
    """Inputs: `pairs`, `subset`. `share` is the share of the pool asked for (recipes by share)."""

    model: ModelConfig
    train: TrainConfig
    system_prompt: str | None
    share: float
    seed: int


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OutcomesStage:
    """Inputs: `adapter`, or none for the untuned model."""

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"spec"})

    model: ModelConfig
    system_prompt: str | None
    eval: EvalConfig
    suite: str
    spec: Suite | None = None  # null: the known suite of this name
    tasks: tuple[str, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ReportArm:
    """One trained arm of the comparison. Its inputs are `<kind>/<name>/<seed>[/<suite>]`."""

    name: str
    method: str
    ratio: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ReportStage:
    """Inputs: `pairs`, `overlaps`, `strong`, `weak` (scores, where computed), for each arm and seed
    `subset/<arm>/<seed>`, `adapter/<arm>/<seed>`, `outcomes/<arm>/<seed>/<suite>`; what
    only one arm's rule reads is `read/<arm>/<role>`; for the untuned model
    `outcomes/untuned/0/<suite>`.
    """

    experiment: str
    arms: tuple[ReportArm, ...]  # judged on `suites`; none of these: nothing was trained
    suites: tuple[str, ...]
    untuned: bool
    reference: str | None = None  # the paper's tables as CSV text
    primary: PrimaryConfig = PrimaryConfig()
    settings: dict[str, object] = Field(default_factory=dict)  # the whole resolved configuration


@dataclass(frozen=True, kw_only=True, config=FORBID)
class StudyStage:
    """Inputs: `pairs`; `scores/<scorer>/<framing>` for each model that scored the pool (`strong`,
    `weak`, others, and `<scorer>-tuned` after fine-tuning); what else the arms need, by its role.

    `framing` is the experiment's own; in it every scorer scored.
    """

    experiment: str
    study: StudyConfig
    framing: str
    ratio: float
    arms: dict[str, SelectorConfig]
