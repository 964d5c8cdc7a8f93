"""What a comparison can show: stated before the run, and again from what was measured."""

from collections.abc import Mapping, Sequence

import numpy as np

from qaq.evidence.statistics import smallest_difference
from qaq.reporting.analysis import ALPHA, Grid
from qaq.reporting.schema import Comparison, Power

ASSUMED_DISCORDANCE = 0.10  # share of tasks on which two arms disagree, before anything is known


def planned(tasks: int, seeds: int, comparisons: int) -> Power:
    """What so many tasks, seeds and comparisons can show, before the run.

    Assumes that two arms disagree on one task in ten, all of it a difference between the arms, so
    that seeds do not help: the careful assumption.
    """
    return _power(tasks, seeds, comparisons, ASSUMED_DISCORDANCE, 0.0, assumed=True)


def powers(
    comparisons: Sequence[Comparison], found: Mapping[str, Mapping[str, Grid]], family: str
) -> list[Power]:
    """What the primary family could have shown: before the run, and from what was measured."""
    members = [c for c in comparisons if c.family == family]
    if not members:
        return []
    tasks, seeds = members[0].tasks, min(c.seeds for c in members)
    suite = members[0].suite
    within = _seed_discordance([found[arm][suite] for arm in {c.arm for c in members}])
    measured = float(
        np.median([_discordance(found[c.arm][suite], found[c.baseline][suite]) for c in members])
    )
    return [
        planned(tasks, seeds, len(members)),
        _power(tasks, seeds, len(members), measured, within, assumed=False),
    ]


def statement(power: Power) -> str:
    """One sentence on what so many tasks and seeds can show."""
    if power.difference is None:
        found = "would be" if power.assumed else "could have been"
        return f"At this size no difference {found} found with 80% probability."
    return (
        f"A true difference below {power.difference * 100:.1f} points would probably be missed "
        f"({power.wanted:.0%} power, {power.comparisons} comparisons)."
    )


def _power(
    tasks: int, seeds: int, comparisons: int, rate: float, noise: float, assumed: bool
) -> Power:
    """At the level of Holm's hardest step, the one that the largest difference must pass."""
    least = smallest_difference(
        tasks, rate, seeds=seeds, seed_discordance=noise, alpha=ALPHA / comparisons
    )
    return Power(
        tasks=tasks,
        seeds=seeds,
        comparisons=comparisons,
        discordance=rate,
        assumed=assumed,
        difference=least,
    )


def _discordance(first: Grid, second: Grid) -> float:
    """Share of tasks on which one run of each arm disagree, over all pairs of seeds."""
    a, b = first.rates("plus"), second.rates("plus")
    return float(
        np.mean([a[:, [i]] != b[:, [j]] for i in range(a.shape[1]) for j in range(b.shape[1])])
    )


def _seed_discordance(members: Sequence[Grid]) -> float:
    """Share of tasks on which two seeds of one arm disagree; 0 where no arm has two seeds."""
    shares = [
        float((g.rates("plus")[:, i] != g.rates("plus")[:, j]).mean())
        for g in members
        for i in range(len(g.seeds))
        for j in range(i)
    ]
    return float(np.mean(shares)) if shares else 0.0
