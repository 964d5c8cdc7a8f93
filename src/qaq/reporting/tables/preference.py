"""The table of what each arm prefers: the right solution, or a corrupted one."""

from qaq.evaluation.preference import CORRUPTIONS
from qaq.page.tables import EMPTY, Column, Table, number, percent, text
from qaq.reporting.schema import Results
from qaq.reporting.tables.arms import suite_title


def preference_table(results: Results) -> Table | None:
    """Shares of tasks, a line for each suite and arm."""
    if not results.preferences:
        return None
    kinds = [k for k in CORRUPTIONS if any(p.corruption == k for p in results.preferences)]
    columns = [Column("tasks of", kind="text"), Column("arm", kind="text"), Column("tasks")]
    columns += [Column(CORRUPTIONS[k], "right one likelier (%)") for k in kinds]
    found = {(p.suite, p.arm, p.corruption): p.share for p in results.preferences}
    lines = dict.fromkeys((suite, arm) for suite, arm, _ in found)
    rows = []
    for suite, arm in sorted(lines, key=lambda line: line[0]):
        shares = [found.get((suite, arm, kind)) for kind in kinds]
        tasks = max(one.n for one in shares if one)
        cells = [percent(one) if one else EMPTY for one in shares]
        rows.append((text(suite_title(suite)), text(arm), number(tasks), *cells))
    note = (
        "Descriptive: it decides nothing, since it is not shown to agree with pass@1. On how many "
        "tasks the canonical solution has fewer bits per byte than a corrupted one behind the same "
        "prompt, which style cannot win; 50% = blind. Of the first two kinds only the tasks that "
        "have such a place count."
    )
    title = "Does it prefer the right solution?"
    return Table("preferences", title, note, tuple(columns), tuple(rows))
