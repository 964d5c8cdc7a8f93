"""The fine-tuning recipe."""

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class LoraConfig:
    """Low-rank adapters on every Linear layer but the output head."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


@dataclass(frozen=True, kw_only=True, config=FORBID)
class TrainConfig:
    """LoRA fine-tuning; `batch_size` is the effective one, in rows per optimiser step."""

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    lora: LoraConfig = LoraConfig()
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    epochs: float = Field(gt=0)
    warmup_ratio: float = Field(default=0.2, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    cutoff_tokens: int = Field(default=2048, ge=16)
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    seed: int = 0
