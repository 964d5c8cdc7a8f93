"""How a pool of synthetic pairs is made: who asks, who answers, and how freely they write."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
Temperature = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Answerer:
    """A model that answers, and the weight of its part of the questions."""

    model: ModelConfig
    weight: float = Field(default=1.0, gt=0)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class SynthesisConfig:
    """Pairs made the way of Magpie (arXiv 2406.08464) and WarriorCoder (arXiv 2412.17395).

    `questioner` writes what it expects in the user's turn that `question_prompt` (a system prompt)
    opens; each question goes to one of `answerers`, drawn by their weights. Of `questions` sampled,
    those that repeat an earlier one, are empty, or reach `question_tokens` unfinished are counted
    and left out, as are answers that reach `answer_tokens`. Who answers is a function of `seed` and
    the question's number alone, so a larger pool of one seed begins with the smaller one.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name"})
    STAGE: ClassVar[StageKind] = StageKind("synthesis", module="qaq.synthesis.stage", version=1)

    name: str
    questioner: ModelConfig
    answerers: dict[str, Answerer] = Field(min_length=1)
    question_prompt: str
    answer_prompt: str | None = None
    questions: int = Field(ge=1)
    question_temperature: Temperature = 1.0
    answer_temperature: Temperature = 1.0
    top_p: Probability = 0.99
    question_tokens: int = Field(default=512, ge=1)
    answer_tokens: int = Field(default=768, ge=1)
    seed: int = 0
