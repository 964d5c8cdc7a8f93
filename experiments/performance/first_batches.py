"""How much longer pairs take that a process sees for the first time than the same pairs again.

    OMP_NUM_THREADS=1 python experiments/performance/first_batches.py --out results/performance

Sets of fresh rows of the embedded pool, in bfloat16, by each embedded scorer: every set is scored
twice in a row, and the second time has met every shape of the first. The first set is not counted,
since it warms the process. Seconds are those of this process on the processor
(`time.process_time`), since other work may share it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from scoring_spans import pool

from qaq.host.hardware import describe, keep_few_kernels, keep_freed_memory
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.run.compose import compose
from qaq.run.config import Config
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.stage import score_rows

TARGET = 1.05


def measured(rows: list[dict[str, Any]], size: int, config: Config, role: str) -> dict[str, Any]:
    """Seconds of each set, the first time and again, by one model."""
    model = getattr(config.models, role)
    framer = make_framer(config.framing, model, load_tokenizer(model), config.system_prompt)
    engine = Engine(load_model(model, "cpu"), take_over=True)
    keep_freed_memory()
    budget = RuntimeConfig().token_budget
    seconds: list[tuple[float, float]] = []
    for start in range(0, len(rows), size):
        times = []
        for _ in ("first", "again"):
            begun = time.process_time()
            score_rows(rows[start : start + size], framer, engine, budget, Progress("", 1, "rows"))
            times.append(time.process_time() - begun)
        seconds.append((times[0], times[1]))
        print(model.name, start // size, *(f"{t:.2f}" for t in times), flush=True)
    first, again = (sum(pair[n] for pair in seconds[1:]) for n in (0, 1))
    return {
        "model": model.name,
        "dtype": str(engine.forward.model.dtype).removeprefix("torch."),
        "seconds": seconds,
        "ratios": [one / two for one, two in seconds[1:]],
        "ratio": first / again,
    }


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Pairs that a process sees for the first time",
        "",
        f"`experiments/performance/first_batches.py`, sets of {result['size']} rows of the "
        f"embedded pool, {result['threads']} thread, {result['hardware']['cpu']}: the processor's "
        f"seconds of a set's first time over those of its second. At most {TARGET} is asked for.",
        "",
        "| model | precision | all sets | set by set | their median |",
        "|---|---|---|---|---|",
    ]
    for one in result["models"]:
        sets = ", ".join(f"{r:.2f}" for r in one["ratios"])
        middle = statistics.median(one["ratios"])
        lines.append(
            f"| {one['model']} | {one['dtype']} | {one['ratio']:.3f} | {sets} | {middle:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=30)
    parser.add_argument("--sets", type=int, default=6, help="the first is not counted")
    parser.add_argument("--roles", nargs="+", default=["strong", "weak"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    keep_few_kernels()
    rows = pool(given.size * given.sets)
    config = compose([f"models.{role}.dtype=bfloat16" for role in ("strong", "weak")])
    models = [measured(rows, given.size, config, role) for role in given.roles]
    result = {"size": given.size, "models": models, "threads": torch.get_num_threads()}
    result |= {"hardware": describe(), "target": TARGET}
    print(page(result))
    if given.out:
        (given.out / "first_batches.json").write_text(json.dumps(result, indent=1) + "\n")
        (given.out / "first_batches.md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
