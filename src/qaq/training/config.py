"""The fine-tuning recipe."""

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
Match = Literal["epochs", "steps", "tokens"]  # what arms have in common


@dataclass(frozen=True, kw_only=True, config=FORBID)
class LoraConfig:
    """Low-rank adapters on every Linear layer but the output head."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class ShareRecipe:
    """What changes for arms that keep at most `share` of the pool."""

    share: float = Field(gt=0, le=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class TrainConfig:
    """LoRA fine-tuning.

    `batch_size` is the effective one, in rows per optimiser step; how it is cut into micro-batches
    and spread over processes follows from the machine and does not change the result. `by_share`
    replaces batch size and learning rate for smaller subsets (see `recipe`).

    `match` says what all arms have in common: `epochs`, each sees its own rows `epochs` times;
    `steps` or `tokens`, each repeats its rows until it has had the optimiser steps, or the tokens,
    that the whole pool would have had in `epochs`.

    `label_after_end` also trains what the template puts after the end-of-turn token, as
    LlamaFactory does; without it the labels are the answer and its end token.
    `loss_bound` stops a run whose loss passes that multiple of ln(vocabulary), the loss of
    guessing; `loss_rise` one whose mean loss lies so many nats above where it began.
    `push_to_hub` is the OWNER/NAME that adapters are sent to as OWNER/NAME-<adapter>-<key>, as
    private repositories unless `hub_public`; null sends nothing.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset(
        {
            "name",
            "checkpoint_steps",
            "gradient_checkpointing",
            "loss_rise",
            "push_to_hub",
            "hub_public",
        }
    )

    name: str
    lora: LoraConfig = LoraConfig()
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    by_share: tuple[ShareRecipe, ...] = ()
    epochs: float = Field(gt=0)
    match: Match = "epochs"
    warmup_ratio: float = Field(default=0.2, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    cutoff_tokens: int = Field(default=2048, ge=16)
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    label_after_end: bool = False
    loss_bound: float = Field(default=1.5, gt=0)
    loss_rise: float = Field(default=2.0, gt=0)
    checkpoint_steps: int = Field(default=10, ge=1)
    gradient_checkpointing: bool = False
    push_to_hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    hub_public: bool = False

    def recipe(self, share: float) -> ShareRecipe:
        """The recipe of the smallest listed share that is not below `share`."""
        fitting = [r for r in self.by_share if r.share >= share - 1e-9]
        base = ShareRecipe(share=1, batch_size=self.batch_size, learning_rate=self.learning_rate)
        return min([*fitting, base], key=lambda r: r.share)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class AdapterStage:
    """Inputs: `pairs`, `subset`. `share` is the share of the pool asked for (recipes by share)."""

    STAGE: ClassVar[StageKind] = StageKind(
        "adapter",
        module="qaq.training.stage",
        version=2,
        inputs=("pairs", "subset"),
        shared=True,
        accelerated=True,
        facts=("{rows} rows", "loss {loss:.3f}"),
    )

    model: ModelConfig
    train: TrainConfig
    system_prompt: str | None
    share: float
    seed: int
