"""Tables about contamination: what touches the benchmarks, and the scores without that."""

from qaq.page.tables import Column, Table, listing, number, percent, plain_percent, text, worded
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title

KINDS = {
    "exact": "the same text",
    "prompt_run": "10 words of the prompt",
    "solution_run": "10 words of the solution",
    "entry_point": "the function's name",
}


def contamination_table(results: Results) -> Table | None:
    """Rows of the pool and of each subset that touch each benchmark."""
    if not results.contamination:
        return None
    columns = [Column("rows of", kind="text"), Column("benchmark", kind="text")]
    columns += [Column(title, "rows that share") for title in KINDS.values()]
    columns += [Column("rows", "touched"), Column("% of the rows", "touched")]
    columns += [Column("problems", "touched")]
    rows = tuple(
        (
            text(c.subset),
            text(suite_title(c.benchmark)),
            *[number(c.rows[kind], 0 if c.rows[kind].is_integer() else 1) for kind in KINDS],
            number(c.touched, 0 if c.touched.is_integer() else 1),
            plain_percent(c.share),
            number(c.tasks, 0 if c.tasks.is_integer() else 1),
        )
        for c in results.contamination
    )
    note = (
        "A row touches a problem by the same text or by ten words in a row of its prompt or "
        "canonical solution; a function's name alone is weak evidence and is only counted. Means "
        "over the seeds where chance plays a part."
    )
    return Table("contamination", "Benchmark problems in the pool", note, tuple(columns), rows)


def untouched_table(results: Results) -> Table | None:
    """pass@1 with and without the problems that the pool touches."""
    if not results.untouched:
        return None
    whole = {(a.name, s.suite): s for a in results.arms for s in a.suites}
    return listing(
        "untouched",
        "Scores without the touched problems",
        "Over all problems, and over those that no row of the pool touches.",
        results.untouched,
        worded("arm", lambda u: u.arm),
        worded("benchmark", lambda u: suite_title(u.suite)),
        (Column("problems left out"), lambda u: number(u.left_out)),
        (Column("all", "base pass@1 (%)"), lambda u: percent(whole[u.arm, u.suite].base)),
        (Column("untouched", "base pass@1 (%)"), lambda u: percent(u.base)),
        (Column("all", "plus pass@1 (%)"), lambda u: percent(whole[u.arm, u.suite].plus)),
        (Column("untouched", "plus pass@1 (%)"), lambda u: percent(u.plus)),
    )
