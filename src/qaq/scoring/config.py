"""How a pair is rendered for a model, and when a scoring run counts as failed."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from qaq.host.plugins import Registry
from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind
from qaq.store.tables import SPANS, Span

Framing = Callable[["FramingConfig", ModelConfig, Any, str | None], Any]
FRAMINGS: Registry[Framing] = Registry("framing", "qaq.scoring.framings")
DEFAULT_REVERSE_INSTRUCTION = (
    "Below is an answer to a programming task. Write the task that this answer most likely "
    "responds to. If the answer is not about programming, write INVALID.\n\nAnswer:\n{answer}"
)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FramingConfig:
    """A named way of turning a pair into token ids; see `qaq.scoring.framing`.

    `max_tokens` bounds one rendering: the answer is cut until the question fits whole.
    `cherry_prompt` is the `--prompt` of Cherry_LLM and of Reflection_Tuning, for the kinds cherry,
    cherry_first and r_ifd. `max_failed_share` is the share of rows without a score above which the
    stage fails; rows that a published script drops are not among them.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name", "max_failed_share"})

    name: str
    kind: Annotated[str, AfterValidator(FRAMINGS.check)]
    reverse_instruction: str = DEFAULT_REVERSE_INSTRUCTION
    cherry_prompt: Literal["wiz", "alpaca", "vicuna"] = "wiz"
    max_tokens: int = Field(default=2048, ge=16)
    max_failed_share: float = Field(default=0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _prompt_exists(self) -> Self:
        if self.kind == "cherry_first" and self.cherry_prompt == "vicuna":
            raise ValueError(
                "cherry_first has no vicuna prompt: Cherry_LLM's first commit knows wiz and "
                "alpaca; use kind=cherry"
            )
        return self


ASKED_SPANS: tuple[Span, ...] = ("a_given_q",)  # all that `asking` renders


def asking() -> FramingConfig:
    """The framing of the table that a rule reads which needs `asked`."""
    return FramingConfig(name="ask_llm", kind="ask_llm")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ScoresStage:
    """Inputs: `pairs`; `adapter`, to score with the fine-tuned model.

    `spans` are those that are asked for. The table of a key may hold more, and gets what it lacks
    when that is asked for, so they are no part of the key. `engine`: ours, or a vLLM server.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"spans"})
    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"engine"})

    STAGE: ClassVar[StageKind] = StageKind(
        "scores",
        module="qaq.scoring.stage",
        version=2,
        inputs=("pairs", "adapter"),
        shared=True,
        facts=("{rows} rows", "{unscored} without a score"),
    )

    model: ModelConfig
    framing: FramingConfig
    system_prompt: str | None
    spans: tuple[Span, ...] = SPANS
    engine: Literal["hf", "vllm"] = "hf"
