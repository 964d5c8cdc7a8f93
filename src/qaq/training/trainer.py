"""The training loop: `transformers.Trainer` with one window of rows as its unit.

The Trainer keeps what it does well (optimiser, schedule, clipping, checkpoints, FSDP and
DeepSpeed through Accelerate). What is ours is the step: a window is cut into micro-batches, the
sum of the labels' losses is divided by the labels of the whole window, on all processes together,
so the gradient does not depend on how the window was cut.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from qaq.host import hardware
from qaq.host.errors import StageError
from qaq.host.progress import Progress
from qaq.models.load import torch_device
from qaq.store.jobs import Job
from qaq.store.records import Record
from qaq.training.checkpoints import mark
from qaq.training.config import TrainConfig
from qaq.training.guards import loss_problem, name_rows, rise_problem, worst_first
from qaq.training.packed import pack
from qaq.training.processes import (
    SHARDED,
    Split,
    average_gradients,
    checkpoints,
    is_deepspeed,
    total,
    wait_for_all,
    whole_adapter,
)
from qaq.training.rows import Example
from qaq.training.windows import Window, pieces_for, shard


class WindowTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose batches are windows of `examples`."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        examples: Sequence[Example],
        windows: Sequence[Window],
        split: Split,
        config: TrainConfig,
    ):
        super().__init__(model=model, args=args, train_dataset=list(windows))
        self.remove_callback(PrinterCallback)
        self.examples = examples
        self.lengths = [len(e.ids) for e in examples]
        self.labels = [len(e.ids) - e.prompt for e in examples]
        self.split = split
        self.sharded = self.accelerator.distributed_type in SHARDED
        self.bound = config.loss_bound * math.log(self.model.config.get_text_config().vocab_size)
        self.rise = config.loss_rise
        self.cuts = split.known_cuts()  # raised when memory runs out
        self.facts: dict[str, float] = {}

    def get_train_dataloader(self) -> DataLoader[Window]:
        """The windows in their planned order; every process sees them all and takes its share."""
        return DataLoader(
            self.train_dataset, batch_size=1, collate_fn=lambda items: {"window": items[0]}
        )

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        """Gradients of one window; returns its mean loss per label (this process's share).

        Raises:
            StageError: the loss is not a number, above its bound or rising, and nothing was
                updated; or memory does not suffice.
        """
        window: Window = inputs["window"]
        started = time.perf_counter()
        model.train()
        while (nll := self._gradients(model, window)) is None:  # memory ran out somewhere
            model.zero_grad()
            self.cuts *= 2
            self.split.remember_cuts(self.cuts)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if not self.sharded:
            average_gradients(model.parameters(), self.split.processes)
        tokens = sum(self.lengths[row] for row in window.rows)
        labels = sum(self.labels[row] for row in window.rows)
        self.facts = {
            "epoch": window.epoch + 1,
            "rows": len(window.rows),
            "tokens": tokens,
            "labels": labels,
            "tokens_per_second": tokens / (time.perf_counter() - started),
            "memory_mib": _memory_mib(),
        }
        return nll * (self.split.processes / labels)

    def _gradients(self, model: nn.Module, window: Window) -> Tensor | None:
        """Put this process's gradients in place; returns the summed NLL of its labels.

        None, in every process, if memory ran out in any of them.
        """
        pieces = self.cuts * pieces_for(
            window.rows,
            self.lengths,
            self.split.processes,
            self.split.micro_batch,
            self.split.token_budget,
        )
        nll = None
        try:
            nll = self._accumulate(model, window, pieces)
        except RuntimeError as error:
            self._only_memory(error, window, pieces)
        # here the error is gone, and with it the tensors that its traceback held
        if self.sharded:
            return nll
        (failed,) = total([float(nll is None)], self.args.device, self.split.processes)
        return None if failed else nll

    def _accumulate(self, model: nn.Module, window: Window, pieces: int) -> Tensor:
        """Backward through this process's micro-batches; returns the summed NLL of its labels."""
        mine = shard(window.rows, self.lengths, self.split.processes, pieces)[self.split.rank]
        scale = self.split.processes / sum(self.labels[row] for row in window.rows)
        found: list[Tensor] = []
        for number, rows in enumerate(mine):
            last = number == len(mine) - 1
            batch = pack(
                [self.examples[row] for row in rows or window.rows[-1:]],
                self.args.device,
                silent=not rows,
            )
            with self._summing(model, last and self.sharded):
                nll = model(**batch)
                found.append(nll.detach())
                if last:  # some engines update the weights inside this backward pass
                    self._guard(window, [row for piece in mine for row in piece], torch.cat(found))
                self.accelerator.backward(nll.sum() * scale)
        return torch.cat(found).sum()

    def _summing(self, model: nn.Module, now: bool) -> contextlib.AbstractContextManager[None]:
        """Whether the library sums the processes' gradients in this backward pass."""
        self.accelerator.gradient_state._set_sync_gradients(now or not self.sharded)
        return contextlib.nullcontext() if now else self.accelerator.no_sync(model)

    def _only_memory(self, error: RuntimeError, window: Window, pieces: int) -> None:
        """Raise unless the error is one of memory that a smaller micro-batch can cure."""
        text = str(error).lower()
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise error
        if pieces * self.split.processes >= len(window.rows):
            longest = max(self.lengths[row] for row in window.rows)
            raise StageError(
                f"step {window.step}: out of memory with a single row of {longest} tokens; lower "
                "train.cutoff_tokens or set train.gradient_checkpointing=true"
            ) from error
        if self.sharded:  # the other processes wait in a collective operation
            self.split.remember_cuts(2 * self.cuts)
            raise StageError(
                f"step {window.step}: out of memory. Run the same command again: it continues from "
                "the last checkpoint with half the micro-batch, to the same result"
            ) from error

    def _guard(self, window: Window, rows: Sequence[int], nll: Tensor) -> None:
        """Stop before an update that would spoil the adapter; names the rows of largest loss."""
        losses = [line["loss"] for line in self.state.log_history if "loss" in line]
        mean = float(nll.mean()) if len(nll) else 0.0
        problem = loss_problem(mean, self.bound) or rise_problem(losses, self.rise)
        if problem is None:
            return
        ids = [self.examples[row].row_id for row in rows or window.rows]
        ordered = worst_first(ids, [self.labels[row] for row in rows], nll) if rows else ids
        raise StageError(
            f"step {window.step}: {problem}; the rows of this step, worst first: "
            f"{name_rows(ordered)}. "
            "Lower train.learning_rate, or look at these rows"
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter alone; where the model is spread over processes, gather no more."""
        if self.accelerator.distributed_type != DistributedType.FSDP:
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir, state_dict=whole_adapter(self.model))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our facts to the Trainer's line of a step."""
        if "loss" in logs:
            logs |= self.facts
            epoch = logs["epoch"]
            super().log(logs, start_time)
            logs["epoch"] = self.state.log_history[-1]["epoch"] = epoch
        else:
            super().log(logs, start_time)


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Copies each step to the stage's record and marks checkpoints that are whole."""

    def __init__(self, record: Record, progress: Progress):
        self.record = record
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One line per step; the Trainer's closing summary is not a step."""
        if logs and "loss" in logs:
            self.record.log(step=state.global_step, **logs)
            self.progress.update(1, logs["tokens"])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint as whole: a kill in the middle of saving leaves it unmarked."""
        wait_for_all()  # each process saves a part
        if state.is_world_process_zero:
            mark(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class SaveOnRequest(TrainerCallback):  # type: ignore[misc]
    """Saves after the step in which this process, or another one of the stage, is asked to stop."""

    def __init__(self, requested: Callable[[], bool], accelerator: Accelerator):
        self.requested = requested
        self.accelerator = accelerator
        self.agreed = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Processes hear of it at different steps, so they agree on one."""
        count = torch.tensor(float(self.requested()), device=self.accelerator.device)
        if self.accelerator.num_processes > 1:
            count = self.accelerator.reduce(count)
        if count > 0:
            self.agreed = True
            control.should_save = control.should_training_stop = True


def arguments(
    job: Job, config: TrainConfig, learning_rate: float, steps: int, seed: int, dtype: str
) -> TrainingArguments:
    """The Trainer's settings; what decides the result is taken from `config` alone.

    DeepSpeed computes in one precision, that of the model; elsewhere adapters stay in float32.
    """
    warm = config.warmup_ratio > 0 and config.schedule == "constant"
    settings = TrainingArguments(
        output_dir=str(checkpoints(job.scratch, job.world_size)),
        max_steps=steps,
        per_device_train_batch_size=1,  # a window
        gradient_accumulation_steps=1,  # inside the window
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup" if warm else config.schedule,
        warmup_steps=math.ceil(steps * config.warmup_ratio),
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=seed,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        use_cpu=torch_device(job.runtime.device).type == "cpu",
        bf16=is_deepspeed() and dtype == "bfloat16",
        fp16=is_deepspeed() and dtype == "float16",
        activation_checkpointing=config.gradient_checkpointing,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=None,  # the Trainer's goes by the clock (`qaq.training.checkpoints`)
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    settings._n_gpu = min(settings.n_gpu, 1)  # several cards in one process: not DataParallel
    return settings


def _memory_mib() -> int:
    """Peak memory so far, of the device that computes, in MiB."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() >> 20)
    return hardware.peak_rss_mib()
