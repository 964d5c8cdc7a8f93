"""`qaq.run.worker` with something going wrong in it: python workers.py KIND JOB.json

fsdp   Accelerate's FSDP on processors, where Accelerate itself leaves it out without a word
full   the second process runs out of memory on micro-batches of more than two rows
open   whoever closes what the processes talk through fails: it can wait for ever
kill   POINT and COUNT in the environment: dies by SIGKILL at the COUNT-th call of POINT
"""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any


def fsdp() -> None:
    from accelerate import state
    from accelerate.utils import DistributedType

    init = state.AcceleratorState.__init__

    def sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        self.distributed_type = DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = sharded

    from torch.distributed.tensor import DTensor

    from qaq.training import trainer

    real = trainer.whole_adapter

    def checked(model: Any) -> Any:
        assert all(isinstance(p, DTensor) for p in model.parameters()), "it is not sharded"
        return real(model)

    trainer.whole_adapter = checked


def full() -> None:
    import torch

    from qaq.training import trainer

    real = trainer.pack

    def limited(examples: Any, *args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == "1" and len(examples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(examples, *args, **kwargs)

    trainer.pack = limited


def open_() -> None:
    from torch import distributed

    def closed(*args: Any) -> None:
        raise AssertionError("the process group was closed")

    distributed.destroy_process_group = closed


def kill() -> None:
    module, _, path = os.environ["POINT"].partition(":")
    holder: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    real = getattr(holder, name)
    calls = []

    def deadly(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == int(os.environ["COUNT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(holder, name, deadly)


if __name__ == "__main__":
    from qaq.run import worker

    {"fsdp": fsdp, "full": full, "open": open_, "kill": kill}[sys.argv[1]]()
    worker.leave(worker.main(Path(sys.argv[2])))
