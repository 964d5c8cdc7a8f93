"""Puts the results together: collected artifacts in, one `Results` out. Pure."""

from collections.abc import Mapping
from typing import Any, get_args

import pandas as pd

from qaq.reporting import analysis, evidence
from qaq.reporting.analysis import ALL, Grid, Pair
from qaq.reporting.collect import UNTUNED, Collected, Manifest
from qaq.reporting.departures import departures
from qaq.reporting.reference import reference_cells
from qaq.reporting.schema import (
    SCHEMA_VERSION,
    ArmResult,
    Cost,
    Holdings,
    Metric,
    Provenance,
    Results,
)
from qaq.reporting.verdict import BITS, DETAIL, PRIMARY, TUNING, verdict
from qaq.selection.config import SelectorConfig
from qaq.stages import ReportArm

NEEDS = {
    method: rule.needs
    for rule in get_args(get_args(SelectorConfig)[0])
    for method in get_args(rule.__annotations__["method"])
}


def assemble(data: Collected) -> Results:
    """Compute everything that the report shows."""
    found = analysis.grids(data.outcomes)
    comparisons = analysis.compare_pairs(pairs(data, found), found)
    powers = analysis.powers(comparisons, found, PRIMARY)
    arms = _arms(data, found)
    packages: dict[str, str] = {}
    for manifest in data.manifests.values():
        packages |= manifest.packages
    return Results(
        schema_version=SCHEMA_VERSION,
        experiment=data.spec.experiment,
        verdict=verdict(comparisons, powers),
        pool=evidence.pool_facts(data),
        arms=arms,
        comparisons=tuple(comparisons),
        power=tuple(powers),
        separations=evidence.separations(data),
        retentions=evidence.retentions(data),
        correlations=evidence.correlations(data),
        overlaps=evidence.overlaps(data),
        reference=reference_cells(data.reference, arms),
        departures=departures(data.spec.settings, max((len(a.seeds) for a in arms), default=0)),
        notes=notes(data, found),
        provenance=tuple(_provenance(m) for m in data.manifests.values()),
        packages=dict(sorted(packages.items())),
        hardware=_hardware(data.manifests),
    )


def pairs(data: Collected, found: Mapping[str, Mapping[str, Grid]]) -> list[Pair]:
    """Which arms are tested against which, in which family.

    Every arm against `full`, and against the random arm of its ratio. The primary family is pass@1
    (plus tests) over all tasks; bits per byte is a second one; single suites and the base tests
    a third; every arm against the untuned model a fourth.
    """
    arms = [a for a in data.spec.arms if a.name in found]
    suites = sorted(data.outcomes["benchmark"].unique())
    versus = [(a.name, b) for a in arms for b in _baselines(a, arms)]
    detail: list[tuple[Metric, str]] = [("base", ALL)]
    if len(suites) > 1:
        detail += [(m, s) for s in suites for m in ("base", "plus")]
    made = [Pair(PRIMARY, "plus", ALL, a, b) for a, b in versus]
    made += [Pair(BITS, "bits_per_byte", ALL, a, b) for a, b in versus]
    made += [Pair(DETAIL, metric, suite, a, b) for a, b in versus for metric, suite in detail]
    if UNTUNED in found:
        both: tuple[Metric, Metric] = ("plus", "bits_per_byte")
        made += [Pair(TUNING, m, ALL, a.name, UNTUNED) for a in arms for m in both]
    return made


def _baselines(arm: ReportArm, arms: list[ReportArm]) -> list[str]:
    full = [a.name for a in arms if a.method == "full"][:1]
    drawn = [a for a in arms if a.method == "random"]
    alike = [a.name for a in drawn if a.ratio == arm.ratio] or [a.name for a in drawn]
    chance = alike if len(alike) == 1 else []
    if arm.method == "full":
        return chance
    return [
        b for b in full + chance if b != arm.name and not (arm.method == "random" and b in chance)
    ]


def _arms(data: Collected, found: Mapping[str, Mapping[str, Grid]]) -> tuple[ArmResult, ...]:
    held = evidence.holdings(data)
    results = []
    if UNTUNED in found:
        results.append(_arm(data, found, UNTUNED, UNTUNED, None, None))
    for arm in data.spec.arms:
        if arm.name in found or arm.name in held:
            results.append(_arm(data, found, arm.name, arm.method, arm.ratio, held.get(arm.name)))
    return tuple(results)


def _arm(
    data: Collected,
    found: Mapping[str, Mapping[str, Grid]],
    name: str,
    method: str,
    ratio: float | None,
    held: Holdings | None,
) -> ArmResult:
    rows = data.outcomes[data.outcomes["arm"] == name]
    by_suite = found.get(name, {})
    return ArmResult(
        name=name,
        method=method,
        ratio=ratio,
        seeds=tuple(sorted({s for g in by_suite.values() for s in g.seeds})),
        suites=tuple(
            analysis.suite_result(suite, one, _rows_of(rows, suite))
            for suite, one in by_suite.items()
        ),
        holdings=held,
        cost=_cost(data, name, method),
    )


def _rows_of(rows: pd.DataFrame, suite: str) -> pd.DataFrame:
    return rows if suite == ALL else rows[rows["benchmark"] == suite]


def _cost(data: Collected, name: str, method: str) -> Cost:
    trained = [m for r, m in data.manifests.items() if r.startswith(f"adapter/{name}/")]
    scored = [data.manifests[r] for r in NEEDS.get(method, ()) if r in data.manifests]

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return sum(known) / len(known) if known and len(known) == len(values) else None

    def told(field: str) -> float | None:
        values: list[float | None] = [_number(m.summary.get(field)) for m in trained]
        return mean(values)

    seconds = [m.seconds for m in scored]
    peaks = [m.peak_rss_mib for m in trained if m.peak_rss_mib is not None]
    return Cost(
        training_seconds=mean([m.seconds for m in trained]),
        scoring_seconds=sum(s for s in seconds if s is not None) if seconds else None,
        tokens=told("tokens"),
        flops=told("flops"),
        energy_joules=told("energy_joules"),
        peak_gib=max(peaks) / 1024 if peaks else None,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def notes(data: Collected, found: Mapping[str, Mapping[str, Grid]]) -> tuple[str, ...]:
    """What a reader must know about this very run: gaps, suspects, differing prompts."""
    said = []
    for arm in data.spec.arms:
        by_suite = found.get(arm.name, {})
        gone = [
            f"seed {seed} on {suite}"
            for suite in data.spec.suites
            for seed in arm.seeds
            if suite not in by_suite or seed not in by_suite[suite].seeds
        ]
        if gone:
            said.append(f"{arm.name} is incomplete: no outcomes for {', '.join(gone)}.")
    rows = data.outcomes
    suspects = rows[rows["suspect"].fillna(False).astype(bool)]
    for arm, group in suspects.groupby("arm"):
        said.append(
            f"{len(group)} programs of {arm} also passed against false expected values: "
            "they may cheat. They count as the judge counted them."
        )
    prompts = rows.groupby(["benchmark", "task_id"])["prompt_sha"].nunique()
    if (prompts > 1).any():
        said.append(
            f"{int((prompts > 1).sum())} tasks were put to the arms with different prompts; "
            "their differences are not due to the data alone."
        )
    return tuple(said)


def _provenance(manifest: Manifest) -> Provenance:
    peak = manifest.peak_rss_mib
    return Provenance(
        role=manifest.role,
        kind=manifest.kind,
        name=manifest.name,
        key=manifest.key,
        seconds=manifest.seconds,
        peak_gib=None if peak is None else peak / 1024,
    )


def _hardware(manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Each distinct machine as one line."""
    lines: dict[str, None] = {}
    for manifest in manifests.values():
        told = manifest.hardware
        if isinstance(told, Mapping):
            told = ", ".join(f"{k} {v}" for k, v in sorted(told.items()) if v not in (None, "", []))
        if told:
            lines[str(told)] = None
    return tuple(lines)
