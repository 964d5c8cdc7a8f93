"""Puts the results together: collected artifacts in, one `Results` out. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from qaq.page.provenance import Manifest, hardware, packages, provenance, subject
from qaq.reporting import analysis, contamination, evidence, family
from qaq.reporting.analysis import ALL, UNTUNED, Grids, Pair
from qaq.reporting.collect import Collected
from qaq.reporting.config import ReportArm, ReportStage
from qaq.reporting.departures import departures
from qaq.reporting.preference import preferences
from qaq.reporting.reference import reference_cells
from qaq.reporting.schema import (
    SCHEMA_VERSION,
    ArmResult,
    Cost,
    Holdings,
    Metric,
    Results,
)
from qaq.reporting.verdict import BITS, DETAIL, TUNING, verdict, what_was_kept


def assemble(data: Collected) -> Results:
    """Compute everything that the report shows."""
    found = analysis.grids(data.outcomes)
    primary, asked = data.spec.primary, data.spec.arms
    declared = family.as_declared(primary, asked, found)
    comparisons = family.primary_tests(primary, asked, declared)
    loss = family.loss(primary, asked, declared)
    strength = family.powers(primary, asked, declared)
    arms = _arms(data, found)
    return Results(
        schema_version=SCHEMA_VERSION,
        experiment=data.spec.experiment,
        subject=subject(data.manifests),
        verdict=verdict(comparisons, loss, strength) if data.spec.suites else what_was_kept(arms),
        pool=evidence.pool_facts(data),
        arms=arms,
        comparisons=(*comparisons, *analysis.described(descriptive(data.spec, found), found)),
        loss=loss,
        power=strength,
        separations=evidence.separations(data),
        model_free=evidence.without_model(data),
        retentions=evidence.retentions(data),
        correlations=evidence.correlations(data),
        metrics=evidence.metrics(data),
        overlaps=evidence.overlaps(data),
        preferences=preferences(data.preferences),
        contamination=contamination.contaminations(data),
        untouched=contamination.untouched(data, found),
        reference=reference_cells(data.reference, arms),
        departures=departures(
            data.manifests, max((len(a.seeds) for a in data.spec.arms), default=1)
        )
        if data.spec.suites
        else (),
        notes=notes(data, found),
        provenance=tuple(provenance(m) for m in data.manifests.values()),
        packages=packages(data.manifests),
        hardware=hardware(data.manifests),
    )


def descriptive(spec: ReportStage, found: Grids) -> list[Pair]:
    """What is shown beside the primary family, without a claim.

    The same comparisons by bits per byte, by the other tests and by single suites; every arm
    beside the untuned model.
    """
    versus = family.contrasts(spec.primary, spec.arms)
    suites = sorted({suite for by_suite in found.values() for suite in by_suite} - {ALL})
    metrics: tuple[Metric, Metric] = ("base", "plus")
    detail: list[tuple[Metric, str]] = [(m, ALL) for m in metrics if m != spec.primary.outcome]
    if len(suites) > 1:
        detail += [(m, s) for s in suites for m in metrics]
    made = [Pair(BITS, "bits_per_byte", ALL, a, b) for a, b in versus]
    made += [Pair(DETAIL, metric, suite, a, b) for a, b in versus for metric, suite in detail]
    if UNTUNED in found:
        both: tuple[Metric, Metric] = (spec.primary.outcome, "bits_per_byte")
        made += [Pair(TUNING, m, ALL, a.name, UNTUNED) for a in spec.arms for m in both]
    return made


def _arms(data: Collected, found: Grids) -> tuple[ArmResult, ...]:
    held = evidence.holdings(data)
    untuned = ReportArm(name=UNTUNED, method=UNTUNED, ratio=None, seeds=())
    return tuple(
        _arm(data, found, arm, held.get(arm.name))
        for arm in (untuned, *data.spec.arms)
        if arm.name in found or arm.name in held
    )


def _arm(data: Collected, found: Grids, arm: ReportArm, held: Holdings | None) -> ArmResult:
    rows = data.outcomes[data.outcomes["arm"] == arm.name]
    answers = data.answers[data.answers["arm"] == arm.name]
    by_suite = found.get(arm.name, {})
    return ArmResult(
        name=arm.name,
        method=arm.method,
        ratio=arm.ratio,
        seeds=tuple(sorted({s for g in by_suite.values() for s in g.seeds})),
        suites=tuple(
            analysis.suite_result(suite, one, _rows_of(rows, suite), _rows_of(answers, suite))
            for suite, one in by_suite.items()
        ),
        holdings=held,
        cost=_cost(data, arm.name),
    )


def _rows_of(rows: pd.DataFrame, suite: str) -> pd.DataFrame:
    return rows if suite == ALL else rows[rows["benchmark"] == suite]


def _cost(data: Collected, name: str) -> Cost:
    trained = [m for r, m in data.manifests.items() if r.startswith(f"adapter/{name}/")]
    chosen = next((m for r, m in data.manifests.items() if r.startswith(f"subset/{name}/")), None)
    # What a model had to read for the arm's rule: inputs of its subset, each counted once.
    read = {m.key: m for m in data.manifests.values() if m.kind in ("scores", "embeddings")}
    scored = [read[key] for key in (chosen.inputs.values() if chosen else ()) if key in read]
    seconds = [m.seconds for m in scored if m.seconds is not None]
    peaks = [m.peak_rss_mib for m in trained if m.peak_rss_mib is not None]
    return Cost(
        training_seconds=_mean([m.seconds for m in trained]),
        scoring_seconds=sum(seconds) if seconds else None,
        tokens=_mean([_number(m.summary.get("tokens")) for m in trained]),
        flops=_mean([_flops(m) for m in trained]),
        energy_joules=_mean([m.energy_joules for m in trained]),
        peak_gib=max(peaks) / 1024 if peaks else None,
    )


def _flops(adapter: Manifest) -> float | None:
    """Floating-point operations of LoRA training: 4 a token and frozen weight, 6 a trained one.

    2 forward and 2 for the gradient of the activations; the gradient of a weight costs 2 more, and
    only trained weights have one. Attention's own products, a few percent here, are not counted.
    """
    known = [_number(adapter.summary.get(n)) for n in ("tokens", "frozen", "trainable")]
    if any(v is None for v in known):
        return None
    tokens, frozen, trainable = (v for v in known if v is not None)
    return tokens * (4 * frozen + 6 * trainable)


def _mean(values: list[float | None]) -> float | None:
    """The mean, or None where a value is missing: a mean of some would pass for one of all."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def notes(data: Collected, found: Grids) -> tuple[str, ...]:
    """What a reader must know about this very run: gaps, suspects, differing prompts."""
    spec = data.spec
    said = family.notes(spec.primary, spec.arms, found) if spec.suites else []
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
    for name, group in suspects.groupby("arm"):
        said.append(
            f"{len(group)} programs of {name} also passed against false expected values: "
            "they may cheat. They count as the judge counted them."
        )
    prompts = rows.groupby(["benchmark", "task_id"])["prompt_sha"].nunique()
    if (prompts > 1).any():
        said.append(
            f"{int((prompts > 1).sum())} tasks were put to the arms with different prompts; "
            "their differences are not due to the data alone."
        )
    if data.lost:
        said.append(data.lost)
    return (*said, *judging([m.summary for m in data.manifests.values()]))


def judging(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Under which conditions programs were judged, from what the artifacts say of themselves."""
    summaries = [s for s in summaries if "judge" in s]
    ways = sorted({(str(s["judge"]), str(s["sandbox"])) for s in summaries})
    of_evalplus = {"repaired": "EvalPlus (repaired)", "stock": "EvalPlus (stock)"}
    said = [
        f"Programs were judged by {of_evalplus.get(way, way)} inside {sandbox}."
        for way, sandbox in ways
    ]
    flips = sum(int(s.get("flips", 0)) for s in summaries)
    if flips:
        said.append(f"{flips} programs passed only when judged again with twice the time.")
    return said
