"""What stands beside a score's AUROC and a rule's shares: controls without a model, and tests.

A score that finds a damage no better than a count of words has found nothing by itself; and a rule
that keeps fewer damaged rows than clean ones may do so for one kind and not for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np

from qaq.data.config import CONTROLS
from qaq.evidence.claims import ALPHA
from qaq.evidence.estimate import Estimate, FloatArray, share_difference, shares_differ
from qaq.evidence.runs import holm
from qaq.page.names import DEFECTS, order_defects
from qaq.page.tables import (
    EMPTY,
    Cell,
    Column,
    Field,
    Table,
    decimal,
    listing,
    number,
    signed,
    text,
    worded,
)
from qaq.studies.data import HARMLESS, StudyData
from qaq.studies.results import listed
from qaq.studies.retention import CLEAN, Kept

AGAINST = (
    "Where the pool has a harmless change that looks like the damage, the damage is compared with "
    "that; truncated answers are compared with clean ones of their length."
)


def area_table(
    data: StudyData,
    heading: tuple[str, str, str],
    scores: Mapping[str, FloatArray],
    before: Sequence[Field] = (),
) -> Table:
    """AUROC of every score against every kind of damage; `before` are columns that come first."""

    def column(name: str, score: FloatArray) -> Field:
        return Column(name), lambda kind: decimal(data.area(score, kind), 2)

    kind = worded("defect", lambda kind: DEFECTS.get(kind, kind))
    areas = starmap(column, scores.items())
    return listing(*heading, order_defects(set(data.kinds)), kind, *before, *areas)


def damaged_rows(data: StudyData) -> Field:
    """How many rows have a kind of damage."""
    return Column("rows"), lambda kind: number(int((data.defect == kind).sum()))


def model_free_table(data: StudyData) -> Table:
    """AUROC of every control without a model against every kind of damage."""
    note = (
        "AUROC as for the scores, of what is seen without any model: the question's words in the "
        "answer, rare ones counting more; what zlib saves of the question behind the answer; does "
        "the answer hold Python that parses, does it define a name that was asked for; lengths in "
        f"characters. {AGAINST}"
    )
    heading = "separation_free", "What is found without a model", note
    against = worded("against", lambda kind: _against(data, kind))
    return area_table(data, heading, data.free, (damaged_rows(data), against))


def _against(data: StudyData, kind: str) -> str:
    control = CONTROLS.get(kind)
    if control in data.kinds:
        return DEFECTS.get(control, control)
    rows = data.against(kind)
    return "clean" if np.array_equal(rows, data.clean) else f"{int(rows.sum())} clean of its length"


def best_model_free(data: StudyData, kind: str) -> list[tuple[str, float]]:
    """The control without a model that finds a kind best, and its AUROC, at whichever end."""
    found = {name: data.area(score, kind) for name, score in data.free.items()}
    values = {n: max(e.value, 1 - e.value) for n, e in found.items() if e is not None}
    if not values:
        return []
    best = max(values, key=lambda name: values[name])
    return [(best, values[best])]


@dataclass(frozen=True)
class KeptDifference:
    """Share kept of a kind less that of what it is compared with; `p` is Fisher's after Holm."""

    kind: str
    apart: Estimate
    p: float

    @property
    def found(self) -> bool:
        """Whether the shares differ at 5% over all kinds together."""
        return self.p < ALPHA


Differences = Mapping[str, list[KeptDifference]]


def kept_differences(data: StudyData, kept: list[Kept], planted: float) -> Differences:
    """For each rule at the experiment's ratio, every kind of damage against its own control.

    Holm's correction is over the kinds of a rule.
    """
    at = {
        (k.arm, k.group): k.share
        for k in kept
        if k.rate == planted and k.ratio in (None, data.spec.ratio)
    }
    found: dict[str, list[KeptDifference]] = {}
    for arm in data.spec.arms:
        pairs = {
            kind: (at[arm, kind], at[arm, _group(data, kind)])
            for kind in order_defects(set(data.kinds) - set(HARMLESS))
            if (arm, kind) in at and (arm, _group(data, kind)) in at
        }
        corrected = holm([shares_differ(*pair) for pair in pairs.values()]) if pairs else ()
        found[arm] = [
            KeptDifference(kind, share_difference(*pair), float(p))
            for (kind, pair), p in zip(pairs.items(), corrected, strict=True)
        ]
    return {arm: lines for arm, lines in found.items() if lines}


def _group(data: StudyData, kind: str) -> str:
    control = CONTROLS.get(kind)
    return control if control in data.kinds else CLEAN


def by_kind(differences: list[KeptDifference]) -> tuple[str, str, str]:
    """Of one rule: what was found kind by kind, nothing, and the verdict."""
    found = [(d.apart.value, DEFECTS.get(d.kind, d.kind)) for d in differences if d.found]
    less, more = [n for v, n in found if v < 0], [n for v, n in found if v > 0]
    measured = f"it keeps less of {listed(less)}, more of {listed(more)}"
    if less and more:
        return measured, "", "differs by kind"
    verdict = "holds" if less else "does not hold" if more else "not shown"
    return measured, "", verdict


def difference_table(data: StudyData, differences: Differences) -> Table:
    """Every rule against every kind: how much more or less it keeps."""
    kinds = order_defects(set(data.kinds) - set(HARMLESS))
    cells: dict[tuple[str, str], Cell] = {}
    for arm, lines in differences.items():
        for d in lines:
            cell = signed(d.apart.value, d.apart.low, d.apart.high, 100, 0)
            cells[arm, d.kind] = replace(cell, text=f"{cell.text}*") if d.found else cell
    columns = [Column("rule", kind="text")]
    columns += [Column(DEFECTS.get(k, k), "kept, against clean or control (points)") for k in kinds]
    rows = tuple(
        (text(arm), *(cells.get((arm, kind), EMPTY) for kind in kinds)) for arm in differences
    )
    note = (
        f"At ratio {data.spec.ratio:g}, or the rule's own size; Newcombe's 95% interval. Star: "
        "found by Fisher's exact test with Holm's correction over the kinds of the rule. Truncated "
        "answers are compared with all clean rows here."
    )
    return Table("kept_differences", "Which kinds each rule leaves out", note, tuple(columns), rows)
