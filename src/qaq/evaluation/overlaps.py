"""The `overlaps` stage: which rows of the pool touch which problems of the benchmarks in use."""

from typing import Any

from qaq.data.contamination import TEXTS, Problem, overlap_table
from qaq.evaluation import benchmarks
from qaq.evaluation.config import OverlapsStage
from qaq.store.jobs import Job
from qaq.store.tables import OVERLAPS, open_table, write_table

BATCH_ROWS = 1024


def run(job: Job) -> dict[str, Any]:
    """Write `overlaps.parquet`; returns how many rows touch each benchmark, by kind."""
    stage = job.parse(OverlapsStage)
    with open_table(job.inputs["pairs"] / "pairs.parquet", [*TEXTS]) as pairs:
        table = overlap_table(pairs.iter_batches(BATCH_ROWS, columns=[*TEXTS]), problems(stage))
        rows = pairs.metadata.num_rows
    write_table(job.out / "overlaps.parquet", table, OVERLAPS)
    each = table.group_by(["row_id", "benchmark", "kind"]).aggregate([])
    touched = each.group_by(["benchmark", "kind"]).aggregate([([], "count_all")]).to_pylist()
    summary: dict[str, Any] = {"rows": rows, "overlaps": len(table)}
    found = {(one["benchmark"], one["kind"]): one["count_all"] for one in touched}
    summary |= {f"{suite}_{kind}": n for (suite, kind), n in sorted(found.items())}
    record = job.record()
    record.log(**summary)
    record.close()
    return summary


def problems(stage: OverlapsStage) -> list[Problem]:
    """All problems of the suites, whichever of them the experiment judges."""
    found = []
    for suite in stage.suites:
        loaded = benchmarks.load(suite, suite=stage.specs.get(suite))
        found += [
            Problem(suite, p.task_id, p.prompt, p.canonical_solution, p.entry_point)
            for p in loaded.problems
        ]
    return found
