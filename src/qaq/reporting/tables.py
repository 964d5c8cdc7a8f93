"""Which tables the report has: one function per table, `Results` in, `Table` (or None) out.

A table without data is None and left out. Static text never says which arm is "better": only a
`finding` may.
"""

from collections.abc import Callable, Sequence

from qaq.reporting.analysis import ALL
from qaq.reporting.schema import ArmResult, Comparison, Estimate, Results, SuiteResult
from qaq.reporting.table import (
    EMPTY,
    Cell,
    Column,
    Table,
    decimal,
    number,
    percent,
    plain_percent,
    signed,
    text,
)
from qaq.reporting.verdict import BITS, DETAIL, PRIMARY, TUNING, p_text

SUITE_TITLES = {"humaneval": "HumanEval", "mbpp": "MBPP", "mini": "mini"}
DEFECTS = {
    "swapped_answer": "swapped answer",
    "echo": "echo",
    "invented_terms": "invented terms",
    "truncated": "truncated",
    "not_code": "not code",
    "clean": "clean",
}
METRICS = {"base": "pass@1 base", "plus": "pass@1 plus", "bits_per_byte": "bits per byte"}


def suite_title(suite: str) -> str:
    """The name people know a suite by."""
    return "all tasks" if suite == ALL else SUITE_TITLES.get(suite, suite)


def suites_of(results: Results) -> list[str]:
    """The suites of the run, without "all"."""
    return sorted({s.suite for arm in results.arms for s in arm.suites} - {ALL})


def of_suite(arm: ArmResult, suite: str) -> SuiteResult | None:
    """The arm's result on one suite."""
    return next((s for s in arm.suites if s.suite == suite), None)


def result_table(results: Results) -> Table | None:
    """The main table."""
    suites = suites_of(results)
    if not suites:
        return None
    seeds = any(len(a.seeds) > 1 for a in results.arms)
    columns = [Column("arm", kind="text"), Column("rows")]
    columns += [Column("seeds")] if seeds else []
    for suite in suites:
        group = f"{suite_title(suite)} pass@1 (%)"
        columns += [Column("base", group), Column("plus", group)]
    columns += [Column("bits per byte"), Column("training s")]
    rows = []
    for arm in results.arms:
        cells = [text(arm.name), number(arm.holdings.rows if arm.holdings else None)]
        cells += [number(len(arm.seeds))] if seeds else []
        for suite in suites:
            found = of_suite(arm, suite)
            cells += [percent(found.base), percent(found.plus)] if found else [EMPTY, EMPTY]
        whole = of_suite(arm, ALL)
        bits = whole.bits_per_byte if whole else None
        cells += [Cell(f"{bits.value:.4f}", value=bits.value) if bits else EMPTY]
        rows.append((*cells, number(arm.cost.training_seconds)))
    tasks = ", ".join(f"{_task_count(results, s)} {suite_title(s)}" for s in suites)
    note = (
        f"Tasks: {tasks}. Behind each share its 95% Wilson interval over tasks, all seeds as one "
        "result. Bits per byte of the reference solutions: fewer means that the model finds them "
        "more likely."
    )
    return Table("results", "Results", note, tuple(columns), tuple(rows))


def _task_count(results: Results, suite: str) -> int:
    return max(f.tasks for a in results.arms if (f := of_suite(a, suite)))


def _tests(
    results: Results, name: str, title: str, families: Sequence[str], note: str
) -> Table | None:
    members = [c for c in results.comparisons if c.family in families]
    if not members:
        return None
    suites = len({c.suite for c in members}) > 1
    metrics = len({c.metric for c in members}) > 1
    columns = [Column("arm", kind="text"), Column("against", kind="text")]
    columns += [Column("measure", kind="text")] if metrics else []
    columns += [Column("tasks of", kind="text")] if suites else []
    columns += [
        Column("difference"),
        Column("ahead / behind"),
        Column("p"),
        Column("p corrected"),
        Column("finding", kind="text"),
    ]
    rows = [_test_row(c, suites, metrics) for c in members]
    return Table(name, title, note, tuple(columns), tuple(rows))


def _test_row(c: Comparison, suites: bool, metrics: bool) -> tuple[Cell, ...]:
    bits = c.metric == "bits_per_byte"
    difference = signed(c.difference, c.low, c.high, 1.0 if bits else 100.0, 4 if bits else 1)
    cells = [text(c.arm), text(c.baseline)]
    cells += [text(METRICS[c.metric])] if metrics else []
    cells += [text(suite_title(c.suite))] if suites else []
    return (
        *cells,
        difference,
        Cell(f"{c.ahead} / {c.behind}", value=f"{c.ahead}/{c.behind}"),
        Cell(p_text(c.p_value), value=c.p_value),
        Cell(p_text(c.p_holm), value=c.p_holm),
        text(c.finding, strong=c.finding != "not told apart"),
    )


def primary_tests(results: Results) -> Table | None:
    """Every arm against full and random, pass@1 with the plus tests."""
    note = (
        "Difference in points with its bootstrap interval over tasks, seeds resampled inside each "
        "arm; ahead and behind count tasks. p: exact paired test (McNemar's with one seed); "
        "corrected by Holm over this table."
    )
    title = "pass@1 (plus tests) against full and random"
    return _tests(results, "tests_pass", title, [PRIMARY], note)


def bits_tests(results: Results) -> Table | None:
    """The same for bits per byte."""
    note = (
        "Mean difference per task; negative means that the arm finds the reference solutions more "
        "likely. Sign-flip test over tasks, corrected by Holm over this table."
    )
    title = "Bits per byte against full and random"
    return _tests(results, "tests_bits", title, [BITS], note)


def detail_tests(results: Results) -> Table | None:
    """Single suites and base tests."""
    note = "Secondary tests, a family of their own. Difference in points."
    return _tests(results, "tests_detail", "Base tests and single suites", [DETAIL], note)


def tuning_tests(results: Results) -> Table | None:
    """Every arm against the untuned model."""
    note = "What fine-tuning itself did; a family of its own, over the first seed of each arm."
    return _tests(results, "tests_untuned", "Against the untuned model", [TUNING], note)


def power_table(results: Results) -> Table | None:
    """What could have been seen."""
    if not results.power:
        return None
    columns = (
        Column("stated", kind="text"),
        Column("tasks"),
        Column("seeds"),
        Column("comparisons"),
        Column("tasks on which two arms disagree (%)"),
        Column("smallest difference found (points)"),
    )
    rows = tuple(
        (
            text("before the run" if p.assumed else "from the arms measured"),
            number(p.tasks),
            number(p.seeds),
            number(p.comparisons),
            plain_percent(p.discordance),
            plain_percent(p.difference) if p.difference is not None else text("none"),
        )
        for p in results.power
    )
    note = (
        "The smallest true difference of pass@1 that the corrected test finds with 80% probability."
    )
    return Table("power", "What this run can show", note, columns, rows)


def reference_table(results: Results) -> Table | None:
    """The paper's value beside ours."""
    cells = results.reference
    if not any(c.ours for c in cells):
        return None
    keys = list(dict.fromkeys((c.suite, c.metric) for c in cells if c.ours))
    columns = [Column("paper's row", kind="text"), Column("our arm", kind="text")]
    for suite, metric in keys:
        group = f"{suite_title(suite)} {metric} (%)"
        columns += [Column("paper", group), Column("ours", group)]
    rows = []
    for row in dict.fromkeys((c.table, c.row) for c in cells if c.arm):
        mine = {(c.suite, c.metric): c for c in cells if (c.table, c.row) == row}
        shown = [text(row[1]), text(next(iter(mine.values())).arm or "")]
        for key in keys:
            cell = mine.get(key)
            shown += [plain_percent(cell.paper), percent(cell.ours)] if cell else [EMPTY, EMPTY]
        rows.append(tuple(shown))
    note = (
        "The paper gives one seed and no interval; each of its values is a whole number of tasks. "
        "The departures listed below hold for every cell."
    )
    return Table("paper", "The paper's values beside ours", note, tuple(columns), tuple(rows))


def _defects(names: set[str]) -> list[str]:
    return [d for d in DEFECTS if d in names] + sorted(names - set(DEFECTS))


def retention_table(results: Results) -> Table | None:
    """Share of each defect kept by each arm."""
    if not results.retentions:
        return None
    kinds = _defects({r.defect for r in results.retentions} - {"clean"})
    by_cell = {(r.arm, r.defect): r for r in results.retentions}
    columns = [Column("arm", kind="text"), Column("clean", "kept (%)")]
    columns += [Column(DEFECTS.get(k, k), "kept (%)") for k in kinds]
    rows = [
        (text(arm), *[percent(by_cell[arm, k].kept, 0) for k in ["clean", *kinds]])
        for arm in dict.fromkeys(r.arm for r in results.retentions)
    ]
    sizes = {r.defect: r.rows for r in results.retentions}
    counts = ", ".join(f"{sizes[k]} {DEFECTS.get(k, k)}" for k in ["clean", *kinds])
    note = f"Rows in the pool: {counts}. A rule blind to a defect keeps the share of clean rows."
    return Table(
        "retention", "Planted noise: what each arm keeps", note, tuple(columns), tuple(rows)
    )


def separation_table(results: Results) -> Table | None:
    """AUROC of RMI and IFD per defect and model."""
    if not results.separations:
        return None
    models = list(dict.fromkeys(s.model for s in results.separations))
    cells = {(s.model, s.score, s.defect): s for s in results.separations}
    columns = [Column("defect", kind="text"), Column("rows")]
    for score in ("rmi", "ifd"):
        columns += [Column("end", score.upper(), "text")]
        columns += [Column(f"AUROC {model}", score.upper()) for model in models]
    rows = []
    for kind in _defects({s.defect for s in results.separations}):
        mine = [s for s in results.separations if s.defect == kind]
        shown = [text(DEFECTS.get(kind, kind)), number(max(s.rows for s in mine))]
        for score in ("rmi", "ifd"):
            shown.append(text(next(s.direction for s in mine if s.score == score)))
            found = [cells.get((model, score, kind)) for model in models]
            shown += [decimal(s.auroc, 2) if s else EMPTY for s in found]
        rows.append(tuple(shown))
    note = (
        "Chance that a damaged row lies nearer the stated end of the score than a clean row "
        "(0.5 = the score is blind to the defect; below 0.5 = it lies at the other end), with its "
        "bootstrap interval. A high IFD is what selection by IFD keeps."
    )
    return Table(
        "separation", "Planted noise: what each score finds", note, tuple(columns), tuple(rows)
    )


def correlation_table(results: Results) -> Table | None:
    """Rank correlations of the scores."""
    if not results.correlations:
        return None
    paper = any(c.paper is not None for c in results.correlations)
    columns = [Column("score", kind="text"), Column("with", kind="text"), Column("Spearman")]
    columns += [Column("paper")] if paper else []
    rows = []
    for c in results.correlations:
        cells = [text(c.first), text(c.second), decimal(_minus(c.rho), 3)]
        if paper:
            cells.append(EMPTY if c.paper is None else Cell(f"{c.paper:.3f}", value=c.paper))
        rows.append(tuple(cells))
    note = f"Over the {results.correlations[0].rho.n:,} scored rows of the pool."
    return Table("correlations", "How the scores relate", note, tuple(columns), tuple(rows))


def _minus(estimate: Estimate) -> Estimate:
    return estimate


def holdings_table(results: Results) -> Table | None:
    """What each subset holds."""
    arms = [(a.name, a.holdings) for a in results.arms if a.holdings]
    if not arms:
        return None
    kinds = _defects({k for _, h in arms for k in h.defects})
    scored = any(h.rmi is not None for _, h in arms)
    columns = [Column("arm", kind="text"), Column("rows"), Column("of the pool (%)")]
    columns += [Column("question", "characters (median)"), Column("answer", "characters (median)")]
    columns += [Column("RMI", "median"), Column("log PPL(Q)", "median")] if scored else []
    columns += [Column(DEFECTS.get(k, k), "planted rows") for k in kinds]
    rows = []
    for name, h in arms:
        cells = [text(name), number(h.rows), plain_percent(h.share)]
        cells += [number(h.question_characters), number(h.answer_characters)]
        cells += [number(h.rmi, 2), number(h.log_ppl_q, 2)] if scored else []
        rows.append((*cells, *[number(h.defects.get(k, 0.0)) for k in kinds]))
    note = "Means over the seeds where chance plays a part. Scores are the strong model's."
    return Table("holdings", "What each subset holds", note, tuple(columns), tuple(rows))


def overlap_table(results: Results) -> Table | None:
    """Shared rows of every two subsets."""
    if not results.overlaps:
        return None
    columns = (
        Column("subset", kind="text"),
        Column("with", kind="text"),
        Column("of the smaller (%)", "shared rows"),
        Column("of the union (%)", "shared rows"),
    )
    rows = tuple(
        (text(o.first), text(o.second), plain_percent(o.of_smaller), plain_percent(o.of_union))
        for o in results.overlaps
    )
    note = "The first seed of each arm; the full pool is left out."
    return Table("overlap", "Rows that two subsets share", note, columns, rows)


def cost_table(results: Results) -> Table | None:
    """Quality against cost; columns that nothing was measured for are left out."""
    arms = [a for a in results.arms if a.cost.training_seconds is not None]
    if not arms:
        return None
    shown: list[tuple[str, Callable[[ArmResult], float | None], int]] = [
        ("training s", lambda a: a.cost.training_seconds, 0),
        ("scoring s", lambda a: a.cost.scoring_seconds, 0),
        ("tokens (millions)", lambda a: _scale(a.cost.tokens, 1e-6), 2),
        ("FLOPs (10¹⁵)", lambda a: _scale(a.cost.flops, 1e-15), 2),
        ("energy (kJ)", lambda a: _scale(a.cost.energy_joules, 1e-3), 1),
        ("peak GiB", lambda a: a.cost.peak_gib, 1),
    ]
    shown = [s for s in shown if any(s[1](a) is not None for a in arms)]
    columns = (Column("arm", kind="text"), *[Column(title) for title, _, _ in shown])
    rows = tuple((text(a.name), *[number(get(a), d) for _, get, d in shown]) for a in arms)
    note = (
        "Training: mean over the seeds, loading included. Scoring: the score tables the arm's rule "
        "reads, made once for all arms that share them."
    )
    return Table("cost", "What each arm took", note, columns, rows)


def _scale(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def contamination_table(results: Results) -> Table | None:
    """What the pairs stage found of the benchmarks in the pool."""
    facts = results.pool.contamination if results.pool else {}
    if not facts:
        return None
    rows = tuple(
        (
            text(k.replace("_", " ")),
            text(v) if isinstance(v, str) else number(v, 0 if v == int(v) else 3),
        )
        for k, v in facts.items()
    )
    columns = (Column("fact", kind="text"), Column("value"))
    note = "Benchmark tasks found again in the pool."
    return Table("contamination", "Contamination", note, columns, rows)


def departures_table(results: Results) -> Table | None:
    """Where this run differs from the paper."""
    if not results.departures:
        return None
    columns = tuple(Column(t, kind="text") for t in ("topic", "paper", "here"))
    rows = tuple((text(d.topic), text(d.paper), text(d.here)) for d in results.departures)
    note = "Differences from the paper, and choices where it says nothing."
    return Table("departures", "Departures and choices", note, columns, rows)


def provenance_table(results: Results) -> Table:
    """Keys of everything the report was made from."""
    columns = (
        Column("role", kind="text"),
        Column("artifact", kind="text"),
        Column("key", kind="text"),
        Column("seconds"),
        Column("peak GiB"),
    )
    rows = tuple(
        (
            text(p.role),
            text(f"{p.kind}/{p.name}"),
            Cell(p.key[:12], value=p.key),
            number(p.seconds),
            number(p.peak_gib, 1),
        )
        for p in results.provenance
    )
    note = "The first twelve digits of each content key; the whole keys are in results.json."
    return Table("provenance", "Artifacts", note, columns, rows)


ALL_TABLES: tuple[Callable[[Results], Table | None], ...] = (
    result_table,
    primary_tests,
    bits_tests,
    detail_tests,
    tuning_tests,
    power_table,
    reference_table,
    retention_table,
    separation_table,
    correlation_table,
    holdings_table,
    overlap_table,
    cost_table,
    contamination_table,
    departures_table,
    provenance_table,
)


def make_tables(results: Results) -> dict[str, Table]:
    """Every table that has data, by name, in the order of the page."""
    made = (make(results) for make in ALL_TABLES)
    return {table.name: table for table in made if table is not None}
