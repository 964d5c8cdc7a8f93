"""From the jobs of a sweep to the comparisons they make together.

Jobs that share pool, scorers, target and benchmark differ only in how rows were chosen and in the
seed. They are one experiment with several arms, so one report page; seeds of one arm are one
result. A sweep over the pool or a model gives one comparison for each.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qaq.evidence.config import PrimaryConfig
from qaq.host import plugins
from qaq.host.errors import ConfigError
from qaq.run.compose import values_of
from qaq.run.config import ArmConfig, Config, arms_of
from qaq.run.pipeline import Run
from qaq.store.keys import content_key, keyed


@dataclass(frozen=True)
class SweepJob(Run):
    """One job of a sweep, with the overrides that it was composed of."""

    overrides: tuple[str, ...]

    @property
    def command(self) -> str:
        """The shell command that runs this job alone."""
        return shlex.join(["qaq", "run", *plugins.option(), *self.overrides])


def combine(jobs: Sequence[SweepJob]) -> list[Config]:
    """One configuration for each comparison that the jobs make; its arms are all of theirs."""
    groups: dict[str, list[SweepJob]] = {}
    for job in jobs:
        groups.setdefault(content_key(_shared(job.config)), []).append(job)
    swept = _swept(jobs)
    return [_joined(group, swept) for group in groups.values()]


def _shared(config: Config) -> dict[str, Any]:
    """What jobs must have in common to be arms of one comparison."""
    apart = ("seed", "seeds", "ratio", "ratios", "selector", "arms", "train", "runtime", "tracking")
    return {
        name: keyed(getattr(config, name))
        for name in config.__dataclass_fields__
        if name not in apart
    }


def _joined(jobs: Sequence[SweepJob], swept: list[str]) -> Config:
    arms: dict[str, ArmConfig] = {}
    names: dict[str, str] = {}  # by what the arm is, so that equal ones come once
    called: list[dict[str, str]] = []  # of each job, by its own names
    for job in jobs:
        called.append({})
        for own, label, arm in _arms(job, swept):
            same = content_key(keyed(replace(arm, seeds=None)))
            name = names[same] if same in names else _unused(label, arms)
            names[same] = called[-1][own] = name
            earlier = arms[name].seeds if name in arms else ()
            seeds = {*(earlier or ()), *(arm.seeds or ())}
            arms[name] = replace(arm, seeds=tuple(sorted(seeds)))
    first = jobs[0].config
    primary = _declared(first.primary, called)
    return replace(first, arms=dict(sorted(arms.items())), ratios=None, primary=primary)


def _declared(own: PrimaryConfig, called: Sequence[dict[str, str]]) -> PrimaryConfig:
    """What the jobs declare, by the names of the comparison; what several declare alike, once."""

    def all_of(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple(dict.fromkeys((of[a], of[b]) for of in called for a, b in pairs))

    assay = all_of([own.assay] if own.assay else [])
    if len(assay) > 1:
        raise ConfigError(
            [
                f"primary.assay: over the sweep it is {len(assay)} comparisons, expected one that "
                "speaks for all others; run each value by itself, or add primary.assay=null"
            ]
        )
    names = tuple(dict.fromkeys(of[name] for of in called for name in own.as_good or ()))
    return replace(
        own,
        comparisons=None if own.comparisons is None else all_of(own.comparisons),
        as_good=None if own.as_good is None else names,
        assay=assay[0] if assay else None,
    )


def _arms(job: SweepJob, swept: list[str]) -> Iterator[tuple[str, str, ArmConfig]]:
    """The arms of one job: each with its own name and the one it has in the comparison."""
    for name, arm in arms_of(job.config).items():
        whole = arm.selector.method == "full"
        yield name, _label(name, job, swept, whole), replace(arm, ratio=None) if whole else arm


def _label(name: str, job: SweepJob, swept: list[str], whole: bool) -> str:
    """The arm's name: the selector, then every value that the sweep varies, seeds left out."""
    values = values_of(list(job.overrides))
    base = name if job.config.arms else values.get("selector", name)
    parts = [base]
    for key in swept:
        if key in ("seed", "seeds", "selector", "experiment", "name") or (whole and key == "ratio"):
            continue
        known = key == "ratio" or "." not in key
        parts.append(values[key] if known else f"{key.rsplit('.', 1)[-1]}={values[key]}")
    return "-".join(parts).replace("/", "-")


def _unused(name: str, arms: dict[str, ArmConfig]) -> str:
    number, free = 1, name
    while free in arms:
        number += 1
        free = f"{name}-{number}"
    return free


def _swept(jobs: Sequence[SweepJob]) -> list[str]:
    """The fields that have more than one value over the jobs, in the order of the command."""
    seen: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in values_of(list(job.overrides)).items():
            seen.setdefault(key, set()).add(value)
    return [key for key, values in seen.items() if len(values) > 1]
