"""How a judgement is made."""

import os
from dataclasses import dataclass
from typing import Literal

from qaq.evaluation.config import EvalConfig
from qaq.evaluation.sandbox import Setting

STOCK_SECONDS, STOCK_GIB = 1.0, 4.0  # EvalPlus's own


@dataclass(frozen=True)
class JudgeSettings:
    """How to judge; see `EvalConfig` for the meaning of the fields."""

    judge: Literal["repaired", "stock"] = "repaired"
    min_time_limit: float = 4.0
    memory_gib: float = 8.0
    sandbox: Setting = "auto"
    workers: int | None = None

    @classmethod
    def of(cls, config: EvalConfig, workers: int | None = None) -> "JudgeSettings":
        """The settings in a stage's config; `workers` is null for one per core."""
        return cls(config.judge, config.min_time_limit, config.memory_gib, config.sandbox, workers)

    @property
    def seconds(self) -> float:
        """The least time per input, in seconds."""
        return STOCK_SECONDS if self.judge == "stock" else self.min_time_limit

    @property
    def gib(self) -> float:
        """Address space of one sample, in GiB."""
        return STOCK_GIB if self.judge == "stock" else self.memory_gib

    @property
    def parallel(self) -> int:
        """Samples judged at a time."""
        cores = len(os.sched_getaffinity(0))
        if self.judge == "stock":
            return max(1, cores // 2)
        return self.workers or cores
