"""How much work a stage is: tokens, floating-point operations, seconds, bytes of memory. Pure.

Tokens are counted on a sample of the pool (`qaq.plan.counting`); the rates are a device's peak
times the share of it that a stage reaches (`qaq.plan.devices`), or what was seen on this machine
(`qaq.plan.observed`).
Nothing is run. An estimate is for deciding whether to start, not for a results table.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qaq.data.synthesis import SynthesisConfig
from qaq.evaluation.config import CACHE_SHARE, MOST_ROWS
from qaq.plan.counting import Counted
from qaq.plan.devices import Device
from qaq.training.config import TrainConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
# Core-seconds for the canonical solution of a task (results/performance/judging.md)
JUDGING = {"humaneval": 0.111, "mbpp": 0.148}
ACTIVATION_BYTES = 34  # per token, layer and hidden unit, 16 bit (Korthikanti et al. 2205.05198)
PROMPT = 64  # tokens of a system prompt and what the template puts around it
START_SECONDS = 10.0  # a process, its imports and its model


@dataclass(frozen=True)
class ModelSize:
    """What the cost of a transformer depends on.

    Attributes:
        body: parameters of the layers that each token passes.
        head: parameters of the output head, which runs only where a token is scored or trained.
        hidden: width of the residual stream.
        layers: number of layers.
        cache: values per token in the key and value cache, all layers.
        vocabulary: number of tokens.
        shared: whether the head is the embedding table as well.
        resting: parameters of the experts that a token does not pass; they take memory only.
    """

    body: float
    head: float
    hidden: int
    layers: int
    cache: float
    vocabulary: int
    shared: bool = True
    resting: float = 0.0

    @property
    def parameters(self) -> float:
        """All of them."""
        return self.body + self.resting + self.head * (1 if self.shared else 2)


@dataclass(frozen=True)
class Work:
    """What a stage takes on one kind of device; `memory` is the peak on each of its devices."""

    tokens: float
    flops: float
    seconds: float
    memory: float


def scoring(
    rows: int,
    row: Counted,
    model: ModelSize,
    token_budget: int,
    dtype: str,
    device: Device,
    devices: int,
) -> Work:
    """One model over `rows` pairs: 2 operations a token and weight; the head where it is scored."""
    tokens = rows * row.run
    flops = 2 * (model.body * tokens + model.head * rows * row.predicted)
    live = token_budget * model.hidden * 30 * BYTES[dtype] + 4 * 1024 * model.vocabulary * 2
    weights = model.parameters + (model.head if device.kind == "cpu" else 0)
    return Work(
        tokens=tokens,
        flops=flops,
        seconds=START_SECONDS + flops / (_rate(device, device.scoring, model) * devices),
        memory=weights * BYTES[dtype] + live,
    )


def training(
    rows: float,
    row: Counted,
    model: ModelSize,
    recipe: TrainConfig,
    token_budget: int,
    dtype: str,
    device: Device,
    devices: int,
    sharded: bool = False,
) -> Work:
    """LoRA on `rows` rows of the pool, taken to be as long as the others.

    `sharded`: the devices hold the frozen weights together (FSDP, ZeRO-3), not each a copy.
    4 operations a token and frozen weight, 6 a trained one (see `qaq.reporting.assemble`).
    """
    tokens = rows * recipe.epochs * row.run
    labels = rows * recipe.epochs * row.predicted
    trained = recipe.lora.rank * model.layers * model.hidden * 19  # in + out of seven projections
    flops = tokens * (4 * model.body + 6 * trained) + 4 * model.head * labels
    kept = 2 if recipe.gradient_checkpointing else ACTIVATION_BYTES
    window = min(token_budget, recipe.batch_size * row.longest)
    live = max(window, row.longest) * model.hidden * model.layers * kept
    flops *= 4 / 3 if recipe.gradient_checkpointing else 1
    return Work(
        tokens=tokens,
        flops=flops,
        seconds=START_SECONDS + flops / (_rate(device, device.training, model) * devices),
        memory=model.parameters * BYTES[dtype] / (devices if sharded else 1)
        + live * BYTES[dtype] / 2
        + trained * 16,
    )


def generating(
    answers: int,
    prompt: Counted,
    new_tokens: int,
    model: ModelSize,
    batch: int | None,
    dtype: str,
    device: Device,
) -> Work:
    """Answers of a benchmark, each as long as it may be: an upper bound. Judging is not counted.

    `batch` answers are written at a time; None for as many as generation itself would choose. Each
    has room for the longest prompt.
    """
    weights = model.parameters * BYTES[dtype]
    row = (prompt.longest + new_tokens) * model.cache * BYTES[dtype]
    room = int(CACHE_SHARE[device.kind] * max(0.0, device.memory - weights) / row)
    side = min(batch or max(1, min(room, MOST_ROWS[device.kind])), max(answers, 1))
    cache, held = side * row, side * (prompt.run + new_tokens / 2) * model.cache * BYTES[dtype]
    per_token = 2 * (model.body + model.head)
    tokens = answers * (prompt.run + new_tokens)
    steps = math.ceil(answers / side) * new_tokens
    moved = (weights + held) / device.bandwidth
    computed = per_token * side / _rate(device, device.generating, model)
    reading = per_token * answers * prompt.run / _rate(device, device.scoring, model)
    return Work(
        tokens=tokens,
        flops=per_token * tokens,
        seconds=START_SECONDS + steps * max(moved, computed) + reading,
        memory=weights + cache,
    )


def writing(
    config: SynthesisConfig,
    questioner: ModelSize,
    answerers: Mapping[str, ModelSize],
    batch: int | None,
    device: Device,
) -> Work:
    """A pool that models write: every question kept, every text as long as it may be, one by one.

    An upper bound, but for the prompts, which are taken to have `PROMPT` tokens.
    """
    head, question = Counted(PROMPT, 0, PROMPT), PROMPT + config.question_tokens
    asked = Counted(question, 0, question)
    weights = {name: config.answerers[name].weight for name in answerers}
    parts = [(config.questions, head, config.question_tokens, questioner, config.questioner)]
    parts += [
        (
            round(config.questions * weights[name] / sum(weights.values())),
            asked,
            config.answer_tokens,
            size,
            config.answerers[name].model,
        )
        for name, size in answerers.items()
    ]
    made = [
        generating(count, prompt, new, size, batch, model.dtype, device)
        for count, prompt, new, size, model in parts
    ]
    return Work(
        tokens=sum(work.tokens for work in made),
        flops=sum(work.flops for work in made),
        seconds=sum(work.seconds for work in made),
        memory=max(work.memory for work in made),
    )


def judging(answers: int, suite: str, workers: int) -> float:
    """Seconds to judge answers, at the pace of right ones; those that loop take longer."""
    return answers * JUDGING.get(suite, max(JUDGING.values())) / workers


def reading(rows: int, row: Counted, model: ModelSize, dtype: str, device: Device) -> Work:
    """One pass over every pair, for embeddings; as fast as scoring without a head."""
    flops = 2 * model.body * rows * row.run
    return Work(
        tokens=rows * row.run,
        flops=flops,
        seconds=START_SECONDS + flops / _rate(device, device.scoring, model),
        memory=model.parameters * BYTES[dtype],
    )


def model_of_size(parameters: float) -> ModelSize:
    """The usual shape of a model of which only the number of parameters is known."""
    hidden = (parameters * 128 / 12) ** (1 / 3)  # 12 hidden^2 a layer, a layer per 128 of width
    layers, vocabulary = hidden / 128, 100_000
    head = min(vocabulary * hidden, parameters / 4)  # a quarter: Qwen3-0.6B 26%, SmolLM2-135M 21%
    return ModelSize(
        body=parameters - head,
        head=head,
        hidden=round(hidden),
        layers=round(layers),
        cache=2 * hidden * layers,
        vocabulary=vocabulary,
    )


def _rate(device: Device, large: float, model: ModelSize) -> float:
    return device.flops * device.share(large, model.parameters - model.resting)
