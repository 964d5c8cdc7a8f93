"""How a judgement is made."""

import os
import resource
from dataclasses import dataclass
from typing import Literal

from qaq.evaluation.config import EvalConfig
from qaq.evaluation.sandbox import Setting
from qaq.host.errors import SandboxError

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
        """The settings in a stage's config; `workers` is null for one per core.

        Raises:
            SandboxError: as `refuse_limits`.
        """
        found = cls(config.judge, config.min_time_limit, config.memory_gib, config.sandbox, workers)
        found.refuse_limits()
        return found

    def refuse_limits(self) -> None:
        """Refuse to judge where no program can get the memory that it is promised.

        Raises:
            SandboxError: a hard limit of this process is below it.
        """
        for limit, name in ((resource.RLIMIT_AS, "v"), (resource.RLIMIT_DATA, "d")):
            _, hard = resource.getrlimit(limit)
            if hard != resource.RLIM_INFINITY and hard < self.gib * 2**30:
                raise SandboxError(
                    f"a judged program is promised {self.gib:g} GiB, and the hard limit of memory "
                    f"here is {hard / 2**30:.3g} GiB (ulimit -H{name}); start qaq where it is "
                    "higher (a job's settings, limits.conf), or lower eval.memory_gib"
                )

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
