"""Where and how fast the stages of a run work."""

import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.host.paths import expanded
from qaq.host.plugins import options

UserPath = Annotated[Path, AfterValidator(expanded)]


def _servers(value: Any) -> Any:
    """Addresses by what they serve; one or a list of them serves the target model."""
    given = value if isinstance(value, dict) else {} if value is None else {"target": value}
    return {name: tuple(map(_address, _listed(urls))) for name, urls in given.items()}


def _listed(urls: Any) -> list[Any]:
    return list(urls) if isinstance(urls, list | tuple) else [urls]


def _address(url: Any) -> str:
    text = str(url).rstrip("/")
    if not text.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no address of a server, such as http://127.0.0.1:8000")
    return text if text.endswith("/v1") else f"{text}/v1"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RuntimeConfig:
    """Where and how fast. Nothing here may change a result, save that `vllm` is another engine.

    `processes` are those of each of `hosts`, which `srun` reaches inside a Slurm job.
    `accelerate` says how they share a training run: the name of a file in
    `conf/accelerate` (ddp, fsdp, zero3) or a path; null = a copy of the model in each.
    `only` are keys of stages: these, and what they rest on, are made, and no other.
    `vllm` are servers that score and answer in place of our own engine: a URL, several, or those
    of each role (strong, weak, target); checked, by the id of the model that they serve.
    """

    store: UserPath = Path("artifacts")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(default=1, ge=1)
    hosts: int = Field(default=1, ge=1)
    accelerate: str | None = None
    token_budget: int = Field(default=2048, ge=1)
    shard_rows: int = Field(default=512, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    generation_batch: int | None = Field(default=None, ge=1)
    judge_workers: int | None = Field(default=None, ge=1)
    on_failure: Literal["continue", "stop"] = "continue"
    only: tuple[str, ...] | None = None
    vllm: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_servers)] = Field(
        default_factory=dict
    )

    @property
    def accelerate_file(self) -> Path | None:
        """The file of settings for `accelerate launch`."""
        if self.accelerate is None:
            return None
        return options("accelerate").get(self.accelerate, Path(self.accelerate).expanduser())


def store_option(store: Path) -> str:
    """What names a store on a command line, where it is not the usual one."""
    usual = store.absolute() == RuntimeConfig().store.absolute()
    return "" if usual else f" --store {shlex.quote(str(store))}"
