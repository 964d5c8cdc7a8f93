"""The schema of `conf/`: one frozen dataclass per group, checked as a whole before any work.

The sections live beside the code they configure; this file puts them together. Fields named in a
section's `UNKEYED`, and the whole of `runtime` and `tracking`, do not enter an artifact's key: they
change how fast or where a number is made, not the number.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.data.config import DataConfig, NoiseConfig
from qaq.evaluation.config import BenchmarkConfig, EvalConfig
from qaq.evidence.config import PrimaryConfig
from qaq.host.paths import expanded
from qaq.host.plugins import conf_dir
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig, ModelsConfig
from qaq.scoring.config import FramingConfig
from qaq.scoring.metrics import metric_names
from qaq.selection.config import SelectorConfig
from qaq.studies.config import StudyConfig
from qaq.tracking.config import TrackingConfig
from qaq.training.config import Match, TrainConfig

FORBID = ConfigDict(extra="forbid")
UNTUNED = "untuned"  # stands beside the arms: the model before training
Ratio = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ArmConfig:
    """One way of choosing; what is null is taken from the experiment.

    `strong` and `weak` are scorers of its own, for comparing pairs of models. `match` replaces that
    field of its recipe, so that one experiment has a rule at equal epochs and at equal steps.
    """

    selector: SelectorConfig
    ratio: float | None = Field(default=None, gt=0, le=1)
    seeds: tuple[int, ...] | None = None
    train: TrainConfig | None = None
    match: Match | None = None
    strong: ModelConfig | None = None
    weak: ModelConfig | None = None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Config:
    """One experiment: a pool, its scorers, one or several arms, and how they are compared.

    `arms` are the ways of choosing that are compared; empty means one arm made of `selector`.
    `ratio` is the share kept where an arm does not say otherwise; `seed` likewise. `ratios` and
    `seeds` stand for several: each rule at each ratio, trained with each seed. Without `train`
    nothing is trained or judged: the report shows what the scores and the subsets say. With `study`
    there is no comparison of trained arms but that study of the scores and the rules.
    `metrics` (`all`, or names) are those that the report shows whatever the rules read; without,
    only the spans that the rules read are scored, and the metrics that these give are shown.
    `primary` declares which of the comparisons carry claims (`qaq.evidence.config`).
    `reference` is a CSV of published values, which the report shows beside ours (its columns:
    `qaq.reporting.reference`): a file, or the name of an experiment that comes with one.
    """

    experiment: str = "default"  # `name=…` on the command line
    seed: int = 1
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    ratio: float = Field(default=0.25, gt=0, le=1)
    ratios: tuple[Ratio, ...] | None = Field(default=None, min_length=1)
    system_prompt: str | None = None
    data: DataConfig
    noise: NoiseConfig
    models: ModelsConfig
    framing: FramingConfig
    selector: SelectorConfig
    arms: dict[str, ArmConfig] = Field(default_factory=dict)
    untuned: bool = True
    study: StudyConfig | None = None
    reference: str | None = None
    metrics: Annotated[tuple[str, ...], BeforeValidator(metric_names)] = ()
    primary: PrimaryConfig = PrimaryConfig()
    train: TrainConfig | None = None
    benchmark: BenchmarkConfig
    eval: EvalConfig
    tracking: TrackingConfig = TrackingConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def arms_of(config: Config) -> dict[str, ArmConfig]:
    """The arms with ratio, seeds and recipe filled in; a rule without a size of its own, once for
    each of `ratios`.
    """
    own = config.arms or {config.selector.method: ArmConfig(selector=config.selector)}
    filled = {}
    for name, arm in own.items():
        train = arm.train or config.train
        if train and arm.match:
            train = replace(train, match=arm.match)
        several = config.ratios if arm.selector.uses_ratio and arm.ratio is None else None
        for ratio in several or (arm.ratio or config.ratio,):
            filled[f"{name}-{ratio:g}" if several else name] = replace(
                arm,
                ratio=ratio,
                seeds=arm.seeds or config.seeds or (config.seed,),
                train=train,
            )
    return filled


def reference_file(name: str) -> Path | None:
    """The CSV that `reference` stands for: a file, or the one of an experiment of this name."""
    ours = conf_dir().parent / "experiments" / name / "reference.csv"
    return next((path for path in (ours, expanded(name)) if path.is_file()), None)
