"""Pairs per second of three ways to score all four spans of the same rows with the same model.

    python experiments/performance/scoring.py --rows 100 --repeats 5

(a) loop     one row and one rendering at a time, full logits, as Cherry_LLM does it
(b) padded   batches of 16 in pool order, padded, full logits, as the authors' script does it
(c) qaq      this project's engine

Sides alternate; the medians and the ratios pair by pair are printed, beside the machine's own
matmul rate at the model's layer shapes, measured in the same run. (a) and (b) are written for this
benchmark. `--shape 6.7b` times a randomly initialised model of that shape instead of real weights.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.rows import Entry, Pair, read_row
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer, torch_device
from qaq.progress import Progress
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Framer, Rendering, make_framer
from qaq.scoring.plan import merge
from qaq.scoring.stage import score_rows

Scores = list[dict[str, float]]
SHAPES = {
    "6.7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32256,
        "max_position_embeddings": 16384,
    }
}


@dataclass
class Bench:
    """Everything the three sides share."""

    model: PreTrainedModel
    rows: list[dict[str, Any]]
    framer: Framer
    engine: Engine
    budget: int

    def renderings(self) -> list[tuple[int, Rendering]]:
        """All renderings of all rows, unmerged, in pool order."""
        framed = [self.framer(r["question"], r["answer"]) for r in self.rows]
        return [(i, r) for i, f in enumerate(framed) for r in f.renderings]


def loop(bench: Bench) -> Scores:
    """(a) One rendering at a time; the loss of all its positions, then the span's."""
    found: Scores = [{} for _ in bench.rows]
    for row, rendering in bench.renderings():
        (span,) = rendering.spans
        ids = torch.tensor([rendering.ids], device=bench.model.device)
        labels = ids.clone()
        labels[0, : span.start] = -100
        with torch.no_grad():
            loss = bench.model(input_ids=ids, labels=labels).loss
        found[row][span.name] = float(loss) * (span.end - span.start)
    return found


def padded(bench: Bench, size: int = 16) -> Scores:
    """(b) Padded batches in pool order, one kind of rendering after the other, full logits."""
    found: Scores = [{} for _ in bench.rows]
    everything = bench.renderings()
    for name in ("q", "q_given_a", "a", "a_given_q"):
        kind = [(row, r) for row, r in everything if r.spans[0].name == name]
        for start in range(0, len(kind), size):
            batch = kind[start : start + size]
            width = max(len(r.ids) for _, r in batch)
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask = torch.zeros(len(batch), width, dtype=torch.long)
            target = torch.zeros(len(batch), width)
            for i, (_, r) in enumerate(batch):
                ids[i, : len(r.ids)] = torch.tensor(r.ids)
                mask[i, : len(r.ids)] = 1
                target[i, r.spans[0].start : r.spans[0].end] = 1
            ids, mask = ids.to(bench.model.device), mask.to(bench.model.device)
            with torch.no_grad():
                logits = bench.model(input_ids=ids, attention_mask=mask).logits
            shifted = logits[:, :-1].contiguous()
            losses = torch.nn.functional.cross_entropy(
                shifted.view(-1, shifted.size(-1)), ids[:, 1:].reshape(-1), reduction="none"
            ).view(len(batch), -1)
            sums = (losses * target[:, 1:].to(losses.device)).sum(1).tolist()
            for (row, _), value in zip(batch, sums, strict=True):
                found[row][name] = value
    return found


def ours(bench: Bench) -> Scores:
    """(c) The engine, framing included."""
    progress = Progress("benchmark", len(bench.rows), "rows")
    scored = score_rows(bench.rows, bench.framer, bench.engine, bench.budget, progress)
    return [{k[4:]: v for k, v in row.items() if k.startswith("nll_")} for row in scored]


def matmul_rate(model: PreTrainedModel, tokens: int) -> float:
    """FLOP/s of the model's own Linear layers of the decoder, on `tokens` random rows."""
    layers = [m for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    shapes = [tuple(m.weight.shape) for m in layers]
    flops = seconds = 0.0
    for out, into in set(shapes):
        weight = torch.randn(out, into, dtype=model.dtype, device=model.device)
        rows = torch.randn(tokens, into, dtype=model.dtype, device=model.device)
        best = []
        for _ in range(7):
            _wait(model)
            started = time.perf_counter()
            for _ in range(3):
                torch.nn.functional.linear(rows, weight)
            _wait(model)
            best.append((time.perf_counter() - started) / 3)
        count = shapes.count((out, into))
        flops += count * 2.0 * tokens * out * into
        seconds += count * statistics.median(best)
    return flops / seconds


def _wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def timed(side: Callable[[Bench], Scores], bench: Bench) -> tuple[float, Scores]:
    """Seconds and scores of one run of a side."""
    _wait(bench.model)
    started = time.perf_counter()
    found = side(bench)
    _wait(bench.model)
    return time.perf_counter() - started, found


def random_model(shape: str, dtype: str) -> PreTrainedModel:
    """A model of a named shape with random weights, for its speed only."""
    config = LlamaConfig(**SHAPES[shape])
    with torch.device(torch_device("auto")):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def pairs(path: Path | None, count: int) -> list[dict[str, Any]]:
    """The rows to score, evenly spread over the embedded pool, or over a JSONL file."""
    source = DataConfig(name="pool", source="jsonl" if path else "stdlib", path=path)
    entries = (e for e in sources.read(source) if isinstance(e, Entry))
    found = [p for p in (read_row(e, "pool") for e in entries) if isinstance(p, Pair)]
    chosen = found[:: max(1, len(found) // count)][:count]
    return [{"row_id": p.row_id, "question": p.question, "answer": p.answer} for p in chosen]


def measure(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """All three sides in one dtype, alternating."""
    config = ModelConfig(name=options.model, id=options.model, chat_template=options.chat_template)
    tokenizer = load_tokenizer(config)
    model = random_model(options.shape, dtype) if options.shape else load_model(config, dtype=dtype)
    framer = make_framer(FramingConfig(name="chat", kind="chat"), config, tokenizer, None)
    rows = pairs(options.data, options.rows)
    bench = Bench(model, rows, framer, Engine(model, tokenizer.pad_token_id or 0), options.budget)
    sides = {"loop": loop, "padded": padded, "qaq": ours}
    for name in options.skip:
        sides.pop(name)
    warm = Bench(model, rows[:4], framer, bench.engine, options.budget)
    for side in sides.values():
        side(warm)
    times: dict[str, list[float]] = {name: [] for name in sides}
    gaps: dict[str, float] = {}
    for _ in range(options.repeats):
        results = {}
        for name, side in sides.items():
            seconds, results[name] = timed(side, bench)
            times[name].append(seconds)
        gaps |= {name: largest_gap(results[name], results["qaq"], rows, framer) for name in sides}
    return summary(bench, times, gaps, matmul_rate(model, options.budget), dtype)


def largest_gap(one: Scores, two: Scores, rows: list[dict[str, Any]], framer: Framer) -> float:
    """Largest difference of a span's mean NLL, in nats per token."""
    gap = 0.0
    for a, b, row in zip(one, two, rows, strict=True):
        spans = [s for r in framer(row["question"], row["answer"]).renderings for s in r.spans]
        gap = max([gap, *(abs(a[s.name] - b[s.name]) / (s.end - s.start) for s in spans)])
    return gap


def summary(
    bench: Bench, times: dict[str, list[float]], gaps: dict[str, float], rate: float, dtype: str
) -> dict[str, Any]:
    """The figures of one dtype."""
    merged = [merge(bench.framer(r["question"], r["answer"]).renderings) for r in bench.rows]
    tokens = sum(len(r.ids) for m in merged for r in m)
    scored = sum(s.end - s.start for m in merged for r in m for s in r.spans)
    total = sum(p.numel() for p in bench.model.parameters())
    head = bench.model.get_output_embeddings().weight.numel()
    seconds = {name: statistics.median(found) for name, found in times.items()}
    return {
        "dtype": dtype,
        "pairs": len(bench.rows),
        "tokens_after_merging": tokens,
        "scored_tokens": scored,
        "seconds": times,
        "pairs_per_second": {n: len(bench.rows) / s for n, s in seconds.items()},
        "speedup": {
            name: statistics.median(t / o for t, o in zip(found, times["qaq"], strict=True))
            for name, found in times.items()
            if name != "qaq"
        },
        "largest_gap_nats_per_token": gaps,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul_rate": 2 * total * tokens / seconds["qaq"] / rate,
        "share_counting_the_head_only_where_used": (
            2 * ((total - head) * tokens + head * scored) / seconds["qaq"] / rate
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--chat-template", default=None)
    parser.add_argument("--shape", choices=SHAPES, help="a random model of this shape instead")
    parser.add_argument("--data", type=Path, help="a JSONL file instead of the embedded pool")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=int, default=4096)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--skip", nargs="*", default=[], choices=["loop", "padded"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = [measure(options, dtype) for dtype in options.dtypes]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    result = {
        "model": options.shape or options.model,
        "device": device,
        "threads": torch.get_num_threads(),
        "token_budget": options.budget,
        "torch": torch.__version__,
        "runs": found,
    }
    for run in found:
        rates = ", ".join(f"{n} {r:.2f}" for n, r in run["pairs_per_second"].items())
        ratios = ", ".join(f"{r:.2f}x {n}" for n, r in run["speedup"].items())
        print(f"{run['dtype']}: pairs/s {rates}; qaq is {ratios}")
        strict = run["share_counting_the_head_only_where_used"]
        print(
            f"  matmul ceiling {run['matmul_gflops']:.0f} GFLOP/s, used "
            f"{run['share_of_matmul_rate']:.0%} ({strict:.0%} counting the head only where used); "
            f"gaps {run['largest_gap_nats_per_token']}"
        )
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
