"""One stage's work order: what a worker process is to do, as one resolved file.

A stage's module (see `qaq.store.stages`) offers `run(job) -> summary`. It reads `job.inputs`,
writes `job.out`, keeps resume state in `job.scratch` and knows nothing else of the world.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from qaq.host.runtime import RuntimeConfig
from qaq.store.records import Record
from qaq.store.tables import read_json, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What one stage needs to know.

    `config` is the stage's own config as a plain tree; `inputs` maps a role to an artifact's
    folder; `out` becomes the artifact; `scratch` survives a kill and is deleted on success;
    `module` is what the stage's process runs; `command` and `revision` are what a page says of
    how it was made, and enter nothing else.
    """

    kind: str
    name: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, Path]
    out: Path
    scratch: Path
    runtime: RuntimeConfig
    module: str = ""
    command: str = ""
    revision: str = ""

    def parse(self, schema: type[T]) -> T:
        """The stage's config as its own dataclass."""
        return TypeAdapter(schema).validate_python(self.config)

    @property
    def rank(self) -> int:
        """This process's number among those that `accelerate launch` started (else 0)."""
        return int(os.environ.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        """How many processes work on this job together."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def record(self) -> Record:
        """The local record of this stage; it travels with the artifact (rank 0's)."""
        name = "record.jsonl" if self.rank == 0 else f"record-{self.rank}.jsonl"
        return Record(self.out / name)


def save(job: Job, path: Path) -> None:
    """Write a job for a worker to read."""
    adapter = TypeAdapter(Job)
    write_json(path, adapter.dump_python(job, mode="json"))


def load(path: Path) -> Job:
    """Read a job."""
    return TypeAdapter(Job).validate_python(read_json(path))
