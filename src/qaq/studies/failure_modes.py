"""What the paper leaves out: what each metric misses, and on what the order of the rows depends.

Five questions, a table each: which damage a metric sees; where the strong/weak disagreement does
not even agree with itself; what moves when the layout, the number of strata, the threshold or the
pair of models is another. The measurements are in `qaq.studies.effects`.
"""

from dataclasses import replace

import numpy as np

from qaq.evidence.estimate import Estimate
from qaq.page.names import DEFECTS, order_defects
from qaq.page.page import Section
from qaq.page.tables import Column, Table, decimal, listing, number, percent, text, worded
from qaq.studies import figures
from qaq.studies.beside import AGAINST, damaged_rows
from qaq.studies.data import BINS, StudyData
from qaq.studies.effects import (
    ALL,
    BETWEEN,
    FINDS,
    SEEN,
    Areas,
    Layout,
    Models,
    Reliability,
    Strata,
    Threshold,
    areas,
    layout_effects,
    pair_effects,
    reliability,
    sees,
    strata_effects,
    threshold_effects,
)
from qaq.studies.results import PROVENANCE, Findings, listed, said, said_percent

AUROC = "AUROC of stratified RMI"
READ = ("stratified RMI, strong", "IFD, strong", "Diff")  # scores that get a sentence


def study(data: StudyData) -> Findings:
    """Tables, figures and a sentence on each question."""
    seen = areas(data)
    noise = list(reliability(data))
    layouts = list(layout_effects(data))
    strata, thresholds = list(strata_effects(data)), list(threshold_effects(data))
    models = list(pair_effects(data))
    kinds = order_defects(set(data.kinds))
    columns = list(dict.fromkeys(name for name, _ in seen))
    values = np.array([[_value(seen.get((c, k))) for c in columns] for k in kinds])
    drawn = {
        "seen": figures.heat(
            [DEFECTS.get(k, k) for k in kinds],
            columns,
            values,
            "AUROC of each score against each kind of damage. Blue: the damage lies at the high "
            "end; red: at the low end; pale: the score is blind to it.",
        )
    }
    if noise:
        drawn["reliability"] = figures.agreement(*_series(noise))
    tables = [_seen_table(data, seen, columns, kinds)]
    tables += [_reliability_table(noise), _layout_table(layouts)] if noise else []
    tables += [_strata_table(strata), _threshold_table(data, thresholds), _pair_table(models)]
    notes = _said(data, seen, noise, layouts, strata, thresholds, models)
    return Findings(
        sentences=(
            *notes["seen"],
            *(one[0] for name, one in notes.items() if name != "seen" and one),
        ),
        sections=(
            Section("seen", "What each score sees, and what it misses", ("figure:seen", "seen")),
            Section(
                "signal",
                "Where disagreement is no signal",
                ("figure:reliability", "reliability"),
            ),
            Section(
                "others",
                "Other layouts, strata, thresholds, models",
                ("layouts", "strata", "thresholds", "pairs"),
            ),
            PROVENANCE,
        ),
        tables=tuple(
            replace(table, note=" ".join([table.note, *notes[table.name]]))
            if table.name != "seen"
            else table
            for table in tables
        ),
        figures=drawn,
        facts=(
            ("rows", f"{len(data.defect):,}"),
            ("kinds of damage", str(len(kinds))),
            ("models", str(len(data.scorers))),
            ("layouts", str(len(data.framings))),
        ),
    )


def _seen_table(data: StudyData, seen: Areas, columns: list[str], kinds: list[str]) -> Table:
    areas = [(Column(c), lambda kind, c=c: decimal(seen.get((c, kind)), 2)) for c in columns]
    kind = worded("defect", lambda kind: DEFECTS.get(kind, kind))
    note = (
        "AUROC against clean rows with its 95% interval (0.5 = blind; near 1 = at the high "
        f"end, near 0 = at the low end). {AGAINST} The last columns need no model. Of so many "
        "intervals one in twenty excludes 0.5 by chance: a hint is no more than that."
    )
    return listing("seen", "What each score sees", note, kinds, kind, damaged_rows(data), *areas)


def _reliability_table(noise: list[Reliability]) -> Table:
    names = list(noise[0][3])
    columns = [Column("rows", kind="text"), Column("clean"), Column("layout", kind="text")]
    columns += [Column(n, "agreement of the layouts (Spearman)") for n in names[:-2]]
    columns += [Column(BETWEEN, "Spearman"), Column(FINDS, "AUROC")]
    rows = tuple(
        (text(a), number(n), text(framing), *(decimal(found[name], 2) for name in names))
        for a, n, framing, found in noise
    )
    note = (
        "Clean rows scored in the experiment's layout and in the one named: a signal of the row "
        "itself must survive the change. Then the agreement of the two models, and whether Diff "
        "tells damaged rows of the slice from its clean ones (0.5 = not at all)."
    )
    return Table("reliability", "Does a score agree with itself?", note, tuple(columns), rows)


def _layout_table(layouts: list[Layout]) -> Table:
    shared = "rows shared with the own layout"
    return listing(
        "layouts",
        "What the layout changes",
        "Over all rows.",
        layouts,
        worded("layout", lambda one: one[0]),
        worded("model", lambda one: one[1]),
        (Column("Spearman of the ranks"), lambda one: decimal(one[2]["order"], 2)),
        (Column("the band (%)", shared), lambda one: percent(one[2].get("band"), 0)),
        (Column("Diff-High (%)", shared), lambda one: percent(one[2].get("Diff-High"), 0)),
        (Column("swapped answer", AUROC), lambda one: decimal(one[2]["swapped_answer"], 2)),
        (Column("echo", AUROC), lambda one: decimal(one[2]["echo"], 2)),
    )


def _strata_table(strata: list[Strata]) -> Table:
    shared = f"rows shared with K = {BINS}"
    return listing(
        "strata",
        "What the number of strata changes",
        "K equal-count bins of log PPL(Q); one bin is the global rank of the authors' README.",
        strata,
        (Column("strata"), lambda one: number(one[0])),
        (Column("the band (%)", shared), lambda one: percent(one[1]["band"], 0)),
        (Column("Diff-High (%)", shared), lambda one: percent(one[1]["Diff-High"], 0)),
        (Column("swapped answer", AUROC), lambda one: decimal(one[1]["swapped_answer"], 2)),
        (Column("echo", AUROC), lambda one: decimal(one[1]["echo"], 2)),
    )


def _threshold_table(data: StudyData, thresholds: list[Threshold]) -> Table:
    note = (
        f"The paper keeps Diff > 0.1, about 25% of its pool. {data.damaged.mean():.0%} of this "
        f"pool is damaged; the top share is {data.spec.ratio:.0%}."
    )
    return listing(
        "thresholds",
        "What the threshold changes",
        note,
        thresholds,
        (Column("Diff above"), lambda one: number(one[0], 2)),
        (Column("rows kept (%)"), lambda one: percent(one[1])),
        (Column("damaged among them (%)"), lambda one: percent(one[2])),
        (Column("also in the top share (%)"), lambda one: percent(one[3])),
    )


def _pair_table(models: list[Models]) -> Table:
    same = Column("Diff-High shared with the main pair (%)")
    return listing(
        "pairs",
        "What the pair of models changes",
        "The first model stands for the strong one. Over all rows.",
        models,
        worded("strong and weak", lambda one: one[0]),
        (Column("Spearman of the ranks"), lambda one: decimal(one[1]["ranks"], 2)),
        (Column("Diff > 0.1 keeps (%)"), lambda one: percent(one[1]["kept"])),
        (Column("AUROC of Diff, all damage"), lambda one: decimal(one[1]["damaged"], 2)),
        (same, lambda one: percent(one[1]["same"], 0)),
    )


Said = dict[str, list[str]]


def _said(
    data: StudyData,
    seen: Areas,
    noise: list[Reliability],
    layouts: list[Layout],
    strata: list[Strata],
    thresholds: list[Threshold],
    models: list[Models],
) -> Said:
    """Plain sentences by the name of the table that they read."""
    own = data.spec.framing
    notes: Said = {"seen": [_seen_sentence(seen, title, data) for title in READ]}
    notes["reliability"] = [
        f"Between the layouts {own} and {framing}, Diff of {name} ({n} clean) agrees with itself "
        f"at {said(found['Diff'])}, RMI by the strong model at {said(found['RMI, strong'])}."
        for name, n, framing, found in noise
        if found["Diff"] is not None and (name == ALL or found["Diff"].low <= 0)
    ]
    notes["layouts"] = [
        f"With the layout {framing}, {said_percent(found['band'])} of the band's and "
        f"{said_percent(found['Diff-High'])} of Diff-High's rows stay."
        for framing, scorer, found in layouts
        if scorer == "strong" and framing != own
    ]
    notes["strata"] = [
        f"Without strata, {said_percent(found['band'])} of the band's and "
        f"{said_percent(found['Diff-High'])} of Diff-High's rows stay."
        for bins, found in strata
        if bins == 1
    ]
    notes["thresholds"] = [
        f"Diff > 0.1 keeps {said_percent(kept)} of this pool (the paper: about 25%)."
        for threshold, kept, *_ in thresholds
        if threshold == 0.1
    ]
    notes["pairs"] = [
        f"{name} rank alike at {said(found['ranks'])}; Diff between them finds damage with AUROC "
        f"{said(found['damaged'])}."
        for name, found in models
    ]
    return notes


def _seen_sentence(seen: Areas, title: str, data: StudyData) -> str:
    by: dict[str, list[str]] = {"sees": [], "hints": [], "misses": []}
    for kind in order_defects(set(data.kinds)):
        by[sees(seen.get((title, kind)))].append(DEFECTS.get(kind, kind))
    return (
        f"{title[0].upper()}{title[1:]} sees {listed(by['sees'])} (AUROC {SEEN} or more at either "
        f"end), has a hint of {listed(by['hints'])}, and misses {listed(by['misses'])}."
    )


def _series(
    noise: list[Reliability],
) -> tuple[list[str], dict[str, list[tuple[float, float, float]]]]:
    labels = [f"{name}, {framing} ({n})" for name, n, framing, _ in noise]
    names = [n for n in noise[0][3] if n not in (BETWEEN, FINDS)]
    return labels, {
        name: [
            (e.value, e.low, e.high) if (e := found[name]) else (np.nan, np.nan, np.nan)
            for *_, found in noise
        ]
        for name in names
    }


def _value(estimate: Estimate | None) -> float:
    return np.nan if estimate is None else estimate.value
