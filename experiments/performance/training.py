"""Tokens per second of fine-tuning: the plain recipe against this project's loop.

    python experiments/performance/training.py --rounds 5 --out results/performance/training.json

plain  `Trainer` and PEFT as they come: rows in the same shuffled order, padded to the longest of
       the batch, full logits (bf16: weights in bfloat16 and `bf16=True`)
qaq    this project's loop: rows end to end, loss on the labels alone, fused adapters

Both sides in float32 and bfloat16 train on the same windows of 8 rows from the same start; sides
alternate, and medians and ratios are taken round by round. Their loss curves are compared step by
step. Beside them stands what the machine's own rate of matrix products would allow.

On a GPU, a randomly initialised model of the paper's shape; prints tokens per second and the share
of the card's own matmul rate (each dtype and side holds a model: 13.5 GB in bfloat16):

    python experiments/performance/training.py --shape 6.7b --dtypes bfloat16 --batch 32 --steps 4
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.rows import Entry, Pair, read_row
from qaq.host.hardware import describe
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.models.forward.lora import fuse_lora
from qaq.models.load import load_model, load_tokenizer, torch_device
from qaq.models.template import chat_template
from qaq.store.jobs import Job
from qaq.training.config import TrainConfig
from qaq.training.packed import prepare as prepare_model
from qaq.training.processes import Split
from qaq.training.rows import Encoder, Example
from qaq.training.trainer import WindowTrainer, arguments
from qaq.training.windows import Pool, Window, plan

SHAPES: dict[str, dict[str, Any]] = {
    "6.7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32256,
        "max_position_embeddings": 16384,
    },
    "tiny": {  # to see that this script runs
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    },
}
ADAPTERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass
class Bench:
    """What both sides share."""

    config: ModelConfig
    shape: str | None
    tokenizer: PreTrainedTokenizerBase
    examples: list[Example]
    windows: list[Window]
    steps: int
    train: TrainConfig

    def fresh_model(self, dtype: str) -> PreTrainedModel:
        """The base model, real or of the shape asked for."""
        if self.shape is None:
            return load_model(self.config, dtype=dtype)
        torch.manual_seed(0)
        with torch.device(torch_device("auto")):
            random = LlamaConfig(**SHAPES[self.shape])
            return AutoModelForCausalLM.from_config(random, dtype=getattr(torch, dtype))

    def adapted(self, base: PreTrainedModel) -> PeftModel:
        """The same adapters on each side."""
        torch.manual_seed(1)
        lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=ADAPTERS)
        return get_peft_model(base, lora)

    def part(self, number: int) -> list[Window]:
        """The windows of one round."""
        count = len(self.windows) // self.steps
        start = (number % count) * self.steps
        return self.windows[start : start + self.steps]

    def tokens(self, windows: list[Window]) -> int:
        """Real tokens, padding left out."""
        return sum(len(self.examples[row].ids) for w in windows for row in w.rows)


class Clock(TrainerCallback):
    """Times the steps alone, without set-up and saving, and keeps the losses."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.losses: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        _wait()
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        _wait()
        self.seconds += time.perf_counter() - self.started

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class Plain:
    """The plain recipe. The order is the windows' own, so that loss curves can be compared."""

    def __init__(self, bench: Bench, dtype: str):
        self.bench, self.dtype = bench, dtype
        self.model = bench.adapted(bench.fresh_model(dtype))

    def run(self, windows: list[Window]) -> Clock:
        """Train on `windows`."""
        bench = self.bench
        rows = [bench.examples[row] for w in windows for row in w.rows]
        pad = bench.tokenizer.pad_token_id

        def collate(batch: list[Example]) -> dict[str, torch.Tensor]:
            width = max(len(e.ids) for e in batch)
            gaps = [width - len(e.ids) for e in batch]
            return {
                "input_ids": torch.tensor(
                    [[*e.ids, *[pad] * g] for e, g in zip(batch, gaps, strict=True)]
                ),
                "attention_mask": torch.tensor(
                    [[1] * len(e.ids) + [0] * g for e, g in zip(batch, gaps, strict=True)]
                ),
                "labels": torch.tensor(
                    [[*e.labels, *[-100] * g] for e, g in zip(batch, gaps, strict=True)]
                ),
            }

        with tempfile.TemporaryDirectory() as folder:
            args = TrainingArguments(
                output_dir=folder,
                max_steps=len(windows),
                per_device_train_batch_size=bench.train.batch_size,
                learning_rate=bench.train.learning_rate,
                lr_scheduler_type="constant",
                train_sampling_strategy="sequential",
                bf16=self.dtype == "bfloat16",
                use_cpu=torch_device("auto").type == "cpu",
                logging_steps=1,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                remove_unused_columns=False,
            )
            clock = Clock()
            trainer = Trainer(
                model=self.model,
                args=args,
                train_dataset=rows,  # type: ignore[arg-type]
                data_collator=collate,
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return clock


class Qaq:
    """This project's loop."""

    def __init__(self, bench: Bench, dtype: str):
        self.bench, self.dtype = bench, dtype
        base = bench.fresh_model(dtype)
        prepare_model(base)
        self.model = bench.adapted(base)
        fuse_lora(self.model)

    def run(self, windows: list[Window]) -> Clock:
        """Train on `windows`."""
        bench = self.bench
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            job = Job("adapter", "benchmark", "", {}, {}, where, where, RuntimeConfig())
            rate = bench.train.learning_rate
            args = arguments(job, bench.train, rate, len(windows), seed=1, dtype=self.dtype)
            args.save_strategy = "no"
            clock = Clock()
            split = Split(1, 0, None, job.runtime.token_budget)
            trainer = WindowTrainer(self.model, args, bench.examples, windows, split, bench.train)
            trainer.add_callback(clock)
            trainer.train()
        return clock


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(model: PreTrainedModel, tokens: int) -> float:
    """FLOP/s of the decoder's own Linear layers on `tokens` rows, forward and towards the input."""
    layers = [m for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)]
    shapes = [tuple(m.weight.shape) for m in layers]
    flops = seconds = 0.0
    for out, into in set(shapes):
        weight = torch.randn(out, into, dtype=model.dtype, device=model.device)
        rows = torch.randn(tokens, into, dtype=model.dtype, device=model.device)
        ups = torch.randn(tokens, out, dtype=model.dtype, device=model.device)
        times = []
        for _ in range(9):
            _wait()
            started = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            ups @ weight
            _wait()
            times.append(time.perf_counter() - started)
        count = shapes.count((out, into))
        flops += count * 4.0 * tokens * out * into
        seconds += count * statistics.median(times)
    return flops / seconds


def flops_per_token(model: PreTrainedModel, label_share: float) -> float:
    """What LoRA training cannot avoid: each frozen product forward and towards its input."""
    inner = sum(
        m.weight.numel() for m in model.base_model.modules() if isinstance(m, torch.nn.Linear)
    )
    head = model.get_output_embeddings().weight.numel()
    return 4.0 * (inner + label_share * head)


def prepare(options: argparse.Namespace) -> Bench:
    """Rows spread over the embedded pool (or a JSONL file), as windows."""
    config = ModelConfig(name="bench", id=options.model, chat_template=options.template)
    tokenizer = load_tokenizer(config)
    template = chat_template(tokenizer, config, None)
    encoder = Encoder(tokenizer, template, cutoff=options.cutoff)
    source = DataConfig(
        name="pool", source="jsonl" if options.data else "stdlib", path=options.data
    )
    entries = (e for e in sources.read(source) if isinstance(e, Entry))
    pairs = [p for p in (read_row(e, "pool") for e in entries) if isinstance(p, Pair)]
    chosen = pairs[:: max(1, len(pairs) // options.rows)][: options.rows]
    encoded = [encoder.encode(p.row_id, p.question, p.answer) for p in chosen]
    examples = [e for e in encoded if isinstance(e, Example) and len(e.ids) <= options.longest]
    if options.shape:  # its vocabulary is not the tokenizer's
        words = SHAPES[options.shape]["vocab_size"]
        examples = [replace(e, ids=tuple(i % words for i in e.ids)) for e in examples]
    train = TrainConfig(
        name="bench",
        batch_size=options.batch,
        learning_rate=2e-4,
        epochs=1,
        schedule="constant",
        warmup_ratio=0,
    )
    lengths = [len(e.ids) for e in examples]
    pool = Pool(len(examples), sum(lengths))
    windows = plan([e.row_id for e in examples], lengths, train, 1.0, 1, pool)
    return Bench(config, options.shape, tokenizer, examples, windows, options.steps, train)


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """All sides, alternating."""
    kinds = {"plain": Plain, "qaq": Qaq}
    names = [(side, dtype) for dtype in options.dtypes for side in options.sides]
    sides = {f"{side} {dtype}": kinds[side](bench, dtype) for side, dtype in names}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    curves: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(options.rounds):
        windows = bench.part(number)
        for name, side in sides.items():
            clock = side.run(windows)
            rates[name].append(bench.tokens(windows) / clock.seconds)
            curves[name] += clock.losses
            print(f"round {number + 1}: {name:16} {rates[name][-1]:8.0f} tokens/s", flush=True)
    labels = sum(len(e.ids) - e.prompt for e in bench.examples)
    share = labels / sum(len(e.ids) for e in bench.examples)
    ceilings = {}
    for dtype in options.dtypes:
        model = bench.fresh_model(dtype)
        rate = matmul_rate(model, options.batch * 155)
        ceilings[dtype] = {
            "matmul_gflops": rate / 1e9,
            "tokens_per_second": rate / flops_per_token(model, share),
        }
    return {"tokens_per_second": rates, "losses": curves, "ceilings": ceilings}


def ratio(rates: dict[str, list[float]], one: str, two: str) -> float | None:
    """Median of the round-by-round ratios of two sides."""
    if one not in rates or two not in rates:
        return None
    return statistics.median(a / b for a, b in zip(rates[one], rates[two], strict=True))


def gaps(losses: dict[str, list[float]]) -> dict[str, float]:
    """Largest difference between two sides' losses of a step, in nats per token."""
    pairs = [
        ("qaq float32", "plain float32"),
        ("qaq bfloat16", "plain bfloat16"),
        ("qaq bfloat16", "plain float32"),
        ("plain bfloat16", "plain float32"),
    ]
    return {
        f"{one} against {two}": max(
            abs(a - b) for a, b in zip(losses[one], losses[two], strict=True)
        )
        for one, two in pairs
        if one in losses and two in losses
    }


def summary(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        f"{result['model']}, rows of {result['mean_tokens']:.0f} tokens in the mean, "
        f"batch {result['batch']}, {result['threads']} threads, {result['device']}, "
        f"torch {result['torch']}.",
        "",
        "| side | tokens/s | of what its matrix products allow |",
        "|---|---|---|",
    ]
    for name, rate in result["median_tokens_per_second"].items():
        ceiling = result["ceilings"][name.split()[1]]
        lines.append(
            f"| {name} | {rate:.0f} | {rate / ceiling['tokens_per_second']:.0%} of "
            f"{ceiling['tokens_per_second']:.0f} ({ceiling['matmul_gflops']:.0f} GFLOP/s) |"
        )
    lines += ["", "| ratio of tokens/s (median of rounds) | |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in result["ratios"].items() if value]
    lines += ["", "| largest difference of a step's loss, nats per token | |", "|---|---|"]
    lines += [f"| {name} | {value:.2g} |" for name, value in result["loss_gaps"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--shape", choices=SHAPES, help="a random model of this shape instead")
    parser.add_argument("--data", type=Path, help="a JSONL file instead of the embedded pool")
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--template", help="a packaged chat template, for base models")
    parser.add_argument("--cutoff", type=int, default=512)
    parser.add_argument("--longest", type=int, default=230, help="leave longer rows out")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", default=["plain", "qaq"], choices=["plain", "qaq"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bench = prepare(options)
    found = measure(bench, options)
    rates = found["tokens_per_second"]
    ratios = {
        "same dtype, float32": ratio(rates, "qaq float32", "plain float32"),
        "same dtype, bfloat16": ratio(rates, "qaq bfloat16", "plain bfloat16"),
        "qaq bfloat16 against plain float32": ratio(rates, "qaq bfloat16", "plain float32"),
    }
    lengths = [len(e.ids) for e in bench.examples]
    cuda = torch.cuda.is_available()
    result = {
        "model": options.shape or options.model,
        "device": torch.cuda.get_device_name() if cuda else describe()["cpu"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mean_tokens": statistics.mean(lengths),
        "batch": options.batch,
        "median_tokens_per_second": {n: statistics.median(r) for n, r in rates.items()},
        "ratios": ratios,
        "loss_gaps": gaps(found["losses"]),
        **found,
    }
    print(summary(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        title = "# Fine-tuning: the plain recipe against this project's loop\n\n"
        options.out.with_suffix(".md").write_text(title + summary(result))


if __name__ == "__main__":
    main()
