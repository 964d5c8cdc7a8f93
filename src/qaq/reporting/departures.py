"""Where this run differs from the paper, and the choices that the paper leaves open.

Read from the configurations in the manifests of the artifacts themselves: what no artifact says is
not claimed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from qaq.page.provenance import Manifest
from qaq.reporting.config import POOLS
from qaq.reporting.schema import Departure

OPEN = "not stated"
Config = Mapping[str, Any]


def departures(manifests: Mapping[str, Manifest], seeds: int) -> tuple[Departure, ...]:
    """Rows of (topic, paper, here), only where the two differ or the paper is silent.

    Nothing for a pool of the user's own: what is trained on it reproduces nothing.
    """
    pairs = [m.config for m in manifests.values() if m.kind == "pairs"]
    if any(config["data"]["name"] not in POOLS for config in pairs if config):
        return ()
    scored = {role: manifests[role].config for role in ("strong", "weak") if role in manifests}
    rules = [m.config.get("selector") or {} for m in manifests.values() if m.kind == "subset"]
    topics = [
        *_of_each(_data, pairs),
        *_scoring(scored),
        *_selection(rules),
        *_of_each(_training, [m.config for m in manifests.values() if m.kind == "adapter"]),
        *_of_each(_evaluation, [m.config for m in manifests.values() if m.kind == "outcomes"]),
        ("seeds", "1", str(seeds)),
    ]
    return tuple(Departure(topic=t, paper=p, here=h) for t, p, h in topics if p != h)


Rows = Iterator[tuple[str, str, str]]


def _of_each(rows: Callable[[Config], Rows], configs: Iterable[Config]) -> Rows:
    """The rows of all artifacts of a kind; where these differ, what each of them says."""
    said: dict[tuple[str, str], dict[str, None]] = {}
    for config in configs:
        for topic, paper, here in rows(config):
            said.setdefault((topic, paper), {})[here] = None
    for (topic, paper), found in said.items():
        yield topic, paper, " or ".join(found)


def _data(config: Config) -> Rows:
    if not config:
        return
    data, noise = config["data"], config.get("noise") or {}
    yield "pool", "warriorcoder", str(data["name"])
    if data.get("limit"):
        yield "pool size", "about 310,000 rows", f"a random {data['limit']:,} of the source"
    shares = noise.get("shares") or {}
    if shares:
        here = ", ".join(f"{k.replace('_', ' ')} {v:.0%}" for k, v in sorted(shares.items()))
        yield "planted noise", "none", here


def _scoring(scored: Mapping[str, Config]) -> Rows:
    paper = {"strong": "deepseek_coder_6_7b", "weak": "qwen3_0_6b"}
    for role, model in paper.items():
        if scored.get(role):
            yield f"{role} scorer", model, _model(scored[role])
    scorer = scored.get("strong") or scored.get("weak") or {}
    if scorer:
        framing = scorer["framing"]
        yield "framing", "chat template, question span shifted", str(framing["kind"])
        limit = f"{framing['max_tokens']:,} tokens"
        yield "longest rendering", "20,480 tokens (mathematics script)", limit
        if framing["kind"] in ("chat", "authors"):
            wording = " ".join(str(framing["reverse_instruction"]).split())
            yield "reverse instruction for code", OPEN, f"“{wording}”"


def _model(config: Config) -> str:
    model = config["model"]
    return f"{model['name']} ({model['dtype']})" if model.get("dtype") else str(model["name"])


def _selection(rules: list[Config]) -> Rows:
    if any(r.get("method") == "rmi_band" for r in rules):
        here = "those of the strong scorer, which also ranks"
        yield "whose PPL(Q) makes the deciles", OPEN, here
    shares = {"share": "the same share as the other arms", "threshold": "a fixed threshold"}
    for cut in sorted({str(r["cut"]) for r in rules if "cut" in r}):
        paper = "Diff > 0.1 (notes) or top 25% (authors' README)"
        yield "cut of the disagreement rules", paper, shares.get(cut, cut)


def _training(config: Config) -> Rows:
    if not config:
        return
    train = config["train"]
    lora = train["lora"]
    yield "fine-tuned model", "deepseek_coder_6_7b", _model(config)
    yield "adapter", OPEN, f"LoRA, rank {lora['rank']}, alpha {lora['alpha']:g}"
    recipes = [(1.0, train["batch_size"], train["learning_rate"])]
    recipes += [
        (r["share"], r["batch_size"], r["learning_rate"]) for r in train.get("by_share") or ()
    ]
    here = ", ".join(
        f"{batch} at {rate:g}" + (f" (up to {share:.0%})" if share < 1 else "")
        for share, batch, rate in recipes
    )
    yield "batch and learning rate", "512 at 1.2e-4 (full), 256 at 0.4e-4 (25%)", here
    yield "epochs", "3", f"{train['epochs']:g}"
    yield "what the arms share", "epochs", str(train.get("match", "epochs"))
    yield "cut-off", OPEN, f"{train['cutoff_tokens']:,} tokens"


def _evaluation(config: Config) -> Rows:
    if not config:
        return
    judge = config["eval"]
    if config.get("limit") or config.get("tasks"):
        yield "tasks", "all of each suite", "a part of each suite"
    suite = config.get("suite")
    if suite not in ("humaneval", "mbpp"):
        here = "mini, problems of this project" if suite == "mini" else f"{suite}, the user's own"
        yield "benchmark", "HumanEval+, MBPP+", here
    yield "prompt", OPEN, str(judge["prompt"])
    if judge.get("bits_prompt"):
        yield "prompt before bits per byte", "no such measure", str(judge["bits_prompt"])
    limit = f"EvalPlus, {judge['judge']}, at least {judge['min_time_limit']:g} s a task"
    yield "judge", "EvalPlus as released", limit
    yield "new tokens", "768", str(judge["max_new_tokens"])
