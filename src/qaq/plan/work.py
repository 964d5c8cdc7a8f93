"""What a stage takes: its sizes from the configuration and the pool, put into `estimate`."""

from dataclasses import replace

from qaq.data.synthesis import SynthesisConfig
from qaq.evaluation import benchmarks
from qaq.evaluation.config import Suite
from qaq.host.hardware import cores
from qaq.host.runtime import RuntimeConfig
from qaq.plan import counting
from qaq.plan.devices import Device
from qaq.plan.estimate import (
    ModelSize,
    Work,
    generating,
    judging,
    reading,
    scoring,
    training,
    writing,
)
from qaq.plan.observed import Rate
from qaq.plan.sizes import Known
from qaq.run.stage import Stage
from qaq.store.store import Store

PUBLISHED = {"humaneval": 164, "mbpp": 378}  # tasks of files that may not be here yet
PROCESS_BYTES = 0.7e9  # with a tiny model: results/performance/scoring_memory.md


def estimate(
    stage: Stage,
    store: Store,
    runtime: RuntimeConfig,
    device: Device,
    known: Known,
    seen: Rate | None = None,
) -> Work | None:
    """What a stage takes; None for a stage without a model, or where a size is not known.

    `seen` is the rate of such a stage on this very device.
    """
    config = stage.config
    if isinstance(config, SynthesisConfig):
        return _written(config, runtime, device, known)
    model = getattr(config, "model", None)
    size = known.model(model) if model is not None else None
    if model is None or size is None:
        return None
    answers = 0
    if stage.kind == "outcomes":
        tasks = config.limit or len(config.tasks or ()) or tasks_of(config.suite, config.spec)
        answers, new = tasks * config.eval.samples, config.eval.max_new_tokens
        texts = () if config.suite in PUBLISHED else texts_of(config.suite, config.spec)
        prompt = counting.asked(config.suite, texts, config.system_prompt)
        batch = runtime.generation_batch
        work = generating(answers, prompt, new, size, batch, model.dtype, device)
        workers = runtime.judge_workers or cores()
        work = replace(work, seconds=work.seconds + judging(answers, config.suite, workers))
    elif "pairs" in stage.inputs:
        counted = _passes(stage, store, runtime, device, known, size)
        if counted is None:
            return None
        work = counted
    else:
        return None
    if seen is not None:
        known.note(f"{stage.kind} with {model.name}: at the rate of {seen.source}")
        work = seen.applied(work, answers, devices_of(stage, runtime, device.kind))
    if device.kind != "cpu":
        return work
    processes = runtime.processes if stage.declared.shared else 1  # in one memory, a model each
    return replace(work, memory=processes * (work.memory + PROCESS_BYTES))


def _written(
    config: SynthesisConfig, runtime: RuntimeConfig, device: Device, known: Known
) -> Work | None:
    """What it takes to write a pool; None where a model's size is not known."""
    sizes = {name: known.model(one.model) for name, one in config.answerers.items()}
    questioner = known.model(config.questioner)
    answerers = {name: size for name, size in sizes.items() if size is not None}
    if questioner is None or len(answerers) < len(sizes):
        return None
    known.note(f"{config.name}: no question left out, every text as long as it may be")
    return writing(config, questioner, answerers, runtime.generation_batch, device)


def _passes(
    stage: Stage,
    store: Store,
    runtime: RuntimeConfig,
    device: Device,
    known: Known,
    size: ModelSize,
) -> Work | None:
    """What a stage takes that runs a model over the pool; None where its rows are not known."""
    config, pairs = stage.config, stage.inputs["pairs"]
    model, system = config.model, config.system_prompt
    made = None if pairs.unresolved else store.find("pairs", pairs.key)
    sample = known.sample(pairs.config.data, made)
    if not sample.rows:
        return None
    read = sample.texts, model, known.reader(model, sample)
    devices = devices_of(stage, runtime, device.kind)
    shared = (runtime.token_budget, model.dtype, device, devices)
    if stage.kind == "scores":
        held = None if stage.unresolved else store.find(stage.kind, stage.key)
        spans = stage.lacking(held) if held else config.spans
        row = counting.scored(*read, config.framing, system, spans)
        return scoring(sample.rows, row, size, *shared)
    if stage.kind == "adapter":
        recipe = config.train
        row = counting.encoded(*read, recipe.cutoff_tokens, system, recipe.label_after_end)
        rows = sample.rows * (config.share if recipe.match == "epochs" else 1.0)
        sharded = runtime.accelerate in ("fsdp", "zero3")
        return training(rows, row, size, recipe, *shared, sharded)
    row = counting.encoded(*read, config.max_tokens, system)
    return reading(sample.rows, row, size, model.dtype, device)


def tasks_of(name: str, suite: Suite | None) -> int:
    """The number of a suite's tasks; of a published file, without looking for it."""
    if name in PUBLISHED and (suite is None or suite.file is None):
        return PUBLISHED[name]
    return len(texts_of(name, suite))


def texts_of(name: str, suite: Suite | None) -> list[str]:
    """The problems of a suite."""
    return [problem.prompt for problem in benchmarks.load(name, suite=suite).problems]


def devices_of(stage: Stage, runtime: RuntimeConfig, kind: str) -> int:
    """How many devices a stage is spread over; the processes of a host share its processor."""
    return held_by(runtime, kind) if stage.declared.shared else 1


def held_by(runtime: RuntimeConfig, kind: str) -> int:
    """How many devices a run holds from its beginning to its end."""
    return runtime.hosts * (runtime.processes if kind == "cuda" else 1)
