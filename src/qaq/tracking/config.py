"""Where the record of a run is mirrored to."""

from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrackingConfig:
    """Weights & Biases: offline keeps the runs in `<store>/wandb` for a later `qaq sync`."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    project: str = "qaq"
    entity: str | None = None
