"""Speed of answering a benchmark's problems, three ways, with the same model and prompts.

    python experiments/performance/generation.py --file HumanEvalPlus.jsonl \
        --out results/performance/generation.json

(a) evalplus  EvalPlus 0.3.1's Hugging Face generator: one problem at a time
(b) plain     `transformers`' generate on the whole batch, padded on the left, float32
(c) qaq       this project's batched decoding

All are given EvalPlus's chat prompts, its stop texts and the same number of new tokens, and decode
greedily. Three measures:

- `benchmark`: problems per second of (c) on the whole file against (a);
- `batch`: problems per second on one batch of 48 problems, (c) against (b);
- `tokens`: new tokens per second on that batch, when every row must write all of them.

Sides alternate; the ratios are medians of the ratios round by round. The ceiling is what the
model's own Linear layers would do alone at this batch, as PyTorch multiplies and as it does with
packed weights, measured in the same run.

To be fair to (a): its rate does not depend on how many problems there are, and it is slow, so it is
given a few, evenly spread over the file; and the stop criterion that it stacks up from call to call
is taken away again before each (with it, later answers are cut short and each call is slower than
the one before). (b) is written for this benchmark. Rounds are added to those in the output file.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from evalplus.codegen import make_model
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from qaq.evaluation import prompts
from qaq.evaluation.benchmarks import Benchmark, load
from qaq.evaluation.generation.generate import Decoding, Request, complete, model_limits
from qaq.evaluation.generation.hf import HfGenerator
from qaq.evaluation.prompts import Asker, Stops, make_asker
from qaq.models.config import ModelConfig
from qaq.models.forward.swaps import Swaps
from qaq.models.load import load_model, load_tokenizer, location

Texts = dict[str, str]
Side = Callable[[], tuple[Texts, int]]
DTYPES = ("float32", "bfloat16")
PLAIN = [("qaq float32", "plain float32"), ("qaq bfloat16", "plain float32")]
PAIRS = {  # who is compared with whom, by measure
    "benchmark": [(f"qaq {dtype}", f"evalplus {dtype}") for dtype in DTYPES],
    "batch": PLAIN,
    "tokens": PLAIN,
}


@dataclass
class Bench:
    """Everything the sides share."""

    tokenizer: PreTrainedTokenizerBase
    benchmark: Benchmark
    asker: Asker
    decoding: Decoding
    models: dict[str, PreTrainedModel]
    evalplus: dict[str, Any]
    few: int
    batch: int

    def requests(self, count: int | None) -> list[Request]:
        """The first problems of the file, or all."""
        made = [self.asker.prompt(p) for p in self.benchmark.problems[:count]]
        return [Request(p.task_id, 0, p.ids, p.sha) for p in made]


def evalplus(bench: Bench, dtype: str) -> tuple[Texts, int]:
    """(a) A few problems, evenly spread, one after the other."""
    problems = bench.benchmark.problems
    runner, found = bench.evalplus[dtype], {}
    for problem in problems[:: max(1, len(problems) // bench.few)][: bench.few]:
        vars(runner.model).pop("_get_stopping_criteria", None)
        prompt = problem.prompt.strip() + "\n"
        found[problem.task_id] = runner.codegen(prompt, do_sample=False, num_samples=1)[0]
    return found, 0


@torch.inference_mode()
def plain(bench: Bench, everything: bool) -> tuple[Texts, int]:
    """(b) One `generate` over all rows; answers are cut at the stop texts afterwards."""
    requests, model = bench.requests(bench.batch), bench.models["float32"]
    width = max(len(r.prompt) for r in requests)
    ids = torch.full((len(requests), width), bench.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, r in enumerate(requests):
        ids[i, width - len(r.prompt) :] = torch.tensor(r.prompt)
        mask[i, width - len(r.prompt) :] = 1
    budget = bench.decoding.max_new_tokens
    output = model.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=budget,
        min_new_tokens=budget if everything else None,
        do_sample=False,
        pad_token_id=bench.tokenizer.pad_token_id,
        eos_token_id=sorted(bench.decoding.end_ids),
    )
    rows = bench.tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    texts = {
        r.task_id: complete(t, 0, True, r, bench.decoding).text
        for r, t in zip(requests, rows, strict=True)
    }
    return texts, len(requests) * (output.shape[1] - width)


def ours(bench: Bench, dtype: str, name: str) -> tuple[Texts, int]:
    """(c) The generator of the outcomes stage; on one batch, as many rows at a time as (b) has."""
    count, decoding = None if name == "benchmark" else bench.batch, bench.decoding
    if name == "tokens":
        decoding = replace(decoding, stops=Stops(()), end_ids=frozenset())
    found = list(
        HfGenerator(bench.models[dtype], bench.tokenizer, decoding, count)(bench.requests(count))
    )
    return {c.task_id: c.text for c in found}, sum(c.new_tokens for c in found)


def ceiling(bench: Bench) -> dict[str, float]:
    """Tokens a second of a decoding step's Linear layers alone, output head included."""
    rows = bench.batch
    found = {}
    for dtype, model in bench.models.items():
        found[f"{dtype} as they are"] = rows / linear_seconds(model, rows)
        with Swaps(model, repack=True, rows=64)():
            found[f"{dtype} packed"] = rows / linear_seconds(model, rows)
    return found


@torch.inference_mode()
def linear_seconds(model: PreTrainedModel, rows: int) -> float:
    """Seconds of one decoding step's Linear layers."""
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    states = {
        m.in_features: torch.randn(rows, m.in_features, dtype=model.dtype, device=model.device)
        for m in layers
    }

    def step() -> float:
        started = time.perf_counter()
        for layer in layers:
            layer(states[layer.in_features])
        _wait(model.device)
        return time.perf_counter() - started

    step()
    return statistics.median(step() for _ in range(9))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def sides(bench: Bench, name: str) -> dict[str, Side]:
    """What is timed for a measure, by name."""
    found: dict[str, Side] = {}
    for dtype in DTYPES:
        found[f"qaq {dtype}"] = lambda d=dtype: ours(bench, d, name)
        if name == "benchmark":
            found[f"evalplus {dtype}"] = lambda d=dtype: evalplus(bench, d)
    if name != "benchmark":
        found["plain float32"] = lambda: plain(bench, name == "tokens")
    return found


def measure(bench: Bench, name: str, rates: dict[str, list[float]]) -> dict[str, Any]:
    """One round of all sides for one measure, added to earlier ones; did they write the same?"""
    texts: dict[str, Texts] = {}
    for side, work in sides(bench, name).items():
        started = time.perf_counter()
        texts[side], tokens = work()
        _wait(bench.models["float32"].device)
        amount = tokens if name == "tokens" else len(texts[side])
        rates.setdefault(side, []).append(amount / (time.perf_counter() - started))
        print(f"  {name}: {side} {rates[side][-1]:.3f}/s", flush=True)
    return {
        "rates": rates,
        "median": {side: statistics.median(found) for side, found in rates.items()},
        "speedup": {
            f"{a} over {b}": statistics.median(
                x / y for x, y in zip(rates[a], rates[b], strict=True)
            )
            for a, b in PAIRS[name]
        },
        "same_text": {f"{a} and {b}": same(texts[a], texts[b], name) for a, b in PAIRS[name]},
        "ceiling_tokens_per_second": ceiling(bench),
    }


def same(one: Texts, two: Texts, name: str) -> str:
    """How many of the answers that both sides gave are equal (tabs aside)."""
    if name == "tokens":  # `generate` is kept from ending by other means, so it writes other text
        return "not comparable"
    both = one.keys() & two.keys()
    equal = sum(one[t].replace("\t", "    ") == two[t].replace("\t", "    ") for t in both)
    return f"{equal} of {len(both)}"


def prepare(options: argparse.Namespace) -> Bench:
    """Load everything."""
    config = ModelConfig(name=options.model, id=options.model)
    tokenizer = load_tokenizer(config)
    benchmark = load(options.suite, options.file, limit=options.limit)
    asker = make_asker("evalplus_chat", config, tokenizer, None)
    context, ends = model_limits(config)
    decoding = Decoding(
        options.tokens, asker.stops(benchmark.format), ends | asker.end_ids, context
    )
    runners = {}
    for dtype in DTYPES if "benchmark" in options.measure else ():
        with contextlib.redirect_stdout(io.StringIO()):
            runners[dtype] = make_model(
                model=location(config)["pretrained_model_name_or_path"],
                backend="hf",
                dataset=benchmark.format,
                dtype=dtype,
                instruction_prefix=prompts.EVALPLUS_INSTRUCTION,
                response_prefix=prompts.EVALPLUS_RESPONSE,
            )
        runners[dtype].max_new_tokens = options.tokens
    models = {dtype: load_model(config, options.device, dtype) for dtype in DTYPES}
    return Bench(tokenizer, benchmark, asker, decoding, models, runners, options.few, options.batch)


def report(result: dict[str, Any]) -> str:
    """The figures as a short page."""
    lines = [
        "# Generation",
        "",
        "{model}, {problems} problems of {suite}, a batch of {batch}, at most {new_tokens} new "
        "tokens, {threads} threads, {device}, torch {torch}.".format(**result),
        "",
        "What is measured, and how EvalPlus's generator is treated fairly, stands at the head of "
        "`experiments/performance/generation.py`.",
    ]
    for name in PAIRS:
        if name not in result["measures"]:
            continue
        found = result["measures"][name]
        unit = "new tokens" if name == "tokens" else "problems"
        lines += [
            "",
            f"## {name}: {unit} per second",
            "",
            "| side | median | rounds |",
            "|---|---|---|",
        ]
        for side, rate in found["median"].items():
            rounds = ", ".join(f"{r:.3g}" for r in found["rates"][side])
            lines.append(f"| {side} | {rate:.3g} | {rounds} |")
        lines += ["", "| ratio | median | same answers |", "|---|---|---|"]
        for (pair, ratio), equal in zip(
            found["speedup"].items(), found["same_text"].values(), strict=True
        ):
            lines.append(f"| {pair} | {ratio:.1f}x | {equal} |")
        top = ", ".join(f"{k} {v:.0f}" for k, v in found["ceiling_tokens_per_second"].items())
        lines += ["", f"Linear layers alone, tokens a second at this batch: {top}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--suite", default="humaneval", choices=["mini", "humaneval", "mbpp"])
    parser.add_argument("--file", type=Path, help="the suite's data file")
    parser.add_argument("--limit", type=int, help="problems of the file (all)")
    parser.add_argument("--batch", type=int, default=48, help="problems of a batch")
    parser.add_argument("--few", type=int, default=12, help="problems that EvalPlus is given")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--measure", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bench = prepare(options)
    result: dict[str, Any] = {
        "model": options.model,
        "suite": options.suite,
        "problems": len(bench.benchmark.problems),
        "batch": options.batch,
        "new_tokens": options.tokens,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "torch": torch.__version__,
    }
    if options.out and options.out.exists():
        result = json.loads(options.out.read_text()) | result
    for dtype in DTYPES:  # warm
        ours(replace(bench, decoding=replace(bench.decoding, max_new_tokens=4)), dtype, "tokens")
    for name in options.measure * options.rounds:
        measures = result.setdefault("measures", {})
        measures[name] = measure(bench, name, measures.get(name, {}).get("rates", {}))
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
            options.out.with_suffix(".md").write_text(report(result))
    print(report(result))


if __name__ == "__main__":
    main()
