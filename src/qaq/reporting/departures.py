"""Where this run differs from the paper, and the choices that the paper leaves open.

A pure function of the resolved configuration: what is not in it is not claimed.
"""

from collections.abc import Mapping
from typing import Any

from qaq.reporting.schema import Departure

OPEN = "not stated"


def departures(settings: Mapping[str, Any], seeds: int) -> tuple[Departure, ...]:
    """Rows of (topic, paper, here), only where the two differ or the paper is silent."""
    rows = [
        *_models(settings.get("models") or {}),
        *_data(settings.get("data") or {}, settings.get("noise") or {}),
        *_scoring(settings.get("framing") or {}),
        *_selection(settings),
        *_training(settings.get("train") or {}),
        *_evaluation(settings.get("benchmark") or {}, settings.get("eval") or {}),
        Departure(topic="seeds", paper="1", here=str(seeds)),
    ]
    return tuple(row for row in rows if row.paper != row.here)


def _models(models: Mapping[str, Any]) -> list[Departure]:
    paper = {
        "strong": "deepseek-coder-6.7b-base",
        "weak": "qwen3-0.6b",
        "target": "deepseek-coder-6.7b-base",
    }
    titles = {"strong": "strong scorer", "weak": "weak scorer", "target": "fine-tuned model"}
    return [
        Departure(topic=titles[role], paper=paper[role], here=str(models[role]["name"]))
        for role in paper
        if role in models
    ]


def _data(data: Mapping[str, Any], noise: Mapping[str, Any]) -> list[Departure]:
    rows = []
    if data:
        rows.append(Departure(topic="pool", paper="warriorcoder", here=str(data["name"])))
    if data.get("limit"):
        here = f"a random {data['limit']} of the pool"
        rows.append(Departure(topic="pool size", paper="about 310,000 rows", here=here))
    shares = noise.get("shares") or {}
    if shares:
        here = ", ".join(f"{kind} {share:.0%}" for kind, share in sorted(shares.items()))
        rows.append(Departure(topic="planted noise", paper="none", here=here))
    return rows


def _scoring(framing: Mapping[str, Any]) -> list[Departure]:
    if not framing:
        return []
    return [
        Departure(topic="framing", paper="chat, question span shifted", here=str(framing["kind"])),
        Departure(
            topic="longest rendering",
            paper="20480 tokens (mathematics script)",
            here=f"{framing['max_tokens']} tokens",
        ),
        Departure(
            topic="reverse instruction for code",
            paper=OPEN,
            here=" ".join(str(framing["reverse_instruction"]).split()),
        ),
    ]


def _selection(settings: Mapping[str, Any]) -> list[Departure]:
    arms = settings.get("arms") or {}
    rules = [a.get("selector") or {} for a in arms.values()] or [settings.get("selector") or {}]
    rows = []
    if any(r.get("method") == "rmi_band" for r in rules):
        here = "deciles of the strong scorer's log PPL(Q); ranked by the strong scorer"
        rows.append(Departure(topic="whose PPL(Q) makes the deciles", paper=OPEN, here=here))
    cuts = {str(r["cut"]) for r in rules if "cut" in r}
    if cuts:
        here = " and ".join(
            "the same share as the other arms" if c == "share" else "a fixed threshold"
            for c in sorted(cuts)
        )
        paper = "Diff > 0.1 (notes) or top 25% (authors' README)"
        rows.append(Departure(topic="cut of the disagreement rules", paper=paper, here=here))
    return rows


def _training(train: Mapping[str, Any]) -> list[Departure]:
    if not train:
        return []
    lora = train.get("lora") or {}
    return [
        Departure(
            topic="adapter",
            paper=OPEN,
            here=f"LoRA rank {lora.get('rank')}, alpha {lora.get('alpha'):g}",
        ),
        Departure(
            topic="batch and learning rate",
            paper="512 at 1.2e-4 (full), 256 at 0.4e-4 (25%)",
            here=f"{train['batch_size']} at {train['learning_rate']:g}",
        ),
        Departure(topic="epochs", paper="3", here=f"{train['epochs']:g}"),
        Departure(topic="cut-off", paper=OPEN, here=f"{train['cutoff_tokens']} tokens"),
    ]


def _evaluation(benchmark: Mapping[str, Any], judge: Mapping[str, Any]) -> list[Departure]:
    rows = []
    if benchmark:
        here = ", ".join(benchmark["suites"])
        rows.append(Departure(topic="benchmarks", paper="humaneval, mbpp", here=here))
    if benchmark.get("limit") or benchmark.get("tasks"):
        rows.append(Departure(topic="tasks", paper="all", here="a part of each suite"))
    if judge:
        rows.append(Departure(topic="prompt", paper=OPEN, here=str(judge["prompt"])))
        rows.append(
            Departure(
                topic="judge",
                paper="EvalPlus, stock",
                here=f"EvalPlus, {judge['judge']}; time limit at least {judge['min_time_limit']:g} s",
            )
        )
        rows.append(Departure(topic="new tokens", paper="768", here=str(judge["max_new_tokens"])))
    return rows
