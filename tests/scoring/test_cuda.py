"""The engine on a CUDA device, every family and precision, against float64 on the processor."""

import copy
import random

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from qaq.models.forward.attention import has_varlen
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Rendering, Span
from qaq.scoring.plan import Task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

WORDS = 1000
SHAPE = {
    "vocab_size": WORDS,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "llama, no shared keys": LlamaConfig(**SHAPE | {"num_key_value_heads": 4}),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma3": Gemma3TextConfig(
        **SHAPE,
        sliding_window=16,
        query_pre_attn_scalar=64,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
}
# nats per token: a span of a random model against float64; the same in another batch
BOUNDS = {
    torch.float32: (1e-5, 1e-5),
    torch.float16: (1e-2, 5e-3),
    torch.bfloat16: (6e-2, 3e-2),
}


def make_tasks():
    chance = random.Random(0)

    def ids(n):
        return tuple(chance.randrange(WORDS) for _ in range(n))

    opening, tasks = ids(30), []
    for row in range(16):
        sequence = (opening if row % 2 else ()) + ids(chance.randrange(40, 300))
        spans = Span("q", 1, 20), Span("a_given_q", 20, len(sequence))
        tasks.append(Task(row, Rendering(sequence, spans)))
    return tasks


def per_token(task, sums):
    return {s.name: sums[s.name] / (s.end - s.start) for s in task.rendering.spans}


def reference(model, task):
    with torch.no_grad():
        ids = torch.tensor([task.rendering.ids])
        known = model(input_ids=ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])
    sums = {s.name: -float(known[s.start - 1 : s.end - 1].sum()) for s in task.rendering.spans}
    return per_token(task, sums)


@pytest.mark.parametrize("way", ["packed", "padded"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_numbers_are_those_of_float64_whatever_else_is_in_the_batch(name, dtype, way):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32).eval()
    exact, engine = copy.deepcopy(model).double(), Engine(model.to("cuda", dtype), ways=[way])
    assert engine.forward.way == way
    if way == "packed":
        assert has_varlen(engine.device, dtype, 64) == (dtype != torch.float32)
    tasks, (bound, spread) = make_tasks(), BOUNDS[dtype]
    together = engine.score(tasks[::-1])[::-1]
    for task, sums in zip(tasks, together, strict=True):
        (alone,) = engine.score([task])
        assert per_token(task, sums) == pytest.approx(reference(exact, task), abs=bound)
        assert per_token(task, sums) == pytest.approx(per_token(task, alone), abs=spread)
