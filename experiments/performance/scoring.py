"""Pairs per second of three ways to score all four spans of the same rows with the same model.

    python experiments/performance/scoring.py --rows 20 --repeats 5 --out results/performance

(a) loop     one row and one rendering at a time, full logits, as Cherry_LLM does it
(b) padded   batches of 16 in pool order, padded, full logits, as the authors' script does it
(c) qaq      this project's engine

Sides and precisions alternate; after each round the medians so far and the ratios round by round
are written. (a) and (b) live in a process that gets memory as a script's own does. (c) lives in
another, which keeps what it frees, as qaq's stage does; `loop-kept` is (a) in that process: what is
left of the ratio when the loop is given that too. While one process works, the other waits.

The machine's ceiling is measured in the same run at the model's layer shapes, twice: PyTorch's
plain Linear, and oneDNN's with the weights in its own layout, where there is one. (a) and (b) are
written for this benchmark. `--shape 6.7b` times a randomly initialised model of that shape instead
of real weights; the model's tokenizer is still used.
"""

import argparse
import copy
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen3Config

from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.rows import Entry, Pair, read_row
from qaq.host.hardware import describe, keep_freed_memory
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.models.forward.dense import can_pack, dense
from qaq.models.forward.packing import pack
from qaq.models.load import load_model, load_tokenizer, torch_device
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import Framer, Rendering, make_framer
from qaq.scoring.plan import Task, merge
from qaq.scoring.stage import score_rows

Scores = list[dict[str, float]]
SHAPES = {  # of the paper's two scorers
    "6.7b": LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32256,
        max_position_embeddings=16384,
    ),
    "0.6b": Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
}


@dataclass
class Bench:
    """Everything the three sides share in one precision."""

    dtype: str
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


def matmul_rate(model: PreTrainedModel, tokens: int, repack: bool) -> float:
    """FLOP/s of random Linear layers of the decoder's shapes, on `tokens` random rows."""
    layers = [m for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    shapes = [tuple(m.weight.shape) for m in layers]
    flops = seconds = 0.0
    for out, into in set(shapes):
        made = torch.nn.Linear(into, out, bias=False, dtype=model.dtype, device=model.device)
        layer = dense(made, repack)
        rows = torch.randn(tokens, into, dtype=model.dtype, device=model.device)
        best = []
        for _ in range(7):
            _wait(model)
            started = time.perf_counter()
            with torch.inference_mode():
                for _ in range(3):
                    layer(rows)
            _wait(model)
            best.append((time.perf_counter() - started) / 3)
        count = shapes.count((out, into))
        flops += count * 2.0 * tokens * out * into
        seconds += count * statistics.median(best)
    return flops / seconds


def _wait(model: PreTrainedModel) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def timed(side: Callable[[Bench], Scores], bench: Bench) -> tuple[float, int, Scores]:
    """Seconds, bytes of device memory beside the weights (0 on a processor) and scores of a run."""
    _wait(bench.model)
    on_device = bench.model.device.type == "cuda"
    before = torch.cuda.memory_allocated() if on_device else 0
    if on_device:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    found = side(bench)
    _wait(bench.model)
    spent = time.perf_counter() - started
    return spent, torch.cuda.max_memory_allocated() - before if on_device else 0, found


def random_model(shape: str, dtype: str, vocabulary: int) -> PreTrainedModel:
    """A model of a named shape with random weights, for its speed only.

    It has as many tokens as the tokenizer needs, if that is more than the shape has. The same in
    every process.
    """
    torch.manual_seed(0)
    config = copy.deepcopy(SHAPES[shape])
    config.vocab_size = max(config.vocab_size, vocabulary)
    with torch.device(torch_device("auto")):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def pairs(path: Path | None, count: int) -> list[dict[str, Any]]:
    """The rows to score, evenly spread over the embedded pool, or over a JSONL file."""
    source = DataConfig(name="pool", source="jsonl" if path else "stdlib", path=path)
    entries = (e for e in sources.read(source) if isinstance(e, Entry))
    found = [p for p in (read_row(e, "pool") for e in entries) if isinstance(p, Pair)]
    chosen = found[:: max(1, len(found) // count)][:count]
    return [{"row_id": p.row_id, "question": p.question, "answer": p.answer} for p in chosen]


def model_config(options: argparse.Namespace) -> ModelConfig:
    """The model that the options name."""
    return ModelConfig(name=options.model, id=options.model, chat_template=options.chat_template)


def make_chat_framer(options: argparse.Namespace) -> Framer:
    """The framing that is measured."""
    config = model_config(options)
    return make_framer(
        FramingConfig(name="chat", kind="chat"), config, load_tokenizer(config), None
    )


def make_bench(options: argparse.Namespace, dtype: str) -> Bench:
    """Rows, model and engine in one precision."""
    config = model_config(options)
    tokenizer = load_tokenizer(config)
    model = (
        random_model(options.shape, dtype, len(tokenizer))
        if options.shape
        else load_model(config, dtype=dtype)
    )
    engine = Engine(model)
    rows = pairs(options.data, options.rows)
    return Bench(dtype, model, rows, make_chat_framer(options), engine, options.budget)


KINDS = {"loop": loop, "padded": padded, "loop-kept": loop, "qaq": ours}
KEPT = ("loop-kept", "qaq")  # sides in the process that keeps freed memory


def serve(pipe: Connection, options: argparse.Namespace, kept: bool) -> None:
    """A process of the benchmark: makes its models, then runs the side that it is told to."""
    torch.set_num_threads(options.threads)
    if kept:
        keep_freed_memory()
    names = [name.split() for name in sides(options) if (name.split()[0] in KEPT) is kept]
    benches = {dtype: make_bench(options, dtype) for dtype in dict.fromkeys(d for _, d in names)}
    for kind, dtype in names:
        KINDS[kind](replace(benches[dtype], rows=benches[dtype].rows[:3]))
    pipe.send(facts(list(benches.values())) if kept else None)
    while name := pipe.recv():
        kind, dtype = name.split()
        pipe.send(timed(KINDS[kind], benches[dtype]))


def facts(benches: list[Bench]) -> dict[str, Any]:
    """What has to be run, and how fast this machine multiplies."""
    bench = benches[0]
    merged = [merge(bench.framer(r["question"], r["answer"]).renderings) for r in bench.rows]
    tasks = [Task(i, r) for i, m in enumerate(merged) for r in m]
    batches = bench.engine.batches(tasks, bench.budget)
    return {
        "pairs": len(bench.rows),
        "tokens_after_merging": sum(len(t.rendering.ids) for t in tasks),
        "tokens_really_run": sum(len(pack([t.ids for t in b]).ids) for b in batches),
        "scored_tokens": sum(s.end - s.start for m in merged for r in m for s in r.spans),
        "parameters": sum(p.numel() for p in bench.model.parameters()),
        "head_parameters": bench.model.get_output_embeddings().weight.numel(),
        "matmul_gflops": {
            f"{b.dtype}, {'oneDNN layout' if repack else 'plain'}": matmul_rate(
                b.model, b.budget, repack
            )
            / 1e9
            for b in benches
            for repack in (False, True)
            if not repack or can_pack(b.model.device, b.model.dtype)
        },
    }


def sides(options: argparse.Namespace) -> list[str]:
    """Names of what is run, in the order of a round."""
    names = [(kind, dtype) for dtype in options.dtypes for kind in KINDS]
    return [
        f"{k} {d}" for k, d in names if k not in options.skip and f"{k}-{d}" not in options.skip
    ]


def measure(options: argparse.Namespace) -> None:
    """All sides in all precisions, alternating; figures are written after each round."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[bool, Connection] = {}
    for kept in (False, True):
        pipes[kept], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, options, kept), daemon=True).start()
        known = pipes[kept].recv()
    rows, framer = pairs(options.data, options.rows), make_chat_framer(options)
    times: dict[str, list[float]] = {name: [] for name in sides(options)}
    peaks: dict[str, int] = {}
    results: dict[str, Scores] = {}
    for _ in range(options.repeats):
        for name, seconds in times.items():
            pipe = pipes[name.split()[0] in KEPT]
            pipe.send(name)
            spent, peaks[name], results[name] = pipe.recv()
            seconds.append(spent)
        found = summary(options, known, times) | {
            "peak_device_bytes": peaks,
            "largest_gap_nats_per_token": gaps(results, rows, framer),
        }
        text = markdown(found)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "scoring.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.out / "scoring.md").write_text(text)
    for pipe in pipes.values():
        pipe.send(None)
    print(text)


def gaps(
    results: dict[str, Scores], rows: list[dict[str, Any]], framer: Framer
) -> dict[str, float]:
    """Largest difference of a span's mean NLL between each side and qaq in its own precision."""
    reference = {name.split()[1]: found for name, found in results.items() if "qaq" in name}
    return {
        name: largest_gap(found, reference[name.split()[1]], rows, framer)
        for name, found in results.items()
        if name.split()[1] in reference and "qaq" not in name
    }


def largest_gap(one: Scores, two: Scores, rows: list[dict[str, Any]], framer: Framer) -> float:
    """Largest difference of a span's mean NLL, in nats per token."""
    gap = 0.0
    for a, b, row in zip(one, two, rows, strict=True):
        spans = [s for r in framer(row["question"], row["answer"]).renderings for s in r.spans]
        gap = max([gap, *(abs(a[s.name] - b[s.name]) / (s.end - s.start) for s in spans)])
    return gap


def summary(
    options: argparse.Namespace, known: dict[str, Any], times: dict[str, list[float]]
) -> dict[str, Any]:
    """All figures of a run; `known` are the `facts`."""
    tokens, run = known["tokens_after_merging"], known["tokens_really_run"]
    total, head = known["parameters"], known["head_parameters"]
    seconds = {name: statistics.median(found) for name, found in times.items()}
    shares = {}
    for name, rate in known["matmul_gflops"].items():
        spent = seconds[f"qaq {name.split(',')[0]}"]
        work = {
            "2 x parameters x tokens after merging": 2 * total * tokens,
            "2 x parameters x tokens really run": 2 * total * run,
            "tokens really run, the head only where used": 2
            * ((total - head) * run + head * known["scored_tokens"]),
        }
        shares[name] = {what: flops / spent / rate / 1e9 for what, flops in work.items()}
    ratios = {
        f"{name} / {ours}": statistics.median(
            t / o for t, o in zip(found, times[ours], strict=True)
        )
        for ours in times
        if ours.startswith("qaq")
        for name, found in times.items()
        if not name.startswith("qaq")
    }
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return known | {
        "command": "python experiments/performance/scoring.py " + " ".join(sys.argv[1:]),
        "model": options.shape or options.model,
        "hardware": describe() | {"cuda": cuda},
        "threads": options.threads,
        "torch": torch.__version__,
        "token_budget": options.budget,
        "rounds": len(next(iter(times.values()))),
        "seconds": times,
        "pairs_per_second": {n: known["pairs"] / s for n, s in seconds.items()},
        "tokens_per_second": {n: tokens / s for n, s in seconds.items() if n.startswith("qaq")},
        "times_as_fast": ratios,
        "share_of_matmul_rate": shares,
    }


def markdown(found: dict[str, Any]) -> str:
    """The figures as a page."""
    lines = [
        "# Scoring: pairs per second",
        "",
        f"    {found['command']}",
        "",
        f"{found['model']}, {found['pairs']} pairs of the pool, framing chat, "
        f"{found['tokens_after_merging']:,} tokens after merging ({found['tokens_really_run']:,} "
        f"really run by qaq), medians of {found['rounds']} alternating rounds, "
        f"{found['threads']} threads, {found['hardware']['cuda'] or found['hardware']['cpu']}.",
        "",
        "| side | pairs/s |",
        "|---|---|",
        *(f"| {name} | {rate:.2f} |" for name, rate in found["pairs_per_second"].items()),
        "",
        "| ratio of times, median of rounds | |",
        "|---|---|",
        *(f"| {name} | {ratio:.2f} |" for name, ratio in found["times_as_fast"].items()),
        "",
        "| matmul ceiling at the layer shapes | GFLOP/s | "
        + " | ".join(next(iter(found["share_of_matmul_rate"].values())))
        + " |",
        "|---|---|---|---|---|",
    ]
    for name, rate in found["matmul_gflops"].items():
        shares = (f"{share:.0%}" for share in found["share_of_matmul_rate"][name].values())
        lines.append(f"| {name} | {rate:.0f} | " + " | ".join(shares) + " |")
    if any(found["peak_device_bytes"].values()):
        peaks = (f"{n} {b / 2**30:.2f}" for n, b in found["peak_device_bytes"].items())
        lines += ["", f"Peak device memory beside the weights, GiB: {', '.join(peaks)}."]
    lines += [
        "",
        "Largest difference of a span's mean NLL to qaq in the same precision, nats per token: "
        + ", ".join(f"{n} {g:.2g}" for n, g in found["largest_gap_nats_per_token"].items())
        + ".",
        "",
    ]
    return "\n".join(lines)


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
    parser.add_argument("--budget", type=int, default=RuntimeConfig().token_budget)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--skip", nargs="*", default=[], help="sides, such as loop, padded-float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for scoring.json and scoring.md")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
