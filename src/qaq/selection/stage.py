"""The stage `subset`: which rows of the pool are kept, and why; one audited table."""

from typing import Any

from qaq.selection.config import SubsetStage
from qaq.selection.inputs import load_pool
from qaq.selection.rules import select
from qaq.store.jobs import Job
from qaq.store.tables import SUBSET, write_table


def run(job: Job) -> dict[str, Any]:
    """Apply the job's rule; writes `rows.parquet` and returns the counts by reason.

    Raises:
        UserError: the rule cannot keep as many rows as asked, or keeps none.
        DataError: the tables hold different rows.
    """
    stage = job.parse(SubsetStage)
    pool, row_ids = load_pool(stage.selector, job.inputs)
    decision = select(stage.selector, pool, ratio=stage.ratio, seed=stage.seed, count=stage.count)
    write_table(job.out / "rows.parquet", decision.table(row_ids), SUBSET)
    kept = int(decision.kept.sum())
    record = job.record()
    record.log(rows=len(pool), selectable=decision.selectable, kept=kept)
    record.close()
    return {
        "method": stage.selector.method,
        "rows": len(pool),
        "selectable": decision.selectable,
        "kept": kept,
        "reasons": decision.counts(),
    }
