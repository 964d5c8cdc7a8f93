"""Tables about the pool: planted noise, scores, what each subset holds."""

from qaq.page.names import DEFECTS, order_defects
from qaq.page.tables import (
    EMPTY,
    Column,
    Table,
    decimal,
    listing,
    number,
    percent,
    plain_percent,
    text,
    worded,
)
from qaq.reporting.schema import Results, Separation

MANY = 6  # more kinds of defects than this do not fit beside the rest


def retention_table(results: Results) -> Table | None:
    """Share of each defect kept by each arm; the longer list runs down the page."""
    if not results.retentions:
        return None
    kinds = ["clean", *order_defects({r.defect for r in results.retentions} - {"clean"})]
    arms = list(dict.fromkeys(r.arm for r in results.retentions))
    kept = {(r.arm, r.defect): percent(r.kept, 0) for r in results.retentions}
    sizes = {r.defect: r.rows for r in results.retentions}
    if len(kinds) > len(arms):
        columns = [Column("rows", kind="text"), Column("in the pool")]
        columns += [Column(arm, "kept (%)") for arm in arms]
        rows = [
            (text(DEFECTS.get(k, k)), number(sizes[k]), *[kept[arm, k] for arm in arms])
            for k in kinds
        ]
        counts = ""
    else:
        columns = [Column("arm", kind="text")]
        columns += [Column(DEFECTS.get(k, k), "kept (%)") for k in kinds]
        rows = [(text(arm), *[kept[arm, k] for k in kinds]) for arm in arms]
        sized = ", ".join(f"{sizes[k]} {DEFECTS.get(k, k)}" for k in kinds)
        counts = f"Rows in the pool: {sized}. "
    note = f"{counts}A rule that is blind to a defect keeps as much of it as of the clean rows."
    title = "What each arm keeps of the planted noise"
    return Table("retention", title, note, tuple(columns), tuple(rows))


def separation_table(results: Results) -> Table | None:
    """AUROC of RMI and IFD per defect and model."""
    if not results.separations:
        return None
    models = list(dict.fromkeys(s.model for s in results.separations))
    by_cell: dict[tuple[str, str, str], Separation] = {
        (s.model, s.score, s.defect): s for s in results.separations
    }
    columns = [Column("defect", kind="text"), Column("rows")]
    scores = list(dict.fromkeys(s.score for s in results.separations))
    for score in scores:
        columns += [Column("end", score.upper(), "text")]
        columns += [Column(f"AUROC {model}", score.upper()) for model in models]
    rows = []
    for kind in order_defects({s.defect for s in results.separations}):
        mine = [s for s in results.separations if s.defect == kind]
        shown = [text(DEFECTS.get(kind, kind)), number(max(s.rows for s in mine))]
        for score in scores:
            end = next((s.direction for s in mine if s.score == score), None)
            shown.append(text(end) if end else EMPTY)
            found = [by_cell.get((model, score, kind)) for model in models]
            shown += [decimal(s.auroc, 2) if s else EMPTY for s in found]
        rows.append(tuple(shown))
    note = (
        "Chance that a damaged row lies nearer the stated end of the score than a clean row, or "
        "than the harmless change that the pool has beside that damage (0.5 = the score is blind "
        "to the defect; below 0.5 = it lies at the other end), with its "
        "interval. A high IFD is what selection by IFD keeps."
    )
    return Table(
        "separation",
        "What each score finds of the planted noise",
        note,
        tuple(columns),
        tuple(rows),
    )


def model_free_table(results: Results) -> Table | None:
    """AUROC per defect of what needs no model."""
    if not results.model_free:
        return None
    cells = {(m.control, m.defect): decimal(m.auroc, 2) for m in results.model_free}
    names = list(dict.fromkeys(name for name, _ in cells))
    rows = tuple(
        (text(DEFECTS.get(kind, kind)), *(cells.get((name, kind), EMPTY) for name in names))
        for kind in order_defects({kind for _, kind in cells})
    )
    note = (
        "Chance that a damaged row has the higher value (0.5 = blind): the question's words in the "
        "answer, rare ones counting more; what zlib saves of the question behind the answer; "
        "whether the answer holds Python that parses; whether a name that was asked for is "
        "defined; lengths in characters. What these find, a score need not have understood."
    )
    columns = (Column("defect", kind="text"), *(Column(name) for name in names))
    title = "What is found of it without a model"
    return Table("separation_free", title, note, columns, rows)


def metrics_table(results: Results) -> Table | None:
    """How every metric lies over the pool."""
    if not results.metrics:
        return None
    note = (
        "Every metric that has a title, those of files of one's own included, whose spans some "
        "rule reads; metrics=all scores the others too."
    )
    return listing(
        "metrics",
        "How the metrics are distributed",
        note,
        results.metrics,
        worded("metric", lambda m: m.title),
        worded("model", lambda m: m.model),
        (Column("rows with a value"), lambda m: number(m.rows)),
        (Column("5%", "over the pool"), lambda m: number(m.low, 3)),
        (Column("median", "over the pool"), lambda m: number(m.median, 3)),
        (Column("95%", "over the pool"), lambda m: number(m.high, 3)),
    )


def correlation_table(results: Results) -> Table | None:
    """Rank correlations of the scores."""
    if not results.correlations:
        return None
    fields = [worded("score", lambda c: c.first), worded("with", lambda c: c.second)]
    fields.append((Column("rows"), lambda c: number(c.rho.n)))
    fields.append((Column("Spearman"), lambda c: decimal(c.rho, 3)))
    if any(c.paper is not None for c in results.correlations):
        fields.append((Column("paper"), lambda c: number(c.paper, 3)))
    note = "Over the clean rows of the pool that have both."
    return listing("correlations", "How the scores relate", note, results.correlations, *fields)


def holdings_table(results: Results) -> Table | None:
    """What each subset holds."""
    arms = [(a.name, a.holdings) for a in results.arms if a.holdings]
    if not arms:
        return None
    kinds = order_defects({k for _, h in arms for k in h.defects})
    scored = any(h.rmi is not None for _, h in arms)
    columns = [Column("arm", kind="text"), Column("rows"), Column("of the pool (%)")]
    columns += [Column("question", "characters (median)"), Column("answer", "characters (median)")]
    columns += [Column("RMI", "median"), Column("log PPL(Q)", "median")] if scored else []
    if len(kinds) > MANY:  # the table of what is kept shows them one by one
        columns += [Column("planted rows")]
    else:
        columns += [Column(DEFECTS.get(k, k), "planted rows") for k in kinds]
    sources = sorted({s for _, h in arms for s in h.sources})
    if not 1 < len(sources) <= MANY:
        sources = []
    columns += [Column(source, "rows from") for source in sources]
    rows = []
    for name, h in arms:
        cells = [text(name), number(h.rows), plain_percent(h.share)]
        cells += [number(h.question_characters), number(h.answer_characters)]
        cells += [number(h.rmi, 2), number(h.log_ppl_q, 2)] if scored else []
        planted = [h.defects.get(k, 0.0) for k in kinds]
        shown = [sum(planted)] if len(kinds) > MANY else planted
        shown += [h.sources.get(source, 0.0) for source in sources]
        rows.append((*cells, *[number(v) for v in shown]))
    note = "Means over the seeds where chance plays a part. Scores are the strong model's."
    return Table("holdings", "What each subset holds", note, tuple(columns), tuple(rows))


def overlap_table(results: Results) -> Table | None:
    """Shared rows of every two subsets."""
    if not results.overlaps:
        return None
    return listing(
        "overlap",
        "Rows that two subsets share",
        "The first seed of each arm; the full pool is left out.",
        results.overlaps,
        worded("subset", lambda o: o.first),
        worded("with", lambda o: o.second),
        (Column("of the smaller (%)", "shared rows"), lambda o: plain_percent(o.of_smaller)),
        (Column("of the union (%)", "shared rows"), lambda o: plain_percent(o.of_union)),
    )
