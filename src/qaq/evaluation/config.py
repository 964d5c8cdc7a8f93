"""What is asked of a model, how it answers and how its programs are judged."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
Suite = Literal["humaneval", "mbpp", "mini"]
Mode = Literal["chat", "completion", "evalplus_chat"]

# How many answers are written at a time where nobody says, by kind of device.
CACHE_SHARE = {"cpu": 0.25, "cuda": 0.8}  # of the free memory, for keys and values
MOST_ROWS = {"cpu": 192, "cuda": 512}


@dataclass(frozen=True, kw_only=True, config=FORBID)
class BenchmarkConfig:
    """Which problems. `files` points a suite at a local EvalPlus data file; `limit`/`tasks` cut.

    A file's content is in the key; `allow_unknown_data` accepts one that is not a known release.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name", "files", "allow_unknown_data"})

    name: str
    suites: tuple[Suite, ...]
    files: dict[Suite, Path] = Field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    limit: int | None = Field(default=None, ge=1)
    allow_unknown_data: bool = False


@dataclass(frozen=True, kw_only=True, config=FORBID)
class EvalConfig:
    """How answers are generated and judged.

    `bits_prompt`: what stands before the solutions whose bits per byte are measured; null for
    `prompt`.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    prompt: Mode = "chat"
    bits_prompt: Mode | None = None
    generator: Literal["hf", "vllm"] = "hf"
    max_new_tokens: int = Field(default=768, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int = 0
    judge: Literal["repaired", "stock"] = "repaired"
    min_time_limit: float = Field(default=4.0, gt=0)
    memory_gib: float = Field(default=8.0, gt=0)
    sandbox: Literal["auto", "bubblewrap", "unshare", "landlock", "limits"] = "auto"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OutcomesStage:
    """Inputs: `adapter`, or none for the untuned model."""

    STAGE: ClassVar[StageKind] = StageKind(
        "outcomes", module="qaq.evaluation.stage", version=2, inputs=("adapter",)
    )
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"file", "allow_unknown_data"})

    model: ModelConfig
    system_prompt: str | None
    eval: EvalConfig
    suite: Suite
    file: Path | None = None
    allow_unknown_data: bool = False
    tasks: tuple[str, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OverlapsStage:
    """Inputs: `pairs`."""

    STAGE: ClassVar[StageKind] = StageKind(
        "overlaps", module="qaq.evaluation.overlaps", version=1, inputs=("pairs",)
    )
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"files", "allow_unknown_data"})

    suites: tuple[Suite, ...]
    files: dict[Suite, Path] = Field(default_factory=dict)
    allow_unknown_data: bool = False
