"""The primary family of an experiment, as its configuration declares it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qaq.evidence import claims
from qaq.evidence.config import PrimaryConfig
from qaq.evidence.power import Power, measured, planned
from qaq.reporting.analysis import ALL, UNTUNED, Grid, Grids, Pair, arms_on, tested
from qaq.reporting.config import ReportArm
from qaq.reporting.schema import Comparison, Loss

PRIMARY = "primary"


def _like(arm: ReportArm, method: str, arms: Sequence[ReportArm]) -> list[ReportArm]:
    """The arms of a method that were trained as this one was; all of the method if none was."""
    found = [a for a in arms if a.method == method]
    return [a for a in found if a.recipe == arm.recipe] or found


def baselines(arm: ReportArm, arms: Sequence[ReportArm]) -> list[str]:
    """What an arm is compared with; each pair of arms comes once, or it would count twice."""
    if arm.method == "full":
        return []
    full = [a.name for a in _like(arm, "full", arms)][:1]
    drawn = _like(arm, "random", arms)
    equal = [a for a in drawn if a.ratio == arm.ratio][:1]
    chance = [a.name for a in equal or drawn]
    return full if arm.method == "random" or len(chance) != 1 else full + chance


def contrasts(primary: PrimaryConfig, arms: Sequence[ReportArm]) -> list[tuple[str, str]]:
    """The declared comparisons; else the assay, and every arm with its `baselines`."""
    if primary.comparisons is not None:
        return list(primary.comparisons)
    pairs = [(a.name, b) for a in arms for b in baselines(a, arms)]
    if primary.assay is None:
        return pairs
    return [primary.assay, *(p for p in pairs if {*p} != {*primary.assay})]


def as_declared(primary: PrimaryConfig, arms: Sequence[ReportArm], found: Grids) -> Grids:
    """The outcomes over all tasks, of the declared number of runs of each arm."""
    limited: dict[str, Mapping[str, Grid]] = {}
    seeds = {arm.name: arm.seeds[: primary.seeds] for arm in arms}
    for name, by_suite in found.items():
        if ALL in by_suite:
            whole = by_suite[ALL]
            kept = whole.take(seeds[name]) if name in seeds else whole
            if kept.seeds:
                limited[name] = {ALL: kept}
    return limited


def primary_tests(
    primary: PrimaryConfig, arms: Sequence[ReportArm], found: Grids
) -> list[Comparison]:
    """The declared comparisons, tested as one family.

    Where the comparison that shows assay sensitivity does not show it, no other is found.
    """
    asked = contrasts(primary, arms)
    tests = tested([Pair(PRIMARY, primary.outcome, ALL, a, b) for a, b in asked], found)
    if primary.assay is None or any(
        (c.arm, c.baseline) == primary.assay and c.finding == "better" for c in tests
    ):
        return tests
    arm, baseline = primary.assay
    why = f"{claims.NO_ASSAY}{arm} is not shown to be better than {baseline}"
    return [
        c
        if (c.arm, c.baseline) == primary.assay
        else replace(c, finding="no difference shown", reason=why)
        for c in tests
    ]


def as_good(primary: PrimaryConfig, arms: Sequence[ReportArm]) -> tuple[str, ...]:
    """The arms that may lose up to the margin against `full`."""
    if primary.as_good is not None:
        return primary.as_good
    return tuple(arm.name for arm in arms if arm.method != "full")


def _held(primary: PrimaryConfig, arms: Sequence[ReportArm]) -> dict[str, str]:
    """The arm on all rows that each of `as_good` is held against."""
    named = {arm.name: arm for arm in arms}
    against = {n: _like(named[n], "full", arms) for n in as_good(primary, arms) if n in named}
    return {name: full[0].name for name, full in against.items() if full}


def loss(primary: PrimaryConfig, arms: Sequence[ReportArm], found: Grids) -> Loss | None:
    """Which arms are as good as training on all rows; None where there is no such arm.

    One margin, so one arm on all rows: the first, with the arms that are held against it.
    """
    held = _held(primary, arms)
    full = next(iter(held.values()), None)
    if full is None or full not in found:
        return None
    names = [name for name, against in held.items() if against == full]
    on_all = arms_on(found, primary.outcome, ALL)
    margin = claims.margin_of(on_all, full, UNTUNED, primary.margin)
    shown = claims.noninferiority(on_all, names, full, margin)
    if not shown:
        return None
    return Loss(
        margin=margin.value,
        declared=margin.declared,
        gain=margin.gain,
        gain_low=margin.gain_low,
        sensitive=margin.sensitive,
        arms=tuple(shown),
    )


def powers(primary: PrimaryConfig, arms: Sequence[ReportArm], found: Grids) -> tuple[Power, ...]:
    """What the family can show: as stated before the run, and from what was measured."""
    on_all = arms_on(found, primary.outcome, ALL)
    declared = contrasts(primary, arms)
    after = measured(on_all, declared, len(declared))
    if after is None:
        return ()
    runs = {name: arm.runs for name, arm in on_all.items() if arm.trained}
    return planned(after.tasks, runs, declared), after


def notes(primary: PrimaryConfig, arms: Sequence[ReportArm], found: Grids) -> list[str]:
    """What was declared and is not there; runs beyond the declared number."""
    said = [
        f"The declared comparison of {arm} with {baseline} was not made: no outcomes."
        for arm, baseline in primary.comparisons or ([primary.assay] if primary.assay else ())
        if not {arm, baseline} <= {name for name, grids in found.items() if ALL in grids}
    ]
    held = _held(primary, arms)
    if len({*held.values()}) > 1:
        full = next(iter(held.values()))
        others = ", ".join(name for name, against in held.items() if against != full)
        said.append(f"Only arms trained as {full} are held against all rows, not {others}.")
    declared = primary.seeds
    if declared is None:
        return said
    compared = {name for pair in contrasts(primary, arms) for name in pair}
    compared |= {*held, *held.values()}
    for arm in arms:
        later = ", ".join(map(str, arm.seeds[declared:]))
        if later:
            said.append(
                f"{arm.name}: the runs with seed {later} were added to the {declared} declared "
                "ones; they are shown and take no part in the primary family."
            )
        elif arm.name in compared and len(arm.seeds) < declared:
            said.append(f"{arm.name} has {len(arm.seeds)} of the {declared} declared runs.")
    return said
