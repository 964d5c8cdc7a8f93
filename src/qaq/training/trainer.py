"""The training loop: `transformers.Trainer` with one window of rows as its unit.

The Trainer keeps what it does well (optimiser, schedule, clipping, checkpoints, FSDP and
DeepSpeed through Accelerate). What is ours is the step: a window is cut into micro-batches, the
sum of the labels' losses is divided by the labels of the whole window, on all processes together,
so the gradient does not depend on how the window was cut.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from qaq.errors import StageError
from qaq.hardware import resolve_device
from qaq.job import Job
from qaq.progress import Progress
from qaq.tracking.record import Record
from qaq.training.config import TrainConfig
from qaq.training.packed import pack
from qaq.training.rows import Example
from qaq.training.windows import Window, deal, pieces_for

COMPLETE = "complete"


@dataclass(frozen=True)
class Split:
    """How windows are cut on this machine; it does not change the result."""

    processes: int
    rank: int
    micro_batch: int | None
    token_budget: int


class Windows(Dataset[Window]):
    """The plan as a dataset whose items are whole windows."""

    def __init__(self, windows: Sequence[Window]):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]


class WindowTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose batches are windows of `examples`."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        examples: Sequence[Example],
        windows: Sequence[Window],
        split: Split,
        loss_bound: float,
    ):
        super().__init__(model=model, args=args, train_dataset=Windows(windows))
        self.remove_callback(PrinterCallback)
        self.examples = examples
        self.lengths = [len(e.ids) for e in examples]
        self.split = split
        self.loss_bound = loss_bound
        self.factor = 1  # raised when memory runs out
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
            StageError: the loss is not a number or above its bound; nothing was updated.
        """
        window: Window = inputs["window"]
        started = time.perf_counter()
        model.train()
        while True:
            pieces = self.factor * pieces_for(
                window.rows,
                self.lengths,
                self.split.processes,
                self.split.micro_batch,
                self.split.token_budget,
            )
            try:
                nll = self._accumulate(model, window, pieces)
                break
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._halve(error, window, pieces)
                model.zero_grad()
        labels = self._labels(window.rows)
        loss = nll.sum() * (self.split.processes / labels)
        self._guard(window, nll)
        tokens = sum(self.lengths[row] for row in window.rows)
        self.facts = {
            "epoch": window.epoch + 1,
            "rows": len(window.rows),
            "tokens": tokens,
            "labels": labels,
            "tokens_per_second": tokens / (time.perf_counter() - started),
            "memory_mib": _memory_mib(),
        }
        return loss

    def _accumulate(self, model: nn.Module, window: Window, pieces: int) -> Tensor:
        """Backward through this process's micro-batches; returns the NLL of its labels."""
        mine = deal(window.rows, self.lengths, self.split.processes, pieces)[self.split.rank]
        scale = self.split.processes / self._labels(window.rows)
        found = []
        for number, rows in enumerate(mine):
            last = number == len(mine) - 1
            batch = pack(
                [self.examples[row] for row in rows or window.rows[-1:]],
                self.args.device,
                silent=not rows,
            )
            # the last micro-batch adds the processes' gradients together
            self.accelerator.gradient_state._set_sync_gradients(last)
            waiting = contextlib.nullcontext() if last else self.accelerator.no_sync(model)
            with waiting:
                nll = model(**batch)
                self.accelerator.backward(nll.sum() * scale)
            found.append(nll.detach())
        return torch.cat(found)

    def _labels(self, rows: Sequence[int]) -> int:
        return sum(len(self.examples[row].ids) - self.examples[row].prompt for row in rows)

    def _halve(self, error: RuntimeError, window: Window, pieces: int) -> None:
        """Go on with half the micro-batch after running out of memory, or raise."""
        text = str(error).lower()
        if "out of memory" not in text and "can't allocate memory" not in text:
            raise error
        if self.split.processes > 1:  # the other processes wait in a collective operation
            raise StageError(
                f"step {window.step}: out of memory. Set runtime.micro_batch or "
                "runtime.token_budget lower and run the same command again; it continues from the "
                "last checkpoint to the same result"
            ) from error
        if pieces >= len(window.rows):
            longest = max(self.lengths[row] for row in window.rows)
            raise StageError(
                f"step {window.step}: out of memory with a single row of {longest} tokens; lower "
                "train.cutoff_tokens or set train.gradient_checkpointing=true"
            ) from error
        self.factor *= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _guard(self, window: Window, nll: Tensor) -> None:
        """Stop before an update that would spoil the adapter."""
        mean = float(nll.mean()) if len(nll) else 0.0
        bound = self.loss_bound * math.log(self.model.config.vocab_size)
        if math.isfinite(mean) and mean <= bound:
            return
        rows = ", ".join(self.examples[row].row_id for row in window.rows[:16])
        more = "" if len(window.rows) <= 16 else f" and {len(window.rows) - 16} more"
        raise StageError(
            f"step {window.step}: the loss is {mean:.4g} nats per token (bound {bound:.3g}); the "
            f"rows of this step: {rows}{more}. Lower train.learning_rate, or look at these rows"
        )

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
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            (folder / COMPLETE).touch()


class SaveWhenTold(TrainerCallback):  # type: ignore[misc]
    """Saves after the step in which this process, or another one of the stage, is told to stop."""

    def __init__(self, told: Callable[[], bool], accelerator: Accelerator):
        self.told = told
        self.accelerator = accelerator

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Processes hear of it at different steps, so they agree on one."""
        count = torch.tensor(float(self.told()), device=self.accelerator.device)
        if self.accelerator.num_processes > 1:
            count = self.accelerator.reduce(count)
        if count > 0:
            control.should_save = control.should_training_stop = True


def arguments(
    job: Job, config: TrainConfig, learning_rate: float, steps: int, seed: int
) -> TrainingArguments:
    """The Trainer's settings; what decides the result is taken from `config` alone."""
    return TrainingArguments(
        output_dir=str(job.scratch / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=1,  # a window
        gradient_accumulation_steps=1,  # inside the window
        learning_rate=learning_rate,
        lr_scheduler_type=config.schedule if config.warmup_ratio == 0 else _warm(config.schedule),
        warmup_steps=math.ceil(steps * config.warmup_ratio),
        optim="adamw_torch",
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=seed,
        ddp_find_unused_parameters=False,
        use_cpu=resolve_device(job.runtime.device) == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def _warm(schedule: str) -> str:
    return "constant_with_warmup" if schedule == "constant" else schedule


def is_deepspeed() -> bool:
    """Whether `accelerate launch` was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    whole = [p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def _memory_mib() -> int:
    """Peak memory so far, of the device that computes, in MiB."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() >> 20)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
