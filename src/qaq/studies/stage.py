"""The `study` stage: a scored pool in, one folder with page, numbers, tables and figures out.

index.html      one self-contained page, nothing to load
results.json    every cell of its tables with its interval (`qaq.studies.results`)
tables/         the same tables, and larger ones, as .md, .csv, .tex
figures/        .svg and .png
rows.parquet    sums and counts of every row, from which the numbers can be made again
summary.txt     what the terminal shows at the end of a run
"""

from typing import Any

from qaq.store.jobs import Job
from qaq.studies.config import StudyStage


def run(job: Job) -> dict[str, Any]:
    """Write the study; returns how much of it there is.

    Raises:
        DataError: the score tables hold different rows.
    """
    import matplotlib

    from qaq.page.drawing import STYLE, draw
    from qaq.page.page import render_page, save_results, summary_text
    from qaq.page.provenance import (
        artifact_table,
        hardware,
        packages,
        provenance,
        read_manifest,
        repeat,
        subject,
    )
    from qaq.page.tables import write_tables
    from qaq.store.tables import write_table
    from qaq.studies import failure_modes, metric_agreement, planted_noise
    from qaq.studies.data import per_row, read
    from qaq.studies.results import StudyResults, stored

    kinds = {
        "planted_noise": planted_noise.study,
        "metric_agreement": metric_agreement.study,
        "failure_modes": failure_modes.study,
    }
    spec = job.parse(StudyStage)
    data = read(spec, job.inputs)
    with matplotlib.rc_context(STYLE):
        found = kinds[spec.study.kind](data)
    manifests = {role: read_manifest(role, folder) for role, folder in job.inputs.items()}
    results = StudyResults(
        experiment=spec.experiment,
        kind=spec.study.kind,
        subject=subject(manifests),
        verdict=found.sentences,
        tables=tuple(stored(table) for table in (*found.tables, *found.hidden)),
        notes=(),
        provenance=tuple(provenance(manifest) for manifest in manifests.values()),
        packages=packages(manifests),
        hardware=hardware(manifests),
    )
    save_results(results, job.out / "results.json")
    rows = per_row(data)
    write_table(job.out / "rows.parquet", rows, rows.schema)
    write_tables([*found.tables, *found.hidden], job.out / "tables")
    figures = draw(found.figures, job.out / "figures")
    tables = {t.name: t for t in (*found.tables, artifact_table(results.provenance))}
    how = repeat(job)
    page = render_page(results, found.facts, found.sections, tables, figures, repeat=how)
    (job.out / "index.html").write_text(page, encoding="utf-8")
    shown = [table for table in found.tables if table.name in found.terminal]
    summary = summary_text(shown, found.sentences)
    (job.out / "summary.txt").write_text(summary, encoding="utf-8")
    return {"tables": len(found.tables), "figures": len(figures)}
