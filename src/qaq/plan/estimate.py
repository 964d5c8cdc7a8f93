"""How much work a stage is: tokens, floating-point operations, seconds, bytes of memory. Pure.

The lengths are those of a sample of the pool in the tokens of the stage's model; the rates are a
device's peak times the share of it that a stage reaches (`qaq.plan.devices`). Nothing is run. An
estimate is for deciding whether to start, not for a results table.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qaq.evaluation.config import CACHE_SHARE, MOST_ROWS
from qaq.plan.devices import Device
from qaq.scoring.config import FramingConfig
from qaq.training.config import TrainConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
CHARACTERS_PER_TOKEN = 3.5  # of code and English, where no tokenizer is at hand
TEMPLATE_TOKENS = 15  # role marks and line ends of one chat rendering
CHERRY_TOKENS = {"wiz": 5, "alpaca": 28, "vicuna": 35}  # around the question
ALONE_TOKENS = 3  # of `### Response:` before an answer alone
PROMPT_TOKENS = 180  # a benchmark's problem, HumanEval and MBPP alike
ACTIVATION_BYTES = 34  # per token, layer and hidden unit, 16 bit (Korthikanti et al. 2205.05198)
START_SECONDS = 10.0  # a process, its imports and its model


@dataclass(frozen=True)
class ModelSize:
    """What the cost of a transformer depends on.

    Attributes:
        body: parameters of the layers.
        head: parameters of the output head, which runs only where a token is scored or trained.
        hidden: width of the residual stream.
        layers: number of layers.
        cache: values per token in the key and value cache, all layers.
        vocabulary: number of tokens.
        shared: whether the head is the embedding table as well.
    """

    body: float
    head: float
    hidden: int
    layers: int
    cache: float
    vocabulary: int
    shared: bool = True

    @property
    def parameters(self) -> float:
        """All of them."""
        return self.body + self.head * (1 if self.shared else 2)


@dataclass(frozen=True)
class Lengths:
    """Tokens of question and answer for a sample of the pool, and the number of all its rows."""

    rows: int
    sample: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Work:
    """What a stage takes on one kind of device; `memory` is the peak on each of its devices."""

    tokens: float
    flops: float
    seconds: float
    memory: float


def scoring(
    pool: Lengths,
    model: ModelSize,
    framing: FramingConfig,
    system_tokens: int,
    token_budget: int,
    dtype: str,
    device: Device,
    devices: int,
) -> Work:
    """One model over the pool: the sequences that `qaq.scoring.plan` leaves after merging.

    A rendering that is too long loses tokens of its answer; a row whose question leaves the answer
    no room, or that the framing's script drops, is not scored. On a processor the engine holds the
    output head once more, packed.
    """
    reverse = len(framing.reverse_instruction) / CHARACTERS_PER_TOKEN
    turn, asked = TEMPLATE_TOKENS + system_tokens, CHERRY_TOKENS[framing.cherry_prompt]
    # how often question and answer are run and scored; what stands around them: in the longest
    # rendering, and in all that are left
    shapes = {
        "chat": (2, 3, 2, 2, reverse + turn, reverse + 3 * turn),
        "plain": (2, 2, 2, 2, 2, 4),
        "authors": (2, 1, 2, 0, reverse + turn, reverse + 2 * turn),
        "cherry": (1, 2, 0, 2, asked, asked + ALONE_TOKENS),
        "cherry_first": (1, 2, 0, 2, asked, asked + ALONE_TOKENS),
        "superfiltering": (1, 2, 0, 2, 1, 1),
        "r_ifd": (3, 3, 2, 2, reverse + asked, reverse + 2 * asked),
    }
    # a framing of the user's own is taken to be laid out as `chat` is
    shape = shapes.get(framing.kind, shapes["chat"])
    questions, answers, scored_q, scored_a, longest, around = shape
    drops = framing.kind == "cherry"  # a row whose answer alone does not fit
    counted = 0 if framing.cherry_prompt == "wiz" else round(longest)
    read = scored = 0.0
    for q, whole in pool.sample:
        a = min(whole, framing.max_tokens - q - round(longest))
        if a > 0 and not (drops and q + counted + whole > framing.max_tokens):
            read += questions * q + answers * a + around
            scored += scored_q * q + scored_a * a
    share = pool.rows / max(1, len(pool.sample))
    tokens, targets_total = read * share, scored * share
    flops = 2 * model.body * tokens + 2 * model.head * targets_total
    live = token_budget * model.hidden * 30 * BYTES[dtype] + 4 * 1024 * model.vocabulary * 2
    weights = model.parameters + (model.head if device.kind == "cpu" else 0)
    return Work(
        tokens=tokens,
        flops=flops,
        seconds=START_SECONDS + flops / (_rate(device, device.scoring, model) * devices),
        memory=weights * BYTES[dtype] + live,
    )


def training(
    pool: Lengths,
    model: ModelSize,
    recipe: TrainConfig,
    share: float,
    token_budget: int,
    dtype: str,
    device: Device,
    devices: int,
    sharded: bool = False,
) -> Work:
    """LoRA on a share of the pool, whose rows are taken to be as long as the others.

    `sharded`: the devices hold the frozen weights together (FSDP, ZeRO-3), not each a copy.
    4 operations a token and frozen weight, 6 a trained one (see `qaq.reporting.assemble`).
    """
    rows = pool.rows * (share if recipe.match == "epochs" else 1.0)
    lengths = [min(q + a + TEMPLATE_TOKENS, recipe.cutoff_tokens) for q, a in pool.sample]
    answers = [min(a, recipe.cutoff_tokens) for _, a in pool.sample]
    tokens = rows * recipe.epochs * _mean(lengths)
    labels = rows * recipe.epochs * _mean(answers)
    trained = recipe.lora.rank * model.layers * model.hidden * 19  # in + out of seven projections
    flops = tokens * (4 * model.body + 6 * trained) + 4 * model.head * labels
    kept = 2 if recipe.gradient_checkpointing else ACTIVATION_BYTES
    window = min(token_budget, recipe.batch_size * max(lengths, default=0))
    live = max(window, max(lengths, default=0)) * model.hidden * model.layers * kept
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
    answers: int, new_tokens: int, model: ModelSize, batch: int | None, dtype: str, device: Device
) -> Work:
    """Answers of a benchmark, each as long as it may be: an upper bound. Judging is not counted.

    `batch` answers are written at a time; None for as many as generation itself would choose.
    """
    weights = model.parameters * BYTES[dtype]
    row = (PROMPT_TOKENS + new_tokens) * model.cache * BYTES[dtype]
    room = int(CACHE_SHARE[device.kind] * max(0.0, device.memory - weights) / row)
    side = min(batch or max(1, min(room, MOST_ROWS[device.kind])), max(answers, 1))
    cache = side * row
    per_token = 2 * (model.body + model.head)
    tokens = float(answers * (PROMPT_TOKENS + new_tokens))
    steps = math.ceil(answers / side) * new_tokens
    moved = (weights + cache / 2) / device.bandwidth
    computed = per_token * side / _rate(device, device.generating, model)
    reading = per_token * answers * PROMPT_TOKENS / _rate(device, device.scoring, model)
    return Work(
        tokens=tokens,
        flops=per_token * tokens,
        seconds=START_SECONDS + steps * max(moved, computed) + reading,
        memory=weights + cache,
    )


def reading(pool: Lengths, model: ModelSize, dtype: str, device: Device) -> Work:
    """One pass over every pair by the model's own forward, for embeddings.

    No measured figure: padded as it is, taken as half as fast as scoring.
    """
    tokens = pool.rows * _mean([q + a for q, a in pool.sample])
    flops = 2 * model.body * tokens
    return Work(
        tokens=tokens,
        flops=flops,
        seconds=START_SECONDS + flops / _rate(device, device.scoring / 2, model),
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
    return device.flops * device.share(large, model.parameters)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
