"""Pairs per second where only some spans are asked for: RMI's, IFD's, and all four.

    OMP_NUM_THREADS=1 python experiments/performance/scoring_spans.py --rows 48 --repeats 3 \
        --out results/performance

The same rows of the embedded pool, the same engine, each model in turn; the sides alternate, and a
first round that is not counted has met every shape. Seconds are those of this process on the
processor (`time.process_time`), since other work may share it; with one thread that is the time it
takes alone. The numbers of a side must be those of all four spans, to the last bit.
"""

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.rows import Entry, Pair, read_row
from qaq.host.hardware import describe, keep_few_kernels, keep_freed_memory
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.run.compose import compose
from qaq.run.config import Config
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.plan import merge, only
from qaq.scoring.stage import score_rows
from qaq.store.tables import SPANS

SIDES = {"rmi": ("q", "q_given_a"), "ifd": ("a", "a_given_q"), "all": SPANS}
TARGETS = {"rmi": 2.0, "ifd": 1.4}


def pool(count: int) -> list[dict[str, Any]]:
    """Rows spread over the embedded pool."""
    entries = list(sources.read(DataConfig(name="stdlib", source="stdlib")))
    read = (read_row(e, "stdlib") for e in entries if isinstance(e, Entry))
    pairs = [pair for pair in read if isinstance(pair, Pair)]
    chosen = islice(pairs, 0, None, max(1, len(pairs) // count))
    return [
        {"row_id": f"{n:016x}", "question": p.question, "answer": p.answer}
        for n, p in enumerate(islice(chosen, count))
    ]


def timed(rows: list[dict[str, Any]], config: Config, role: str, repeats: int) -> dict[str, Any]:
    """Seconds of every side and round, tokens, and whether the numbers are equal, of one model."""
    model = getattr(config.models, role)
    framer = make_framer(config.framing, model, load_tokenizer(model), config.system_prompt)
    engine = Engine(load_model(model, "cpu"), take_over=True)
    keep_freed_memory()
    tokens = {}
    for side, spans in SIDES.items():
        merged = [merge(only(framer(r["question"], r["answer"]).renderings, spans)) for r in rows]
        tokens[side] = sum(len(one.ids) - 1 for each in merged for one in each)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats + 1):
        for side, spans in SIDES.items():
            progress = Progress(side, len(rows), "rows")
            started = time.process_time()
            found[side] = score_rows(
                rows, framer, engine, RuntimeConfig().token_budget, progress, spans
            )
            if number:
                seconds[side].append(time.process_time() - started)
        print(model.name, number, {s: t[-1:] for s, t in seconds.items()}, flush=True)
    equal = all(
        mine[f"nll_{span}"] == whole[f"nll_{span}"]
        for side, spans in SIDES.items()
        for mine, whole in zip(found[side], found["all"], strict=True)
        for span in spans
    )
    return {"model": model.name, "tokens": tokens, "seconds": seconds, "equal": equal}


def summed_up(rows: int, models: list[dict[str, Any]]) -> dict[str, Any]:
    """Both models together: the ratio of each round, and their median."""
    whole = {
        side: [sum(times) for times in zip(*(m["seconds"][side] for m in models), strict=True)]
        for side in SIDES
    }
    ratios = {
        side: [a / b for a, b in zip(whole["all"], whole[side], strict=True)] for side in TARGETS
    }
    return {
        "rows": rows,
        "pairs_per_second": {s: rows / statistics.median(times) for s, times in whole.items()},
        "ratios": ratios,
        "median_ratio": {side: statistics.median(r) for side, r in ratios.items()},
        "targets": TARGETS,
        "equal_numbers": all(m["equal"] for m in models),
        "models": models,
        "threads": torch.get_num_threads(),
        "hardware": describe(),
    }


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Scoring only the spans that are asked for",
        "",
        f"`experiments/performance/scoring_spans.py`, {result['rows']} rows of the embedded pool, "
        f"{' and '.join(m['model'] for m in result['models'])}, {result['threads']} thread, "
        f"{result['hardware']['cpu']}. Seconds of the process; sides alternate.",
        "",
        "| spans | pairs per second | times as many as all four | round by round | tokens |",
        "|---|---|---|---|---|",
    ]
    for side, spans in SIDES.items():
        tokens = sum(m["tokens"][side] for m in result["models"])
        ratio = result["median_ratio"].get(side)
        rounds = ", ".join(f"{r:.2f}" for r in result["ratios"].get(side, []))
        lines.append(
            f"| {side}: {', '.join(spans)} | {result['pairs_per_second'][side]:.2f} | "
            f"{'–' if ratio is None else f'{ratio:.2f}'} | {rounds or '–'} | {tokens:,} |"
        )
    same = "equal to the last bit" if result["equal_numbers"] else "NOT equal"
    tokens = {side: sum(m["tokens"][side] for m in result["models"]) for side in SIDES}
    return "\n".join(
        [
            *lines,
            "",
            f"The sums of each span are {same} to those of all four. These are read in two passes, "
            "question and answer and the other way round; RMI alone needs the second and the "
            f"question once more, {tokens['all'] / tokens['rmi']:.2f} times fewer tokens (at most "
            "2, where questions are short). The rest is the output layer, skipped over the answer.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/performance"))
    given = parser.parse_args()
    keep_few_kernels()
    rows = pool(given.rows)
    config = compose([])
    models = [timed(rows, config, role, given.repeats) for role in ("strong", "weak")]
    result = summed_up(len(rows), models)
    text = json.dumps(result, indent=1) + "\n"
    (given.out / "scoring_spans.json").write_text(text, encoding="utf-8")
    (given.out / "scoring_spans.md").write_text(page(result), encoding="utf-8")
    print(page(result))


if __name__ == "__main__":
    main()
