"""Tables about the arms: results, tests, the paper's values, cost, departures, provenance."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qaq.evaluation.config import SUITES, Suite
from qaq.page.provenance import artifact_table
from qaq.page.tables import (
    EMPTY,
    Cell,
    Column,
    Table,
    number,
    percent,
    plain_percent,
    signed,
    text,
)
from qaq.reporting.analysis import ALL
from qaq.reporting.schema import ArmResult, Comparison, Metric, Results, SuiteResult
from qaq.reporting.verdict import BITS, DETAIL, PRIMARY, TUNING, p_text

METRICS: dict[Metric, str] = {
    "base": "pass@1 base",
    "plus": "pass@1 plus",
    "bits_per_byte": "bits per byte",
}


TITLES: dict[str, str] = {}  # of the user's own suites, as the configuration of a run has them


def know_titles(settings: Mapping[str, Any]) -> None:
    """Take over the titles of the user's own suites from a resolved configuration."""
    own = settings.get("benchmark", {}).get("suites", ())
    if isinstance(own, dict):
        TITLES.update({name: suite["title"] for name, suite in own.items() if suite.get("title")})


def suite_title(suite: str) -> str:
    """The name people know a suite by."""
    if suite in TITLES:
        return TITLES[suite]
    return "all tasks" if suite == ALL else (SUITES.get(suite, Suite()).title or suite)


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
    counted = any(s.answers for arm in results.arms for s in arm.suites)
    columns += [Column("at limit / no code / cut", kind="text")] if counted else []
    columns += [Column("bits per byte"), Column("training s")]
    rows = []
    for arm in results.arms:
        cells = [text(arm.name), number(arm.holdings.rows if arm.holdings else None)]
        cells += [number(len(arm.seeds))] if seeds else []
        for suite in suites:
            found = of_suite(arm, suite)
            cells += [percent(found.base), percent(found.plus)] if found else [EMPTY, EMPTY]
        whole = of_suite(arm, ALL)
        cells += [_answers(whole)] if counted else []
        bits = whole.bits_per_byte if whole else None
        cells += [Cell(f"{bits.value:.4f}", value=bits.value) if bits else EMPTY]
        rows.append((*cells, number(arm.cost.training_seconds)))
    tasks = ", ".join(f"{_task_count(results, s)} {suite_title(s)}" for s in suites)
    note = (
        f"Tasks: {tasks}. Behind each share its 95% Wilson interval over tasks, all seeds as one "
        "result. Bits per byte of the reference solutions: fewer means that the model finds them "
        "more likely."
    )
    if counted:
        note += (
            " Answers that hit the length limit, whose program does not define the asked function, "
            "and that were ended by their text and not by the model; over all seeds."
        )
    return Table("results", "pass@1 and bits per byte", note, tuple(columns), tuple(rows))


def _answers(whole: SuiteResult | None) -> Cell:
    """How the answers ended."""
    if whole is None or (found := whole.answers) is None:
        return EMPTY
    counts = (found.at_limit, found.no_code, found.cut)
    shown = " / ".join("?" if n is None else str(n) for n in counts)
    return Cell(shown, value=shown)


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
    none = any(p.difference is None for p in results.power)
    note = (
        "The smallest true difference of pass@1 that the corrected test finds with 80% probability"
        + ("; none: not even the largest." if none else ".")
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


def cost_table(results: Results) -> Table | None:
    """Quality against cost; columns that nothing was measured for are left out."""
    arms = [a for a in results.arms if a.cost.training_seconds is not None]
    if not arms:
        return None
    shown: list[tuple[str, Callable[[ArmResult], float | None], int]] = [
        ("training s", lambda a: a.cost.training_seconds, 0),
        ("scoring s", lambda a: a.cost.scoring_seconds, 0),
        ("tokens", lambda a: a.cost.tokens, 0),
        ("TFLOPs", lambda a: _scale(a.cost.flops, 1e-12), 1),
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
    return artifact_table(results.provenance)
