"""The `overlaps` stage: which rows of the pool touch which problems of the benchmarks in use."""

from collections import Counter
from typing import Any

from qaq.data.contamination import Problem, overlap_table
from qaq.evaluation import benchmarks
from qaq.evaluation.config import OverlapsStage
from qaq.store.jobs import Job
from qaq.store.tables import OVERLAPS, PAIRS, read_table, write_table


def run(job: Job) -> dict[str, Any]:
    """Write `overlaps.parquet`; returns how many rows touch each benchmark, by kind."""
    stage = job.parse(OverlapsStage)
    texts = ["row_id", "question", "answer"]
    pairs = read_table(job.inputs["pairs"] / "pairs.parquet", PAIRS, texts)
    table = overlap_table(pairs, problems(stage))
    write_table(job.out / "overlaps.parquet", table, OVERLAPS)
    columns = (table[name].to_pylist() for name in ("row_id", "benchmark", "kind"))
    touched = Counter((suite, kind) for _, suite, kind in set(zip(*columns, strict=True)))
    summary: dict[str, Any] = {"rows": len(pairs), "overlaps": len(table)}
    summary |= {f"{suite}_{kind}": n for (suite, kind), n in sorted(touched.items())}
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
