"""What a study measures of scores and rules, before anything is trained on a subset."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.models.config import ModelConfig
from qaq.scoring.config import FramingConfig
from qaq.selection.config import SelectorConfig
from qaq.store.stages import StageKind

Share = Annotated[float, Field(gt=0, le=1)]
Kind = Literal["planted_noise", "metric_agreement", "failure_modes"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StudyConfig:
    """One study of a pool; see `qaq.studies.<kind>`.

    `framings`: layouts in which the strong and the weak model score beside the experiment's own.
    `scorers`: further models that score the pool, by name.
    `ask`: whether the strong model is also asked about each pair (Ask-LLM), as it is for an arm of
    that rule.
    `tuned`: scorers (`strong`, `weak`) that score again after fine-tuning on the whole pool.
    `twins`: scorers that score again in float32, as a model that is nearly the same.
    `ratios`: shares that the arms keep (an arm's own ratio and seeds play no part).
    `rates`: shares of damaged rows; a rate below the planted one is reached by leaving damaged
    rows out at random, `draws` times, since a row's scores do not depend on the other rows.
    """

    kind: Kind
    framings: dict[str, FramingConfig] = Field(default_factory=dict)
    scorers: dict[str, ModelConfig] = Field(default_factory=dict)
    ask: bool = False
    tuned: tuple[Literal["strong", "weak"], ...] = ()
    twins: tuple[Literal["strong", "weak"], ...] = ()
    ratios: tuple[Share, ...] = (0.05, 0.1, 0.25, 0.5, 0.75)
    rates: tuple[Share, ...] = (0.05, 0.1, 0.2, 0.4)
    draws: int = Field(default=10, ge=1)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StudyStage:
    """Inputs: `pairs`; `scores/<scorer>/<framing>` for each model that scored the pool (`strong`,
    `weak`, others, and `<scorer>-tuned` after fine-tuning); `asked`, where the strong model was
    asked about each pair; what else the arms need, by its role.

    `framing` is the experiment's own; in it every scorer scored.
    """

    STAGE: ClassVar[StageKind] = StageKind(
        "study",
        module="qaq.studies.stage",
        version=5,
        inputs=("pairs", "overlaps", "embeddings", "queries", "asked", "scores/*/*"),
        facts=("{tables} tables", "{figures} figures"),
    )

    experiment: str
    study: StudyConfig
    framing: str
    ratio: float
    arms: dict[str, SelectorConfig]
