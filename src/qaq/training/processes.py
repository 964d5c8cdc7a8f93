"""What the processes of one training run tell each other, and how much memory each may fill.

Gradients are added up by hand where every process holds the whole model: an adapter is small, so
one sum after the last micro-batch costs nothing, and until then each process is free to fail for
lack of memory without leaving the others in a collective operation. Sharded models (FSDP,
DeepSpeed ZeRO-3) talk inside every layer, so there the library sums and nobody can step back.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from qaq.store.tables import read_json, write_json

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)  # one model over all processes


@dataclass(frozen=True)
class Split:
    """How windows are cut on this machine; it does not change the result.

    `memory` is a file that keeps, over kills and restarts, by how much the micro-batch had to be
    cut for lack of memory.
    """

    processes: int
    rank: int
    micro_batch: int | None
    token_budget: int
    memory: Path | None = None

    def known_cuts(self) -> int:
        """The factor that an earlier attempt found necessary, or 1."""
        if self.memory is None or not self.memory.exists():
            return 1
        return int(read_json(self.memory)["cuts"])

    def remember_cuts(self, cuts: int) -> None:
        """Keep the factor for the next attempt."""
        if self.memory is not None:
            write_json(self.memory, {"cuts": cuts})


def is_deepspeed() -> bool:
    """Whether `accelerate launch` was asked to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def is_fsdp() -> bool:
    """Whether `accelerate launch` was asked to use FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def checkpoints(scratch: Path, processes: int) -> Path:
    """Where this way of sharing the model keeps its checkpoints.

    None can go on from another's: most fail, and for one of DeepSpeed's Transformers begins the
    optimiser and the schedule anew without a word. DeepSpeed's hold for one number of processes.
    """
    if is_deepspeed():
        return scratch / f"checkpoints-deepspeed-{processes}"
    return scratch / ("checkpoints-fsdp" if is_fsdp() else "checkpoints")


def wait_for_all() -> None:
    """Return once every process has come here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def total(values: Sequence[float], device: torch.device, processes: int) -> list[float]:
    """The sum of each value over all processes; every process must ask."""
    if processes == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(tensor)
    return [float(value) for value in tensor]


def average_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Replace each gradient by its mean over all processes, in one message.

    A process may have none where another has one: of an expert that none of its tokens went to.
    """
    if processes == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    known = trained[0].new_tensor([p.grad is not None for p in trained])
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([known, *(part.reshape(-1) for part in parts)])
    distributed.all_reduce(flat)
    flat /= processes
    known, *means = torch.split(flat, [len(parts), *(part.numel() for part in parts)])
    for parameter, mean, somewhere in zip(trained, means, known.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) if somewhere else None


def whole_adapter(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters of a model sharded by FSDP, whole, on the host; all must ask."""
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in trained.items()}
    return {name: tensor.to("cpu", copy=True) for name, tensor in whole.items()}
