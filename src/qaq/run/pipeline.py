"""The order of the stages, in one page.

    pairs --> scores (one table per model) --> subset --> adapter --> outcomes --> report

`plan` turns a configuration into stages; each knows its inputs, so its key is known before any of
them has run. Nothing here imports torch or starts a process (`qaq.run.runner` does).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from qaq.data.config import PairsStage
from qaq.embedding.config import EmbeddingsStage
from qaq.evaluation.benchmarks import split_tasks
from qaq.evaluation.config import OutcomesStage, OverlapsStage
from qaq.host.hardware import resolve_dtype
from qaq.models.config import DType, ModelConfig
from qaq.reporting.config import ReportArm, ReportStage
from qaq.run.config import ArmConfig, Config, arms_of, reference_file
from qaq.run.fingerprints import (
    UNRESOLVED,
    benchmark_identity,
    data_identity,
    model_identity,
    pinned_data,
    pinned_model,
    query_identity,
)
from qaq.run.stage import Stage, in_order
from qaq.scoring.config import ASKED_SPANS, FRAMINGS, FramingConfig, ScoresStage, asking
from qaq.scoring.metrics import METRICS, spans_of
from qaq.selection.config import Selector, SubsetStage, fingerprint, rules_within, spans_read
from qaq.selection.rules.full import Full
from qaq.store.keys import keyed
from qaq.store.tables import SPANS, Span
from qaq.studies.config import StudyConfig, StudyStage
from qaq.training.config import AdapterStage

SCORERS = ("strong", "weak")
UNTUNED = "untuned"
NO_SETTINGS = {
    *("runtime", "tracking", "arms", "selector", "reference", "primary", "seeds", "ratios"),
    "metrics",  # a report has their spans
}


@dataclass(frozen=True)
class Run:
    """One experiment and its plan, which is made once and handed on."""

    config: Config

    @cached_property
    def stages(self) -> list[Stage]:
        """Every stage, each after its inputs; the report is the last."""
        return plan(self.config)


def plan(config: Config) -> list[Stage]:
    """The stages of one experiment, each after its inputs; the report is the last."""
    models = {r: _resolved(getattr(config.models, r), config) for r in (*SCORERS, "target")}
    pairs = _pairs(config)
    arms = arms_of(config)
    spans = _spans_asked(arms, config)
    if config.study:
        return in_order([_study(config.study, arms, pairs, models, config)])
    needed = {r for a in arms.values() for r in a.selector.needs if getattr(a, r, None) is None}
    if config.metrics:
        needed.add("strong")
    made = {
        role: _scores(pairs, models[role], config.framing, config, spans=spans)
        for role in SCORERS
        if role in needed
    }
    made["overlaps"] = _overlaps(pairs, config)
    report: dict[str, Stage] = {"pairs": pairs, **made}
    rows = []
    if config.untuned and config.train:
        report |= _outcomes(UNTUNED, 0, None, models["target"], config)
    for name, arm in arms.items():
        own = _own_scores(arm, pairs, config, spans)
        own |= _asked(arm, pairs, models["strong"], config)
        own |= _embeddings(arm.selector, pairs, models["target"], config)
        report |= {f"read/{name}/{role}": stage for role, stage in own.items()}
        for seed in arm.seeds or ():
            subset = _subset(name, arm, seed, pairs, made | own)
            report[f"subset/{name}/{seed}"] = subset
            if arm.train:
                adapter = _adapter(name, arm, subset, pairs, models["target"], config, seed)
                report[f"adapter/{name}/{seed}"] = adapter
                report |= _outcomes(name, seed, adapter, models["target"], config)
        rows.append(
            ReportArm(
                name=name,
                method=arm.selector.method,
                ratio=subset.config.ratio,
                seeds=arm.seeds or (),
            )
        )
    settings = ReportStage(
        experiment=config.experiment,
        arms=tuple(rows),
        suites=tuple(config.benchmark.suites) if config.train else (),
        untuned=config.untuned and config.train is not None,
        reference=_reference(config),
        primary=config.primary,
        spans=spans,
        settings=keyed(replace_runtime(config)),
    )
    return in_order([Stage(settings, config.experiment, report, _own_metrics())])


def scoring(
    config: Config, roles: Iterable[str], spans: Collection[Span] = SPANS
) -> dict[str, Stage]:
    """The pool, and these spans of its score tables by the models in these roles."""
    pairs = _pairs(config)
    models = {role: _resolved(getattr(config.models, role), config) for role in roles}
    tables = {
        role: _scores(pairs, model, config.framing, config, spans=spans)
        for role, model in models.items()
    }
    return {"pairs": pairs, **tables}


def _spans_asked(arms: dict[str, ArmConfig], config: Config) -> tuple[Span, ...]:
    """The spans that the rules read, together, and those of the metrics that are asked for."""
    asked = {span for arm in arms.values() for span in spans_read(arm.selector)}
    asked |= spans_of(*config.metrics)
    return tuple(span for span in SPANS if span in asked) or SPANS


def _pairs(config: Config) -> Stage:
    noise = f"-{config.noise.name}" if config.noise.shares else ""
    settings = PairsStage(data=pinned_data(config.data), noise=config.noise)
    name = f"{config.data.name}{noise}"
    return Stage(settings, name, _synthesis(config), data_identity(config.data))


def _reference(config: Config) -> str | None:
    """The published values as text, so that they enter the key and their place does not."""
    file = reference_file(config.reference) if config.reference else None
    return file.read_text(encoding="utf-8") if file else None


def _study(
    study: StudyConfig,
    arms: dict[str, ArmConfig],
    pairs: Stage,
    models: dict[str, ModelConfig],
    config: Config,
) -> Stage:
    """A study; its inputs are `scores/<scorer>/<framing>` and those of the rules."""
    own = config.framing
    scorers = {role: models[role] for role in SCORERS}
    scorers |= {name: _resolved(model, config) for name, model in study.scorers.items()}
    scorers |= {f"{r}-float32": replace(models[r], dtype="float32") for r in study.twins}
    inputs = {f"scores/{n}/{own.name}": _scores(pairs, m, own, config) for n, m in scorers.items()}
    for name, framing in study.framings.items():
        for role in SCORERS:
            inputs[f"scores/{role}/{name}"] = _scores(pairs, models[role], framing, config)
    full = ArmConfig(selector=Full(), train=config.train)
    whole = _subset("full", full, config.seed, pairs, {})
    for role in study.tuned:
        adapter = _adapter("full", full, whole, pairs, models[role], config, config.seed)
        tuned = _scores(pairs, models[role], own, config, adapter)
        inputs[f"scores/{role}-tuned/{own.name}"] = tuned
    if any("overlaps" in arm.selector.needs for arm in arms.values()):
        inputs["overlaps"] = _overlaps(pairs, config)
    for arm in arms.values():
        inputs |= _embeddings(arm.selector, pairs, models["target"], config)
        inputs |= _asked(arm, pairs, models["strong"], config)
    if study.ask:
        inputs["asked"] = _scores(pairs, models["strong"], asking(), config, spans=ASKED_SPANS)
    settings = StudyStage(
        experiment=config.experiment,
        study=study,
        framing=own.name,
        ratio=config.ratio,
        arms={name: arm.selector for name, arm in arms.items()},
    )
    fingerprints = _own_metrics() | fingerprint(*(arm.selector for arm in arms.values()))
    return Stage(settings, config.experiment, {"pairs": pairs, **inputs}, fingerprints)


def _own_metrics() -> dict[str, str]:
    """Source hashes of the user's metrics, all of which a report or a study computes."""
    return METRICS.fingerprint(*METRICS)


def replace_runtime(config: Config) -> dict[str, Any]:
    """The configuration without what may not change a result (and so may not enter a key)."""
    tree = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return {k: v for k, v in tree.items() if k not in NO_SETTINGS}


def _synthesis(config: Config) -> dict[str, Stage]:
    """The stage that writes the pool, where models write it."""
    made = config.data.synthesis
    if made is None:
        return {}
    answerers = {
        name: replace(answerer, model=pinned_model(_resolved(answerer.model, config)))
        for name, answerer in made.answerers.items()
    }
    questioner = pinned_model(_resolved(made.questioner, config))
    made = replace(made, questioner=questioner, answerers=answerers)
    models = {"questioner": made.questioner, **{n: a.model for n, a in answerers.items()}}
    prints = {
        f"{role}.{part}": value
        for role, model in models.items()
        for part, value in model_identity(model).items()
    }
    return {"synthesis": Stage(made, made.name, fingerprints=prints)}


def _resolved(model: ModelConfig, config: Config) -> ModelConfig:
    """The model with `dtype=auto` made definite, since precision changes numbers."""
    dtype = cast(DType, resolve_dtype(model.dtype, config.runtime.device))
    return replace(model, dtype=dtype)


def _scores(
    pairs: Stage,
    model: ModelConfig,
    framing: FramingConfig,
    config: Config,
    adapter: Stage | None = None,
    spans: Collection[Span] = SPANS,
) -> Stage:
    label = f"{model.name}-tuned" if adapter else model.name
    settings = ScoresStage(
        model=pinned_model(model),
        framing=framing,
        system_prompt=config.system_prompt,
        spans=tuple(spans),
        engine="vllm" if _is_served(model, config) else "hf",
    )
    return Stage(
        settings,
        f"{pairs.name}-{label}-{framing.name}",
        {"pairs": pairs, **({"adapter": adapter} if adapter else {})},
        model_identity(model) | FRAMINGS.fingerprint(framing.kind),
    )


def _is_served(model: ModelConfig, config: Config) -> bool:
    """Whether a vLLM server has this model, in this precision."""
    roles = [_resolved(getattr(config.models, role), config) for role in (*SCORERS, "target")]
    same = any((m.id, m.dtype) == (model.id, model.dtype) for m in roles)
    return same and model.id in config.runtime.vllm


def _overlaps(pairs: Stage, config: Config) -> Stage:
    bench = config.benchmark
    settings = OverlapsStage(suites=tuple(bench.suites), specs=bench.resolved)
    fingerprints: dict[str, str] = {}
    for suite, spec in bench.resolved.items():
        found = benchmark_identity(suite, suite=spec)
        fingerprints |= {n if n == UNRESOLVED else f"{suite}_{n}": v for n, v in found.items()}
    return Stage(settings, f"{pairs.name}-{bench.name}", {"pairs": pairs}, fingerprints)


def _embeddings(
    selector: Selector, pairs: Stage, model: ModelConfig, config: Config
) -> dict[str, Stage]:
    """The vectors that a rule reads, of the pool and of its target queries; else nothing."""
    rule: Any = next((r for r in rules_within(selector)[::-1] if "embeddings" in r.needs), None)
    if rule is None:
        return {}
    bench, weights = config.benchmark, model_identity(model)
    pool = EmbeddingsStage(
        model=pinned_model(model), system_prompt=config.system_prompt, max_tokens=rule.max_tokens
    )
    label = f"{pairs.name}-{model.name}"
    found = {"embeddings": Stage(pool, label, {"pairs": pairs}, weights)}
    if "queries" not in rule.needs:
        return found
    asked = replace(
        pool,
        queries=rule.queries,
        suites=tuple(bench.suites),
        specs=bench.resolved,
    )
    fingerprints = weights | query_identity(rule.queries)
    return found | {"queries": Stage(asked, f"queries-{model.name}", {}, fingerprints)}


def _own_scores(
    arm: ArmConfig, pairs: Stage, config: Config, spans: Collection[Span]
) -> dict[str, Stage]:
    """The scores of the scorers that the arm has for itself, where its rule reads them."""
    return {
        role: _scores(pairs, _resolved(model, config), config.framing, config, spans=spans)
        for role in SCORERS
        if (model := getattr(arm, role)) is not None and role in arm.selector.needs
    }


def _asked(arm: ArmConfig, pairs: Stage, strong: ModelConfig, config: Config) -> dict[str, Stage]:
    """What the strong model answers when asked about each pair, where the arm's rule reads it."""
    if "asked" not in arm.selector.needs:
        return {}
    model = _resolved(arm.strong, config) if arm.strong else strong
    return {"asked": _scores(pairs, model, asking(), config, spans=ASKED_SPANS)}


def _subset(name: str, arm: ArmConfig, seed: int, pairs: Stage, made: dict[str, Stage]) -> Stage:
    selector = arm.selector
    settings = SubsetStage(
        selector=selector,
        ratio=arm.ratio if selector.uses_ratio else None,
        seed=seed if selector.seeded else None,
    )
    label = name
    if settings.ratio is not None and not name.endswith(f"-{settings.ratio:g}"):
        label += f"-{settings.ratio:g}"
    if settings.seed is not None:
        label += f"-seed{seed}"
    inputs = {"pairs": pairs, **{role: made[role] for role in selector.needs}}
    return Stage(settings, label, inputs, fingerprint(selector))


def _adapter(
    name: str,
    arm: ArmConfig,
    subset: Stage,
    pairs: Stage,
    model: ModelConfig,
    config: Config,
    seed: int,
) -> Stage:
    assert arm.train is not None
    settings = AdapterStage(
        model=pinned_model(model),
        train=arm.train,
        system_prompt=config.system_prompt,
        share=1.0 if arm.selector.method == "full" or arm.ratio is None else arm.ratio,
        seed=seed,
    )
    label = f"{model.name}-{name}-seed{seed}"
    return Stage(settings, label, {"pairs": pairs, "subset": subset}, model_identity(model))


def _outcomes(
    name: str, seed: int, adapter: Stage | None, model: ModelConfig, config: Config
) -> dict[str, Stage]:
    found = {}
    bench = config.benchmark
    tasks = split_tasks(bench.resolved, bench.tasks)
    for suite, spec in bench.resolved.items():
        settings = OutcomesStage(
            model=pinned_model(model),
            system_prompt=config.system_prompt,
            eval=config.eval,
            suite=suite,
            spec=spec,
            tasks=tasks[suite],
            limit=bench.limit,
        )
        label = adapter.name if adapter else f"{model.name}-{UNTUNED}"
        fingerprints = model_identity(model) | benchmark_identity(suite, suite=spec)
        found[f"outcomes/{name}/{seed}/{suite}"] = Stage(
            settings,
            f"{label}-{suite}",
            {"adapter": adapter} if adapter else {},
            fingerprints,
        )
    return found
