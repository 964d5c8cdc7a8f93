"""`qaq.run.worker` with something going wrong in it: python workers.py KIND JOB.json

fsdp   Accelerate's FSDP on processors, where Accelerate itself leaves it out without a word;
       only the first process may load the model
zero3  DeepSpeed's ZeRO-3 on processors, which Accelerate leaves out where `use_cpu` is true
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

    if os.environ["RANK"] != "0":
        from qaq.models import load

        def refused(*_: Any, **__: Any) -> Any:
            raise AssertionError("this process loads the whole model")

        load.load_model = refused

    real = trainer.whole_adapter

    def checked(model: Any) -> Any:
        assert all(isinstance(p, DTensor) for p in model.parameters()), "it is not sharded"
        return real(model)

    trainer.whole_adapter = checked


def zero3() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch
    from accelerate import state
    from accelerate.utils import DistributedType

    from qaq.models import load
    from qaq.training import stage, trainer

    def gloo(*_: Any, **__: Any) -> Any:
        return "gloo", DistributedType.MULTI_GPU

    state.PartialState._prepare_backend = gloo
    state.PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    real, read, fit = trainer.arguments, load.load_model, stage.fit

    def arguments(*args: Any, **kwargs: Any) -> Any:
        trainer.torch_device = lambda device: torch.device("cuda")  # so that use_cpu is false
        return real(*args, **kwargs)

    def sharded(*args: Any, **kwargs: Any) -> Any:
        model = read(*args, **kwargs)
        held = sum(p.ds_tensor.numel() for p in model.parameters())
        whole = sum(p.ds_numel for p in model.parameters())
        assert held <= whole / 2 + 1024, f"loading left {held} of {whole} numbers in this process"
        return model

    def checked(job: Any, made: Any) -> Any:
        history = fit(job, made)
        assert type(made.model_wrapped).__name__ == "DeepSpeedEngine"
        return history

    trainer.arguments, load.load_model, stage.fit = arguments, sharded, checked


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

    {"fsdp": fsdp, "zero3": zero3, "full": full, "open": open_, "kill": kill}[sys.argv[1]]()
    worker.leave(worker.main(Path(sys.argv[2])))
