"""Tokens per second of the one forward against an older source tree, and of packs against padding.

    git worktree add /tmp/before 983b876
    python experiments/performance/forward.py --before /tmp/before --out results/performance

Scoring, a training step and generation on SmolLM2-135M and Gemma 3 270M in bfloat16. Each tree
lives in a process of its own with the same made-up rows; sides alternate round by round, and while
one works the other waits. Reported are medians and the median of the ratios, round by round.

For families that were padded before (`--random`, random weights at about 135 million parameters)
scoring packed and padded is compared in the new tree alone.
"""

import argparse
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS = ("smollm2_135m", "gemma3_270m")
IDS = {"smollm2_135m": "embedded:smollm2-135m-instruct", "gemma3_270m": "embedded:gemma3-270m"}
RANDOM = ("phi3", "granite", "smollm3")
TASKS = ("scoring", "training", "generation")
ROWS, STEP_ROWS, PROMPTS, NEW_TOKENS = 24, 8, 16, 32


def first(*names: str) -> Any:
    """The first module that this tree has."""
    for name in names:
        try:
            return importlib.import_module(f"qaq.{name}")
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("qaq"):
                raise
    raise ModuleNotFoundError(names)


def rows(count: int, longest: int = 400) -> list[tuple[int, ...]]:
    """Made-up rows; every second one begins as the others do."""
    chance = random.Random(0)
    opening = tuple(chance.randrange(10, 9000) for _ in range(30))
    found = []
    for at in range(count):
        body = tuple(chance.randrange(10, 9000) for _ in range(chance.randrange(60, longest)))
        found.append((opening if at % 2 else ()) + body)
    return found


def load(name: str) -> Any:
    """An embedded model, or a random one of a family."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    if name in IDS:
        config = first("models.config").ModelConfig(name=name, id=IDS[name], dtype="bfloat16")
        return first("models.load").load_model(config, "cpu")
    shape = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**shape))
    return model.to(torch.bfloat16).eval()


def scoring(name: str, way: str = "packed") -> tuple[Callable[[], None], int]:
    """The engine over the rows, the last two thirds of each scored."""
    engine_of = first("scoring.engine").Engine
    plan, framing = first("scoring.plan"), first("scoring.framing")
    rendering, span = getattr(framing, "Rendering", None), getattr(framing, "Span", None)
    if rendering is None:
        framing = first("scoring.framing.rendering", "scoring.rendering")
        rendering, span = framing.Rendering, framing.Span
    model = load(name)
    try:
        engine = engine_of(model, take_over=True, ways=[way])
        assert engine.forward.way == way, engine.forward.reasons
    except TypeError:  # the older tree
        engine = engine_of(model, 0, packed=True, take_over=True)
        assert engine.packed is not None
    ids = rows(ROWS)
    tasks = [
        plan.Task(at, rendering(row, (span("q", len(row) // 3, len(row)),)))
        for at, row in enumerate(ids)
    ]

    def run() -> None:
        for batch in engine.batches(tasks, 2048):
            engine.score(batch)

    return run, sum(map(len, ids))


def training(name: str) -> tuple[Callable[[], None], int]:
    """Loss and gradients of one micro-batch with LoRA on every Linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    packed = first("training.packed")
    lora = first("models.forward.lora", "training.kernels")
    example = first("training.rows").Example
    base = load(name)
    (packed.prepare if hasattr(packed, "prepare") else packed.use_packed)(base)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    lora.fuse_lora(model)
    examples = [example(str(i), row, len(row) // 3, False) for i, row in enumerate(rows(STEP_ROWS))]
    batch = packed.pack(examples, torch.device("cpu"))

    def run() -> None:
        model.zero_grad()
        model(**batch).sum().backward()

    return run, sum(len(e.ids) for e in examples)


def generation(name: str) -> tuple[Callable[[], None], int]:
    """Sampled answers of a fixed length, so that no side guesses or ends sooner."""
    made = first("evaluation.generation.generate", "evaluation.generation")
    hf = first("evaluation.generation.hf", "evaluation.generation_hf")
    stops = first("evaluation.prompts").Stops(())
    config = first("models.config").ModelConfig(name=name, id=IDS[name], dtype="bfloat16")
    tokenizer = first("models.load").load_tokenizer(config)
    decoding = made.Decoding(NEW_TOKENS, stops, frozenset(), temperature=1.0)
    generator = hf.HfGenerator(load(name), tokenizer, decoding, PROMPTS)
    requests = [
        made.Request(str(i), 0, row, str(i)) for i, row in enumerate(rows(PROMPTS, longest=160))
    ]

    def run() -> None:
        assert len(list(generator(requests))) == PROMPTS

    return run, sum(len(r.prompt) for r in requests) + PROMPTS * NEW_TOKENS


def work() -> None:
    """Serve one tree: a line in is a piece of work, a line out its tokens per second."""
    ready: dict[str, tuple[Callable[[], None], int]] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    for line in sys.stdin:
        task, name, *more = line.split()
        if line not in ready:
            ready.clear()  # one model in memory at a time
            ready[line] = globals()[task](name, *more)
            ready[line][0]()  # compiles, allocates, verifies
        run, tokens = ready[line]
        started = time.perf_counter()
        run()
        print(tokens / (time.perf_counter() - started), file=answers, flush=True)


class Side:
    """A process over one source tree."""

    def __init__(self, tree: Path):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            env=os.environ | {"PYTHONPATH": str(tree / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, task: str) -> float:
        """Tokens per second of one piece of work."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{task} failed; see above")
        return float(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def compare(one: tuple[Side, str], two: tuple[Side, str], rounds: int) -> dict[str, float]:
    """Alternating; medians of tokens per second and of the ratios of neighbouring rounds."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):  # each is the first as often
            side, task = (one, two)[which]
            rate = side(task)
            if number:  # the first warms caches
                found[which].append(rate)
    ratios = [after / before for before, after in zip(*found, strict=True)]
    before, after, ratio = (statistics.median(x) for x in (*found, ratios))
    return {"before": before, "after": after, "ratio": ratio, "worst": min(ratios)}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, help="the older source tree")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--tasks", nargs="*", default=TASKS)
    parser.add_argument("--random", nargs="*", default=RANDOM)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.worker:
        work()
        return
    here = Path(__file__).resolve().parents[2]
    results: dict[str, dict[str, float]] = {}

    def report(name: str, figures: dict[str, float]) -> None:
        results[name] = figures
        shown = "  ".join(f"{key} {value:8.3f}" for key, value in figures.items())
        print(f"{name:32} {shown}", flush=True)

    new = Side(here)
    if options.before:
        old = Side(options.before.resolve())
        for task in options.tasks:
            for model in options.models:
                line = f"{task} {model}"
                report(line, compare((old, line), (new, line), options.rounds))
        old.close()
    other = Side(here)
    for family in options.random:
        pair = (other, f"scoring {family} padded"), (new, f"scoring {family} packed")
        report(f"{family}, padded and packed", compare(*pair, options.rounds))
    for side in (new, other):
        side.close()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "forward.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
