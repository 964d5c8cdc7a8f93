"""The order of the stages, in one page.

    pairs --> scores (one table per model) --> subset --> adapter --> outcomes --> report

`plan` turns a configuration into stages; each knows its inputs, so its key is known before any of
them has run. Nothing here imports torch or starts a process (`qaq.runner` does).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any, cast

from pydantic import TypeAdapter

from qaq import stages
from qaq.config import ArmConfig, Config, keyed
from qaq.data.identity import identity as data_identity
from qaq.evaluation.benchmarks import identity as benchmark_identity
from qaq.evaluation.benchmarks import split_tasks
from qaq.hardware import resolve_dtype
from qaq.job import MODULES
from qaq.models.config import DType, ModelConfig
from qaq.models.identity import identity as model_identity
from qaq.store import content_key

UNTUNED = "untuned"


@dataclass(frozen=True)
class Stage:
    """One artifact to be made. `outside` holds hashes of what is not an artifact itself."""

    kind: str
    name: str
    config: Any
    inputs: dict[str, "Stage"] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the key is made of; `qaq why` shows where two differ."""
        return {
            "stage": self.kind,
            "version": import_module(MODULES[self.kind]).VERSION,
            "config": keyed(self.config),
            "inputs": {role: stage.key for role, stage in sorted(self.inputs.items())},
            "outside": self.outside,
        }

    @cached_property
    def key(self) -> str:
        """The content key: equal keys mean equal artifacts."""
        return content_key(self.identity)

    @property
    def tree(self) -> dict[str, Any]:
        """The config as plain JSON values, for the job file."""
        tree: dict[str, Any] = TypeAdapter(type(self.config)).dump_python(self.config, mode="json")
        return tree


def plan(config: Config) -> list[Stage]:
    """The stages of one experiment, each after its inputs; the report is the last."""
    models = {
        role: _resolved(getattr(config.models, role), config)
        for role in ("strong", "weak", "target")
    }
    pairs = Stage(
        "pairs",
        config.data.name if not config.noise.shares else f"{config.data.name}-{config.noise.name}",
        stages.PairsStage(data=config.data, noise=config.noise),
        outside=data_identity(config.data),
    )
    arms = config.arms or {config.selector.method: ArmConfig(selector=config.selector)}
    needed = {role for arm in arms.values() for role in arm.selector.needs}
    roles = [role for role in ("strong", "weak") if role in needed]
    scores: dict[str, Stage] = {role: _scores(pairs, models[role], config) for role in roles}
    report: dict[str, Stage] = {"pairs": pairs, **scores}
    rows = []
    if config.untuned:
        report |= _outcomes(UNTUNED, 0, None, models["target"], config)
    for name, arm in arms.items():
        seeds = arm.seeds or (config.seed,)
        ratio = config.ratio if arm.ratio is None else arm.ratio
        for seed in seeds:
            subset = _subset(name, arm, ratio, seed, pairs, scores)
            adapter = _adapter(name, subset, pairs, models["target"], config, ratio, seed)
            report |= {f"subset/{name}/{seed}": subset, f"adapter/{name}/{seed}": adapter}
            report |= _outcomes(name, seed, adapter, models["target"], config)
        rows.append(
            stages.ReportArm(
                name=name, method=arm.selector.method, ratio=subset.config.ratio, seeds=seeds
            )
        )
    settings = stages.ReportStage(
        experiment=config.experiment,
        arms=tuple(rows),
        suites=config.benchmark.suites,
        untuned=config.untuned,
        settings=keyed(replace_runtime(config)),
    )
    return in_order([Stage("report", config.experiment, settings, report)])


def in_order(goals: Iterable[Stage]) -> list[Stage]:
    """All stages that `goals` rest on, inputs first, each key once."""
    seen: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in seen:
            for dependency in stage.inputs.values():
                visit(dependency)
            seen[stage.key] = stage

    for goal in goals:
        visit(goal)
    return list(seen.values())


def replace_runtime(config: Config) -> dict[str, Any]:
    """The configuration without what may not change a result (and so may not enter a key)."""
    tree = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return {k: v for k, v in tree.items() if k not in ("runtime", "tracking", "arms", "selector")}


def _resolved(model: ModelConfig, config: Config) -> ModelConfig:
    """The model with `dtype=auto` made definite, since precision changes numbers."""
    dtype = cast(DType, resolve_dtype(model.dtype, config.runtime.device))
    return replace(model, dtype=dtype)


def _scores(pairs: Stage, model: ModelConfig, config: Config) -> Stage:
    return Stage(
        "scores",
        f"{pairs.name}-{model.name}-{config.framing.name}",
        stages.ScoresStage(model=model, framing=config.framing, system_prompt=config.system_prompt),
        {"pairs": pairs},
        model_identity(model),
    )


def _subset(
    name: str, arm: ArmConfig, ratio: float, seed: int, pairs: Stage, scores: dict[str, Stage]
) -> Stage:
    selector = arm.selector
    settings = stages.SubsetStage(
        selector=selector,
        ratio=ratio if selector.uses_ratio else None,
        seed=seed if selector.seeded else None,
    )
    label = f"{name}-{settings.ratio:g}" if settings.ratio is not None else name
    if settings.seed is not None:
        label += f"-seed{seed}"
    inputs = {"pairs": pairs, **{role: scores[role] for role in selector.needs}}
    return Stage("subset", label, settings, inputs)


def _adapter(
    name: str,
    subset: Stage,
    pairs: Stage,
    model: ModelConfig,
    config: Config,
    ratio: float,
    seed: int,
) -> Stage:
    settings = stages.AdapterStage(
        model=model,
        train=config.train,
        system_prompt=config.system_prompt,
        share=1.0 if subset.config.selector.method == "full" else ratio,
        seed=seed,
    )
    label = f"{model.name}-{name}-seed{seed}"
    return Stage(
        "adapter", label, settings, {"pairs": pairs, "subset": subset}, model_identity(model)
    )


def _outcomes(
    name: str, seed: int, adapter: Stage | None, model: ModelConfig, config: Config
) -> dict[str, Stage]:
    found = {}
    bench = config.benchmark
    tasks = split_tasks(
        bench.suites, bench.files, bench.tasks, allow_unknown=bench.allow_unknown_data
    )
    for suite in bench.suites:
        settings = stages.OutcomesStage(
            model=model,
            system_prompt=config.system_prompt,
            eval=config.eval,
            suite=suite,
            file=bench.files.get(suite),
            allow_unknown_data=bench.allow_unknown_data,
            tasks=tasks[suite],
            limit=bench.limit,
        )
        label = adapter.name if adapter else f"{model.name}-{UNTUNED}"
        outside = model_identity(model) | benchmark_identity(
            suite, settings.file, allow_unknown=bench.allow_unknown_data
        )
        found[f"outcomes/{name}/{seed}/{suite}"] = Stage(
            "outcomes",
            f"{label}-{suite}",
            settings,
            {"adapter": adapter} if adapter else {},
            outside,
        )
    return found
