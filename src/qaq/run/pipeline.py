"""The order of the stages, in one page.

    pairs --> scores (one table per model) --> subset --> adapter --> outcomes --> report

`plan` turns a configuration into stages; each knows its inputs, so its key is known before any of
them has run. Nothing here imports torch or starts a process (`qaq.run.runner` does).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property

from qaq.evaluation.benchmarks import split_tasks
from qaq.evaluation.config import OutcomesStage
from qaq.host.errors import ConfigError
from qaq.host.paths import expanded
from qaq.models.config import ModelConfig
from qaq.reporting.config import POOLS, ReportArm, ReportStage
from qaq.run import reading
from qaq.run.config import UNTUNED, ArmConfig, Config, arms_of, reference_file
from qaq.run.fingerprints import pinned_model, pinned_rule, read_by
from qaq.run.reading import SCORERS
from qaq.run.stage import Stage, in_order
from qaq.scoring.config import ASKED_SPANS, asking
from qaq.scoring.metrics import METRICS, spans_of
from qaq.selection.config import SubsetStage, own_share, spans_read
from qaq.selection.rules.full import Full
from qaq.store.keys import content_key, keyed
from qaq.store.tables import SPANS, Span
from qaq.studies.config import StudyConfig, StudyStage
from qaq.training.config import AdapterStage, TrainConfig

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
    models = {r: reading.resolved(getattr(config.models, r), config) for r in (*SCORERS, "target")}
    pairs = reading.pairs(config)
    arms = arms_of(config)
    spans = _spans_asked(arms, config)
    if config.study:
        return in_order([_study(config.study, arms, pairs, models, config)])
    needed = {r for a in arms.values() for r in a.selector.needs if getattr(a, r, None) is None}
    if config.metrics:
        needed.add("strong")
    made = {
        role: reading.scores(pairs, models[role], config.framing, config, spans=spans)
        for role in SCORERS
        if role in needed
    }
    made["overlaps"] = reading.overlaps(pairs, config)
    report: dict[str, Stage] = {"pairs": pairs, **made}
    rows = []
    if config.untuned and config.train:
        report |= _outcomes(UNTUNED, 0, None, models["target"], config)
    for name, arm in arms.items():
        own = reading.own_scores(arm, pairs, config, spans)
        own |= reading.asked(arm, pairs, models["strong"], config)
        own |= reading.embeddings(arm.selector, pairs, models["target"], config)
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
                recipe=_recipe(arm.train, config.train),
            )
        )
    shown = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in NO_SETTINGS}
    settings = ReportStage(
        experiment=config.experiment,
        arms=tuple(rows),
        suites=tuple(config.benchmark.suites) if config.train else (),
        untuned=config.untuned and config.train is not None,
        reference=_reference(config),
        primary=config.primary,
        spans=spans,
        settings=keyed(shown),
    )
    return in_order([Stage(settings, config.experiment, report, _own_metrics())])


def scoring(
    config: Config, roles: Iterable[str], spans: Collection[Span] = SPANS
) -> dict[str, Stage]:
    """The pool, and these spans of its score tables by the models in these roles."""
    pairs = reading.pairs(config)
    models = {role: reading.resolved(getattr(config.models, role), config) for role in roles}
    tables = {
        role: reading.scores(pairs, model, config.framing, config, spans=spans)
        for role, model in models.items()
    }
    return {"pairs": pairs, **tables}


def _spans_asked(arms: dict[str, ArmConfig], config: Config) -> tuple[Span, ...]:
    """The spans that the rules read, together, and those of the metrics that are asked for."""
    asked = {span for arm in arms.values() for span in spans_read(arm.selector)}
    asked |= spans_of(*config.metrics)
    return tuple(span for span in SPANS if span in asked) or SPANS


def _reference(config: Config) -> str | None:
    """The published values as text, so that they enter the key and their place does not.

    None for a pool of the user's own, unless the values are the user's too: what is trained on it
    reproduces nothing.
    """
    file = reference_file(config.reference) if config.reference else None
    if config.data.name not in POOLS and file != expanded(config.reference or ""):
        return None
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
    scorers |= {name: reading.resolved(model, config) for name, model in study.scorers.items()}
    scorers |= {f"{r}-float32": replace(models[r], dtype="float32") for r in study.twins}
    inputs = {
        f"scores/{n}/{own.name}": reading.scores(pairs, m, own, config) for n, m in scorers.items()
    }
    for name, framing in study.framings.items():
        for role in SCORERS:
            inputs[f"scores/{role}/{name}"] = reading.scores(pairs, models[role], framing, config)
    full = ArmConfig(selector=Full(), train=config.train)
    whole = _subset("full", full, config.seed, pairs, {})
    for role in study.tuned:
        adapter = _adapter("full", full, whole, pairs, models[role], config, config.seed)
        tuned = reading.scores(pairs, models[role], own, config, adapter)
        inputs[f"scores/{role}-tuned/{own.name}"] = tuned
    if any("overlaps" in arm.selector.needs for arm in arms.values()):
        inputs["overlaps"] = reading.overlaps(pairs, config)
    for name, arm in arms.items():
        read = reading.embeddings(arm.selector, pairs, models["target"], config)
        read |= reading.asked(arm, pairs, models["strong"], config)
        for role, stage in read.items():
            if inputs.setdefault(role, stage).key != stage.key:
                raise ConfigError(
                    [
                        f"arms.{name}.selector: it reads other {role} than an arm before it, and "
                        "a study has one for all; give both the same max_tokens and queries, or "
                        "make a study of its own"
                    ]
                )
    if study.ask:
        inputs["asked"] = reading.scores(
            pairs, models["strong"], asking(), config, spans=ASKED_SPANS
        )
    settings = StudyStage(
        experiment=config.experiment,
        study=study,
        framing=own.name,
        ratio=config.ratio,
        arms={name: pinned_rule(arm.selector) for name, arm in arms.items()},
    )
    fingerprints = _own_metrics() | read_by(settings)
    return Stage(settings, config.experiment, {"pairs": pairs, **inputs}, fingerprints)


def _recipe(train: TrainConfig | None, own: TrainConfig | None) -> str:
    """What tells an arm's recipe from the experiment's own; empty where it is that one."""
    return "" if keyed(train) == keyed(own) else content_key(keyed(train))[:8]


def _own_metrics() -> dict[str, str]:
    """Source hashes of the user's metrics, all of which a report or a study computes."""
    return METRICS.fingerprint(*METRICS)


def _subset(name: str, arm: ArmConfig, seed: int, pairs: Stage, made: dict[str, Stage]) -> Stage:
    selector = pinned_rule(arm.selector)
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
    return Stage(settings, label, inputs, read_by(settings))


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
        share=own_share(arm.selector) or arm.ratio or 1.0,
        seed=seed,
    )
    label = f"{model.name}-{name}-seed{seed}"
    return Stage(settings, label, {"pairs": pairs, "subset": subset}, read_by(settings))


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
        found[f"outcomes/{name}/{seed}/{suite}"] = Stage(
            settings,
            f"{label}-{suite}",
            {"adapter": adapter} if adapter else {},
            read_by(settings),
        )
    return found
