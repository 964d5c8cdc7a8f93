"""What is embedded, and by which model."""

from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.evaluation.config import Suite
from qaq.host.runtime import UserPath
from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EmbeddingsStage:
    """Inputs: `pairs`, to embed a pool; or none, to embed the target queries.

    The last three fields concern queries only: their file, and whose problems they must not repeat.
    """

    STAGE: ClassVar[StageKind] = StageKind(
        "embeddings", module="qaq.embedding.stage", version=1, inputs=("pairs",), shared=True
    )
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"queries", "specs"})

    model: ModelConfig
    system_prompt: str | None
    max_tokens: int
    queries: UserPath | None = None
    suites: tuple[str, ...] = ()
    specs: dict[str, Suite] = Field(default_factory=dict)
