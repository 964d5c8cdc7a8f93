"""The `adapter` stage: fine-tunes the target model on the kept rows with LoRA.

Inputs: `pairs`, `subset`. Writes a PEFT adapter (`adapter_model.safetensors`,
`adapter_config.json`), `prompt.json` (the layout it was trained with, which evaluation checks),
`training.jsonl` (one line per step), `refused.jsonl` and a card. A killed stage continues from its
last whole checkpoint; on CPU in float32 to the same bytes.
"""

import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qaq.host.errors import DataError, ModelError, Preempted, StageError
from qaq.host.terminal import show
from qaq.models.identity import identity
from qaq.store.jobs import Job
from qaq.store.tables import (
    PAIRS_WITH_SYSTEM,
    SUBSET,
    read_json,
    read_table,
    with_system,
    write_json,
    write_jsonl,
)
from qaq.training.config import AdapterStage

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Parameter
    from transformers import PreTrainedModel, TrainingArguments

    from qaq.models.template import ChatTemplate
    from qaq.training.rows import Encoder, Example, Refusal
    from qaq.training.trainer import WindowTrainer
    from qaq.training.windows import Pool

SHOWN = 3  # rendered examples kept in prompt.json


def run(job: Job) -> dict[str, Any]:
    """Train one adapter.

    Raises:
        DataError: the subset is empty, or every row of it was refused.
        ModelError: the model, its tokenizer or its chat template does not fit.
        StageError: the loss diverged, or memory does not suffice for a single row.
        Preempted: this process or another one was asked to stop, and a checkpoint is saved.
    """
    from qaq.models.load import fitting, load_tokenizer
    from qaq.models.template import chat_template
    from qaq.training.processes import wait_for_all
    from qaq.training.rows import Encoder
    from qaq.training.windows import plan, seed_for

    started = time.monotonic()
    config = job.parse(AdapterStage)
    train = config.train
    tokenizer = load_tokenizer(config.model)
    template = chat_template(tokenizer, config.model, config.system_prompt)
    cutoff = fitting(config.model, train.cutoff_tokens, "train.cutoff_tokens")
    encoder = Encoder(tokenizer, template, cutoff, train.label_after_end)
    examples, refusals, pool = encode_rows(job, encoder, whole_pool=train.match == "tokens")
    systems = count_systems(job, template, {e.row_id for e in examples})
    windows = plan(
        [e.row_id for e in examples],
        [len(e.ids) for e in examples],
        train,
        config.share,
        seed_for("order", config.seed),
        pool,
    )
    args = settings(job, config, len(windows))  # before the model, which DeepSpeed shards by them
    model, counts, alone = build(job, config)
    trainer = make_trainer(job, config, args, model, examples, windows, alone)
    history = fit(job, trainer)
    summary = {
        "rows": len(examples),
        "refused": len(refusals),
        "truncated": sum(e.truncated for e in examples),
        "steps": len(windows),
        "tokens": sum(line["tokens"] for line in history),
        **systems,
        "loss": history[-1]["loss"],
        **counts,
        **{f"seed_{use}": seed_for(use, config.seed) for use in ("order", "init", "dropout")},
        "processes": f"{job.world_size} ({trainer.accelerator.distributed_type.value})",
        "seconds": round(time.monotonic() - started, 1),
    }
    if job.rank == 0:
        write_json(job.out / "prompt.json", describe_prompt(config, template, encoder, examples))
        write_jsonl(job.out / "refused.jsonl", (vars(r) for r in refusals))
        write_jsonl(job.out / "training.jsonl", history)
        publish(job, config, summary, model.config.model_type)
    wait_for_all()
    return summary


def encode_rows(
    job: Job, encoder: "Encoder", whole_pool: bool
) -> "tuple[list[Example], list[Refusal], Pool]":
    """The kept rows as examples, the refused ones, and the size of the pool.

    The pool's tokens are counted only where the recipe matches them (`whole_pool`).
    """
    from qaq.training.rows import Example, Refusal
    from qaq.training.windows import Pool

    file = job.inputs["pairs"] / "pairs.parquet"
    columns = with_system(file, ["row_id", "question", "answer"])
    pairs = read_table(file, PAIRS_WITH_SYSTEM, columns)
    subset = read_table(job.inputs["subset"] / "rows.parquet", SUBSET, ["row_id", "kept"])
    texts = {row.pop("row_id"): row for row in pairs.to_pylist()}
    chosen = subset.to_pylist()
    unknown = [row["row_id"] for row in chosen if row["row_id"] not in texts]
    if unknown:
        raise DataError(
            f"the subset names {len(unknown)} rows that are not among the pairs, first {unknown[0]}"
        )
    kept = [row["row_id"] for row in chosen if row["kept"]]
    encoded = [encoder.encode(row_id, **texts[row_id]) for row_id in kept]
    examples = [e for e in encoded if isinstance(e, Example)]
    refusals = [e for e in encoded if isinstance(e, Refusal)]
    if not examples:
        first = f"; the first: {refusals[0].reason}" if refusals else ""
        raise DataError(
            f"there is nothing to train on: {len(kept)} rows were kept and {len(refusals)} of them "
            f"refused{first}. Choose a higher ratio or another selector"
        )
    tokens = 0
    if whole_pool:
        everything = [encoder.encode(row["row_id"], **texts[row["row_id"]]) for row in chosen]
        tokens = sum(len(e.ids) for e in everything if isinstance(e, Example))
    return examples, refusals, Pool(rows=len(chosen), tokens=tokens)


def count_systems(job: Job, template: "ChatTemplate", rows: set[str]) -> dict[str, int]:
    """Of these rows, those with a system turn of their own, and whether it is in their prompts."""
    file = job.inputs["pairs"] / "pairs.parquet"
    if with_system(file, []) == []:
        return {}
    pairs = read_table(file, PAIRS_WITH_SYSTEM, ["row_id", "system"]).to_pylist()
    count = sum(row["row_id"] in rows and row["system"] is not None for row in pairs)
    if not count or template.system is not None:
        return {"system_turns": count} if count else {}
    show(
        f"{count} rows have a system turn of their own; the chat template has no place for one, "
        "and they are learnt without it",
        error=True,
    )
    return {"without_their_system_turn": count}


def build(job: Job, config: AdapterStage) -> "tuple[PeftModel, dict[str, int], bool]":
    """The frozen base model with fresh adapters, the asserted parameter counts, and whether rows
    have to be run one by one.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    from qaq.models.forward.lora import fuse_lora
    from qaq.models.sharded import make_room
    from qaq.training.linears import widths_of_linears
    from qaq.training.processes import is_deepspeed
    from qaq.training.windows import seed_for

    base, alone = load_base(job, config)
    widths = widths_of_linears(base)
    lora = config.train.lora
    expected = {
        "trainable": sum(lora.rank * width for width in widths.values()),
        "frozen": sum(map(numbers_of, base.parameters())),
    }
    torch.manual_seed(seed_for("init", config.seed))
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # Accelerate does
    targets = sorted({name.rsplit(".", 1)[-1] for name in widths})
    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    try:
        model = get_peft_model(base, settings)
    except ValueError as error:
        raise ModelError(
            f"{config.model.label}: PEFT does not put LoRA on its Linear layers "
            f"({', '.join(targets) or 'it has none'}): {error}. Fine-tune another model"
        ) from error
    make_room(model)
    sizes = {"trainable": 0, "frozen": 0}
    for parameter in model.parameters():
        sizes["trainable" if parameter.requires_grad else "frozen"] += numbers_of(parameter)
    if sizes != expected:
        raise StageError(f"the adapters have {sizes} parameters, expected {expected}")
    if lora.dropout == 0 and not is_deepspeed():  # it gathers weights in the layers' own forward
        fuse_lora(model)
    return model, sizes, alone


def numbers_of(parameter: "Parameter") -> int:
    """How many numbers a parameter has, also where DeepSpeed has spread them over processes."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def load_base(job: Job, config: AdapterStage) -> "tuple[PreTrainedModel, bool]":
    """The frozen model, ready to train on, and whether rows have to be run one by one.

    Where it is to be sharded no card holds it whole: under FSDP the first process has it in the
    host's memory and the others an outline, DeepSpeed shards each tensor as it is read.
    """
    from qaq.models.load import load_model, torch_device
    from qaq.models.sharded import outline, sketch
    from qaq.training.packed import prepare
    from qaq.training.processes import is_deepspeed, is_fsdp

    device = job.runtime.device
    if not (is_fsdp() or is_deepspeed()):
        base = load_model(config.model, device)
        return base, prepare(base) is not None
    if is_fsdp() and job.rank > 0:
        base = outline(config.model, device)
    else:
        base = load_model(config.model, "cpu" if is_fsdp() else device, config.model.dtype)
    return base, prepare(base, like=sketch(base, torch_device(device))) is not None


def settings(job: Job, config: AdapterStage, steps: int) -> "TrainingArguments":
    """The Trainer's settings for this many steps."""
    from qaq.training.trainer import arguments
    from qaq.training.windows import seed_for

    rate = config.train.recipe(config.share).learning_rate
    seed = seed_for("dropout", config.seed)
    return arguments(job, config.train, rate, steps, seed, config.model.dtype)


def make_trainer(
    job: Job,
    config: AdapterStage,
    args: "TrainingArguments",
    model: "PeftModel",
    examples: "list[Example]",
    windows: Any,
    alone: bool,
) -> "WindowTrainer":
    """The Trainer for these windows on this machine; `alone`: a micro-batch is one row."""
    from qaq.training.processes import Split
    from qaq.training.trainer import WindowTrainer

    split = Split(
        job.world_size,
        job.rank,
        1 if alone else job.runtime.micro_batch,
        job.runtime.token_budget,
        job.scratch / "memory.json",
    )
    return WindowTrainer(model, args, examples, windows, split, config.train)


def fit(job: Job, trainer: "WindowTrainer") -> list[dict[str, Any]]:
    """Train, from the last whole checkpoint if there is one; returns one line per step."""
    from qaq.host.preemption import deferred
    from qaq.host.progress import Progress
    from qaq.training.checkpoints import KEPT, last_checkpoint, lost, prune, step_of
    from qaq.training.trainer import Recorder, SaveOnRequest

    folder = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(folder)
    others = [o.name for o in job.scratch.glob("checkpoints*") if last_checkpoint(o)]
    if others and checkpoint is None and job.rank == 0:
        said = "training begins again: an earlier try shared the model in another way"
        show(f"{said} ({', '.join(others)})", error=True)
    if job.rank == 0:
        if damaged := lost(folder):
            on = f"goes on from {checkpoint.name}" if checkpoint else "begins again"
            show(f"training {on}: the files of {', '.join(damaged)} are not whole", error=True)
        prune(folder, KEPT)
    done = step_of(checkpoint) if checkpoint else 0
    label, steps = f"training {job.name}", trainer.args.max_steps
    progress = Progress(label, steps, "steps", done, job.rank, job.world_size)
    with progress as bar, deferred() as requested:
        trainer.add_callback(Recorder(job.record(), bar))
        stopping = SaveOnRequest(requested, trainer.accelerator)
        trainer.add_callback(stopping)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopping.agreed:
        raise Preempted("a signal to another of its processes")
    trainer.save_model(str(job.scratch / "final"))
    return [line for line in trainer.state.log_history if "loss" in line]


def describe_prompt(
    config: AdapterStage, template: "ChatTemplate", encoder: "Encoder", examples: "list[Example]"
) -> dict[str, Any]:
    """What evaluation checks before it asks this adapter anything, and a look at the rows."""
    decode = encoder.tokenizer.decode
    return {
        "template_sha": template.sha,
        "system_prompt": config.system_prompt,
        "examples": [
            {"prompt": decode(e.ids[: e.prompt]), "response": decode(e.ids[e.prompt :])}
            for e in examples[:SHOWN]
        ],
    }


def publish(job: Job, config: AdapterStage, summary: dict[str, Any], model_type: str) -> None:
    """Put the finished adapter into `job.out`, its base named by id and not by a local path."""
    from qaq.models.licence import of_adapter
    from qaq.training.card import card

    final = job.scratch / "final"
    shutil.copyfile(final / "adapter_model.safetensors", job.out / "adapter_model.safetensors")
    settings = read_json(final / "adapter_config.json")
    settings["base_model_name_or_path"] = config.model.id
    settings["revision"] = config.model.revision  # the commit, of a Hub model
    settings["target_modules"] = sorted(settings["target_modules"])
    write_json(job.out / "adapter_config.json", settings)
    licence = of_adapter(config.model, model_type, job.out)
    (job.out / "README.md").write_text(card(config, identity(config.model), summary, licence))
