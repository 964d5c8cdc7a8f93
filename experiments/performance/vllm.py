"""How far the scores and answers of a vLLM server are from those of our own engine.

    vllm serve FOLDER --dtype float32 --port 8000      # in an environment of its own
    python experiments/performance/vllm.py --model FOLDER --dtype float32 \
        --url http://127.0.0.1:8000 --out results/performance

Both score the suite's problems with their canonical solutions (framing chat, four spans) and answer
them greedily; `--adapter FOLDER` does so with an adapter, which the server is made to load. Figures
go into `vllm.json` under the model, precision and adapter, and into `vllm.md` as a table.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from qaq.evaluation.benchmarks import load
from qaq.evaluation.generation.generate import Decoding, Request, model_limits
from qaq.evaluation.generation.hf import HfGenerator
from qaq.evaluation.generation.vllm import VllmGenerator
from qaq.evaluation.prompts import Asker, make_asker
from qaq.host.progress import Progress
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_positions, load_tokenizer
from qaq.models.vllm import Served
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.stage import score_rows
from qaq.scoring.vllm import VllmEngine
from qaq.store.tables import SPANS, read_json, write_json

HEAD = """# vLLM beside our own engine

`python experiments/performance/vllm.py`: the same pairs scored and the same problems answered
greedily by both. A span's NLL is summed over its tokens; each pair has four. Where answers part,
the number of tokens that are still the same is given.

| model | server | spans | mean NLL, nats | largest gap, nats | as a share | answers | equal | part after |
|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def scores(config: ModelConfig, engine: Any, problems: list[Any]) -> list[dict[str, Any]]:
    """Each problem with its solution, scored."""
    framing = FramingConfig(name="chat", kind="chat")
    framer = make_framer(framing, config, load_tokenizer(config), None, load_positions(config))
    rows = [
        {"row_id": p.task_id, "question": p.prompt, "answer": p.canonical_solution}
        for p in problems
    ]
    with Progress("scoring", len(rows), "rows") as progress:
        return score_rows(rows, framer, engine, 2048, progress)


def same_tokens(one: str, two: str, tokenizer: Any) -> int:
    """How many tokens two answers begin with alike."""
    pairs = zip(tokenizer(one)["input_ids"], tokenizer(two)["input_ids"], strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), len(one))


def compare(
    config: ModelConfig, urls: list[str], adapter: Path | None, suite: str, count: int, tokens: int
) -> dict[str, Any]:
    """Figures of one model, served and here."""
    problems = load(suite).problems[:count]
    tokenizer = load_tokenizer(config)
    asker: Asker = make_asker("chat", config, tokenizer, None)
    context, ends = model_limits(config)
    decoding = Decoding(tokens, asker.stops("humaneval"), asker.end_ids | ends, context)
    prompts = [asker.prompt(p) for p in problems]
    requests = [
        Request(q.task_id, 0, q.ids, q.sha, p.entry_point)
        for q, p in zip(prompts, problems, strict=True)
    ]
    served = Served(config, urls, adapter)
    started = time.monotonic()
    theirs = scores(config, VllmEngine(served), problems)
    middle = time.monotonic()
    answers = {c.task_id: c for c in VllmGenerator(served, tokenizer, decoding)(requests)}
    seconds = (middle - started, time.monotonic() - middle)
    model = load_model(config, "cpu", adapter=adapter)
    own = {c.task_id: c for c in HfGenerator(model, tokenizer, decoding)(requests)}
    ours = scores(config, Engine(model), problems)
    values = [
        (a[f"nll_{s}"], b[f"nll_{s}"]) for a, b in zip(ours, theirs, strict=True) for s in SPANS
    ]
    apart = [c for t, c in own.items() if answers[t].text != c.text]
    return {
        "engine": served.version,
        "servers": len(served.replicas),
        "spans": len(values),
        "mean_nll": statistics.fmean(a for a, _ in values),
        "largest_gap": max(abs(a - b) for a, b in values),
        "largest_share": max(abs(a - b) / a for a, b in values),
        "answers": len(requests),
        "new_tokens": tokens,
        "equal": len(requests) - len(apart),
        "equal_ends": sum(answers[t].finish == c.finish for t, c in own.items()),
        "first_gaps": [same_tokens(c.text, answers[c.task_id].text, tokenizer) for c in apart],
        "seconds_scoring": seconds[0],
        "seconds_answering": seconds[1],
    }


def page(figures: dict[str, Any]) -> str:
    """The table."""
    lines = []
    for name, f in figures.items():
        parts = ", ".join(map(str, f["first_gaps"])) or "-"
        cells = [
            *(name, f"{f['engine']} x{f['servers']}", f["spans"], f"{f['mean_nll']:.1f}"),
            *(f"{f['largest_gap']:.2g}", f"{f['largest_share']:.2g}"),
            f"{f['answers']} of {f['new_tokens']} tokens",
            *(f"{f['equal'] / f['answers']:.0%}", parts),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--url", nargs="+", required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--suite", default="mini")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = ModelConfig(id=args.model, dtype=args.dtype)
    urls = [url.rstrip("/").removesuffix("/v1") + "/v1" for url in args.url]
    found = compare(config, urls, args.adapter, args.suite, args.count, args.tokens)
    name = f"{config.name}, {args.dtype}{', adapter' if args.adapter else ''}"
    print(page({name: found}))
    if args.out:
        file = args.out / "vllm.json"
        figures = (read_json(file) if file.exists() else {}) | {name: found}
        write_json(file, figures)
        (args.out / "vllm.md").write_text(page(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
