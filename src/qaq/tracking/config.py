"""Where the record of a run is mirrored to."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Tag = Annotated[str, Field(min_length=1, max_length=64)]  # what W&B takes


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrackingConfig:
    """Weights & Biases: offline keeps the runs in `<store>/wandb` for a later `qaq sync`.

    There is a run for each arm and seed and one for the comparison; `stages` adds one for each
    stage. Subsets, scores and adapters are W&B artifacts of every run that made or read them: by
    `reference` their files stay in the store and W&B knows where; as `file` they are copied and
    sent.
    """

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "qaq"
    entity: str | None = None
    tags: tuple[Tag, ...] = ()  # beside the experiment and the rule
    notes: str | None = None
    stages: bool = False
    artifacts: Literal["reference", "file"] = "reference"
