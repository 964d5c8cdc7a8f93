"""The report stage: artifacts in, one folder with the page, the numbers, tables and figures out.

index.html           one self-contained page, nothing to load
results.json         every number on it (`qaq.reporting.schema`)
per_problem.parquet  every judged program of every arm and seed
tables/, figures/    the same tables as .md, .csv, .tex; the figures as .svg and .png
summary.txt          what the terminal shows at the end of a run
"""

import datetime
import shlex
from typing import Any

import pyarrow as pa

from qaq.reporting.config import ReportStage
from qaq.store.jobs import Job
from qaq.store.tables import PER_PROBLEM, write_table

OUTCOMES = pa.schema([("arm", pa.string()), ("seed", pa.int64()), *PER_PROBLEM])


def repeat(job: Job) -> list[tuple[str, str]]:
    """What was run, when, and with which code."""
    if not job.command:
        return []
    made = datetime.datetime.now(datetime.UTC).strftime("%d %B %Y")
    return [("repeat this", job.command), ("made", made), ("code", job.revision)]


def _store(job: Job) -> str:
    """What names the store on a command line, where it is not called as usual."""
    root = next(iter(job.inputs.values())).parents[1]
    return "" if root.name == "artifacts" else f" --store {shlex.quote(str(root))}"


def run(job: Job) -> dict[str, Any]:
    """Write the report of one experiment; returns its verdict."""
    from qaq.page.tables import write_tables
    from qaq.reporting.assemble import assemble
    from qaq.reporting.collect import collect
    from qaq.reporting.contents import render, summary
    from qaq.reporting.figures import draw_all
    from qaq.reporting.schema import save_results
    from qaq.reporting.tables import make_tables
    from qaq.reporting.tables.arms import know_titles

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
    page = render(results, tables, figures, repeat(job), _store(job))
    (job.out / "index.html").write_text(page, encoding="utf-8")
    (job.out / "summary.txt").write_text(summary(results, tables), encoding="utf-8")
    return {
        "arms": len(results.arms),
        "comparisons": len(results.comparisons),
        "verdict": " ".join(results.verdict),
    }
