"""What a stage declares of itself, once: the planner, the runner and the worker read it here.

The config of a stage is a frozen dataclass with a class attribute `STAGE`. It holds exactly what
the stage needs of the experiment: the key is made from it, and the stage's process gets it back.
Declarations import nothing heavy, so that planning stays quick.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StageKind:
    """One kind of stage.

    Attributes:
        kind: what it makes, also the name of the artifacts' folder.
        module: where `run(job) -> summary` is; only the stage's own process imports it.
        version: raised when the meaning of the result changes; a function of the config where that
            spares results that did not change.
        inputs: the roles that its inputs may have; `*` stands for any name in one.
        shared: whether several processes may make one artifact together.
        accelerated: whether `runtime.accelerate` says how they do it.
        facts: what the line of a finished stage shows of its summary, the first the most important.
    """

    kind: str
    module: str
    version: int | Callable[[Any], int]
    inputs: tuple[str, ...] = ()
    shared: bool = False
    accelerated: bool = False
    facts: tuple[str, ...] = ("{rows} rows",)

    def version_of(self, config: Any) -> int:
        """The version that enters the key of a stage with this config."""
        return self.version if isinstance(self.version, int) else self.version(config)

    def facts_of(self, summary: Mapping[str, Any]) -> list[str]:
        """What there is to show of a summary; what it lacks, or has as null, is left out."""
        shown = []
        for fact in self.facts:
            with suppress(KeyError, TypeError, ValueError):
                shown.append(fact.format(**summary))
        return shown
