"""The report stage: artifacts in, one folder with the page, the numbers, tables and figures out.

index.html           one self-contained page, nothing to load
problems.html        the tasks that some arms solve and others do not, with their programs
subsets/ARM.html     what each arm's rule kept (its first seed) and why
results.json         every number on it (`qaq.reporting.schema`)
per_problem.parquet  every judged program of every arm and seed
tables/, figures/    the same tables as .md, .csv, .tex; the figures as .svg and .png
summary.txt          what the terminal shows at the end of a run
"""

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from qaq.host.runtime import store_option
from qaq.reporting.config import ReportStage
from qaq.store.jobs import Job
from qaq.store.tables import PER_PROBLEM, write_table

if TYPE_CHECKING:
    import pandas as pd

    from qaq.page.page import Entry

SHOWN = 3  # rows of each side of the cut on the report's own page

OUTCOMES = pa.schema([("arm", pa.string()), ("seed", pa.int64()), *PER_PROBLEM])


def write_subsets(
    spec: ReportStage, job: Job, pool: "pd.DataFrame | None", store: str
) -> "dict[str, tuple[Entry, ...]]":
    """Write a page for each arm's subset; by arm the rows beside the cut."""
    from urllib.parse import unquote

    from qaq.reporting.tables.ranking import subset_page
    from qaq.selection.audit import audit, page
    from qaq.selection.audit_page import examples

    found = {}
    for arm in spec.arms:
        roles = (f"subset/{arm.name}/{seed}" for seed in arm.seeds)
        folder = next((job.inputs[role] for role in roles if role in job.inputs), None)
        if folder is None or pool is None:
            continue
        result = audit(folder, job.inputs["pairs"], pool)
        file = job.out / unquote(subset_page(arm.name))
        file.parent.mkdir(exist_ok=True)
        file.write_text(page(result, folder, store, [("The report", "../index.html")]), "utf-8")
        found[arm.name] = examples(result, SHOWN)
    return found


def run(job: Job) -> dict[str, Any]:
    """Write the report of one experiment; returns its verdict."""
    from qaq.page.page import save_results
    from qaq.page.provenance import repeat
    from qaq.page.tables import write_tables
    from qaq.reporting.assemble import assemble
    from qaq.reporting.collect import collect
    from qaq.reporting.contents import render, summary
    from qaq.reporting.figures import draw_all
    from qaq.reporting.problems import render_problems
    from qaq.reporting.tables import make_tables
    from qaq.reporting.tables.arms import know_titles
    from qaq.reporting.tables.ranking import PROBLEMS

    spec = job.parse(ReportStage)
    know_titles(spec.settings)
    data = collect(spec, job.inputs)
    results = assemble(data)
    tables = make_tables(results)
    figures = draw_all(data, results, job.out / "figures")
    save_results(results, job.out / "results.json")
    outcomes = pa.Table.from_pandas(data.outcomes, preserve_index=False)
    write_table(job.out / "per_problem.parquet", outcomes, OUTCOMES)
    write_tables(list(tables.values()), job.out / "tables")
    problems = render_problems(data, results, job.inputs)
    if problems:
        (job.out / PROBLEMS).write_text(problems, encoding="utf-8")
    store = store_option(next(iter(job.inputs.values())).parents[1])
    examples = write_subsets(spec, job, data.pool, store)
    page = render(results, tables, figures, repeat(job), store, examples, bool(problems))
    (job.out / "index.html").write_text(page, encoding="utf-8")
    (job.out / "summary.txt").write_text(summary(results, tables), encoding="utf-8")
    return {
        "arms": len(results.arms),
        "comparisons": len(results.comparisons),
        "verdict": " ".join(results.verdict),
    }
