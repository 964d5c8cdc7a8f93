"""The stages that make the pool and what rules read of it: scores, vectors, overlaps.

Models and data are pinned here to what they are when the run is planned.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any, cast

from qaq.data.config import PairsStage
from qaq.embedding.config import EmbeddingsStage
from qaq.evaluation.config import OverlapsStage
from qaq.host.errors import ConfigError
from qaq.host.hardware import resolve_dtype
from qaq.models.config import DType, ModelConfig
from qaq.run.config import ArmConfig, Config
from qaq.run.fingerprints import pinned_data, pinned_model, read_by
from qaq.run.stage import Stage
from qaq.scoring.config import ASKED_SPANS, FRAMINGS, FramingConfig, ScoresStage, asking
from qaq.selection.config import Selector, rules_within
from qaq.store.tables import SPANS, Span

SCORERS = ("strong", "weak")
MAX_TOKENS = 2048  # of an embedded pair, where a rule has no such parameter


def pairs(config: Config) -> Stage:
    """The pool, damaged on purpose where the configuration says so."""
    noise = f"-{config.noise.name}" if config.noise.shares else ""
    settings = PairsStage(data=pinned_data(config.data), noise=config.noise)
    name = f"{config.data.name}{noise}"
    return Stage(settings, name, synthesis(config), read_by(settings))


def synthesis(config: Config) -> dict[str, Stage]:
    """The stage that writes the pool, where models write it."""
    made = config.data.synthesis
    if made is None:
        return {}
    answerers = {
        name: replace(answerer, model=pinned_model(resolved(answerer.model, config)))
        for name, answerer in made.answerers.items()
    }
    questioner = pinned_model(resolved(made.questioner, config))
    made = replace(made, questioner=questioner, answerers=answerers)
    return {"synthesis": Stage(made, made.name, fingerprints=read_by(made))}


def resolved(model: ModelConfig, config: Config) -> ModelConfig:
    """The model with `dtype=auto` made definite, since precision changes numbers."""
    dtype = cast(DType, resolve_dtype(model.dtype, config.runtime.device))
    return replace(model, dtype=dtype)


def scores(
    pairs: Stage,
    model: ModelConfig,
    framing: FramingConfig,
    config: Config,
    adapter: Stage | None = None,
    spans: Collection[Span] = SPANS,
) -> Stage:
    """The score table of a pool by a model, with an adapter in it where one is given."""
    label = f"{model.name}-tuned" if adapter else model.name
    settings = ScoresStage(
        model=pinned_model(model),
        framing=framing,
        system_prompt=config.system_prompt,
        spans=tuple(spans),
        engine="vllm" if is_served(model, config) else "hf",
    )
    return Stage(
        settings,
        f"{pairs.name}-{label}-{framing.name}",
        {"pairs": pairs, **({"adapter": adapter} if adapter else {})},
        read_by(settings) | FRAMINGS.fingerprint(framing.kind),
    )


def is_served(model: ModelConfig, config: Config) -> bool:
    """Whether a vLLM server has this model, in this precision."""
    roles = [resolved(getattr(config.models, role), config) for role in (*SCORERS, "target")]
    same = any((m.id, m.dtype) == (model.id, model.dtype) for m in roles)
    return same and model.id in config.runtime.vllm


def overlaps(pairs: Stage, config: Config) -> Stage:
    """Which rows overlap with the benchmark's problems."""
    bench = config.benchmark
    settings = OverlapsStage(suites=tuple(bench.suites), specs=bench.resolved)
    return Stage(settings, f"{pairs.name}-{bench.name}", {"pairs": pairs}, read_by(settings))


def embeddings(
    selector: Selector, pairs: Stage, model: ModelConfig, config: Config
) -> dict[str, Stage]:
    """The vectors that a rule reads, of the pool and of its target queries; else nothing.

    Raises:
        ConfigError: its parts read vectors that differ.
    """
    readers, askers = (_readers(selector, role) for role in ("embeddings", "queries"))
    if not readers:
        return {}
    bench = config.benchmark
    pool = EmbeddingsStage(
        model=pinned_model(model),
        system_prompt=config.system_prompt,
        max_tokens=_common(readers, "max_tokens", MAX_TOKENS),
    )
    label = f"{pairs.name}-{model.name}"
    found = {"embeddings": Stage(pool, label, {"pairs": pairs}, read_by(pool))}
    if not askers:
        return found
    asked = replace(
        pool,
        queries=_common(askers, "queries", None),
        suites=tuple(bench.suites),
        specs=bench.resolved,
    )
    fingerprints = read_by(asked, asks=True)
    return found | {"queries": Stage(asked, f"queries-{model.name}", {}, fingerprints)}


def _readers(selector: Selector, role: str) -> list[Selector]:
    """The rules inside a selector that read this input themselves."""
    return [
        rule
        for rule in rules_within(selector)
        if role in rule.needs and not any(role in p.needs for p in getattr(rule, "parts", ()))
    ]


def _common(rules: list[Selector], name: str, default: Any) -> Any:
    """The parameter that all of them have alike."""
    values = [getattr(rule, name, default) for rule in rules]
    if len(set(values)) > 1:
        found = (f"{r.method} has {name}={v}" for r, v in zip(rules, values, strict=True))
        raise ConfigError(
            [f"selector: {' and '.join(found)}; its rules read the same vectors, so set both alike"]
        )
    return values[0]


def own_scores(
    arm: ArmConfig, pairs: Stage, config: Config, spans: Collection[Span]
) -> dict[str, Stage]:
    """The scores of the scorers that the arm has for itself, where its rule reads them."""
    return {
        role: scores(pairs, resolved(model, config), config.framing, config, spans=spans)
        for role in SCORERS
        if (model := getattr(arm, role)) is not None and role in arm.selector.needs
    }


def asked(arm: ArmConfig, pairs: Stage, strong: ModelConfig, config: Config) -> dict[str, Stage]:
    """What the strong model answers when asked about each pair, where the arm's rule reads it."""
    if "asked" not in arm.selector.needs:
        return {}
    model = resolved(arm.strong, config) if arm.strong else strong
    return {"asked": scores(pairs, model, asking(), config, spans=ASKED_SPANS)}
