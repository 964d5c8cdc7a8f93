"""Tables about the arms: results, tests, the paper's values, cost, departures, provenance."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from qaq.evaluation.config import SUITES, Suite
from qaq.evidence.claims import FOUND, RULE
from qaq.page.tables import (
    EMPTY,
    Cell,
    Column,
    Table,
    listing,
    number,
    percent,
    plain_percent,
    signed,
    text,
    worded,
)
from qaq.reporting.analysis import ALL
from qaq.reporting.family import PRIMARY
from qaq.reporting.schema import ArmResult, Comparison, Metric, Results, SuiteResult
from qaq.reporting.verdict import BITS, DETAIL, TUNING, p_text, points

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


def spent(arm: ArmResult) -> float | None:
    """Seconds of scoring, which counts in full for each arm that read the scores, and training."""
    training = arm.cost.training_seconds
    return None if training is None else training + (arm.cost.scoring_seconds or 0.0)


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
    sizes = {s: max(f.tasks for a in results.arms if (f := of_suite(a, s))) for s in suites}
    tasks = ", ".join(f"{size} {suite_title(suite)}" for suite, size in sizes.items())
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


def _tests(results: Results, name: str, title: str, wanted: str, note: str) -> Table | None:
    members = [c for c in results.comparisons if c.family == wanted]
    if not members:
        return None
    suites = len({c.suite for c in members}) > 1
    metrics = len({c.metric for c in members}) > 1
    claims = any(c.p_holm is not None for c in members)
    columns = [Column("arm", kind="text"), Column("against", kind="text"), Column("runs")]
    columns += [Column("measure", kind="text")] if metrics else []
    columns += [Column("tasks of", kind="text")] if suites else []
    columns += [Column("difference"), Column("ahead / behind")]
    if claims:
        columns += [Column("p"), Column("p corrected")]
        columns += [Column("finding", kind="text"), Column("because", kind="text")]
    rows = []
    for c in members:
        cells = [text(c.arm), text(c.baseline), text(" / ".join(map(str, c.seeds)))]
        cells += [text(METRICS[c.metric])] if metrics else []
        cells += [text(suite_title(c.suite))] if suites else []
        cells += [difference_cell(c), text(f"{c.ahead} / {c.behind}")]
        rows.append((*cells, *(finding_cells(c) if claims else ())))
    return Table(name, title, note, tuple(columns), tuple(rows))


def difference_cell(c: Comparison) -> Cell:
    """A difference with its interval: points of pass@1, or bits per byte."""
    scale, digits = (1.0, 4) if c.metric == "bits_per_byte" else (100.0, 1)
    if c.low is None or c.high is None:
        return Cell("0", value=c.difference)
    return signed(c.difference, c.low, c.high, scale, digits)


def finding_cells(c: Comparison) -> tuple[Cell, ...]:
    """p values, the finding and why it is none or one; empty cells for what is descriptive."""
    if c.p_holm is None:
        return EMPTY, EMPTY, text(c.finding), EMPTY
    finding = text(c.finding, strong=c.finding in FOUND)
    return p_cell(c.p_value), p_cell(c.p_holm), finding, text(c.reason)


def primary_tests(results: Results) -> Table | None:
    """The declared comparisons."""
    note = (
        "Difference in points; its intervals hold for all comparisons at once (Bonferroni); ahead "
        f"and behind count tasks. {RULE}"
    )
    title = "pass@1, the declared comparisons"
    return _tests(results, "tests_pass", title, PRIMARY, note)


def as_good_table(results: Results) -> Table | None:
    """Which arms lose less than the margin against all rows."""
    loss = results.loss
    if loss is None:
        return None
    gain = "was not measured" if loss.gain is None else f"is {points(loss.gain)} points"
    low = "" if loss.gain_low is None else f" (at least {points(loss.gain_low)} points)"
    if loss.sensitive and loss.margin is not None:
        how = "declared before the run" if loss.declared else "half of the lower bound of that gain"
        margin = f"The margin is {loss.margin * 100:.1f} points, {how}."
    else:
        margin = "No assay sensitivity: a run in which that gain is not shown cannot show a loss."
    note = (
        f"What training on all rows gains over the untuned model {gain}{low}. {margin} One-sided "
        "tests at 2.5%, corrected by Holm over the arms."
    )
    return listing(
        "as_good",
        "As good as all rows, up to a margin",
        note,
        loss.arms,
        worded("arm", lambda a: a.arm),
        worded("against", lambda a: a.baseline),
        (Column("difference (points)"), lambda a: signed_points(a.difference)),
        (Column("at least (points)"), lambda a: signed_points(a.low)),
        (Column("p corrected"), lambda a: p_cell(a.p_holm)),
        (Column("shown", kind="text"), lambda a: text(a.shown, "inferior" in a.shown)),
    )


def signed_points(share: float | None) -> Cell:
    """A difference of shares in points, with its sign and no interval."""
    return EMPTY if share is None else Cell(points(share), value=share)


def p_cell(p: float | None) -> Cell:
    """A p value."""
    return EMPTY if p is None else Cell(p_text(p), value=p)


def bits_tests(results: Results) -> Table | None:
    """The same for bits per byte."""
    note = (
        "Descriptive: it decides nothing, since it has moved against pass@1. Mean difference per "
        "task with its own 95% interval; negative: the reference solutions are likelier."
    )
    return _tests(results, "tests_bits", "Bits per byte, the same comparisons", BITS, note)


def detail_tests(results: Results) -> Table | None:
    """Single suites and the other tests."""
    note = "Descriptive, each with its own 95% interval. Difference in points."
    return _tests(results, "tests_detail", "Other tests and single suites", DETAIL, note)


def tuning_tests(results: Results) -> Table | None:
    """Every arm beside the untuned model."""
    note = "What fine-tuning itself did. Descriptive, each with its own 95% interval."
    return _tests(results, "tests_untuned", "Beside the untuned model", TUNING, note)


def power_table(results: Results) -> Table | None:
    """What could have been seen."""
    if not results.power:
        return None
    note = (
        "The smallest true difference of pass@1 that the corrected test finds with 80% "
        "probability, and the smallest margin up to which an arm that is truly as good is shown to "
        "be."
    )
    found = Column("smallest difference found (points)")
    disagree = Column("tasks on which equal arms disagree (%)")
    return listing(
        "power",
        "What this run can show",
        note,
        results.power,
        worded("stated", lambda p: "before the run" if p.assumed else "from the arms measured"),
        (Column("tasks"), lambda p: number(p.tasks)),
        (Column("runs"), lambda p: number(p.seeds)),
        (Column("comparisons"), lambda p: number(p.comparisons)),
        (disagree, lambda p: plain_percent(p.discordance)),
        (found, lambda p: text("none") if p.difference is None else plain_percent(p.difference)),
        (Column("smallest margin shown (points)"), lambda p: plain_percent(p.margin)),
    )


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
        "The paper gives one seed and no interval; each of its values is a whole number of tasks."
    )
    if results.departures:
        note += " The departures listed below hold for every cell."
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
    note = "Differences from the paper, and choices where it says nothing."
    fields = [worded(name, attrgetter(name)) for name in ("topic", "paper", "here")]
    return listing("departures", "Departures and choices", note, results.departures, *fields)
