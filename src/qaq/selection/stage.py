"""The stage `subset`: which rows of the pool are kept, and why; one audited table.

It reads the row ids of the pool (and the questions and answers, where a rule asks for them), but
never the column `defect`: what was planted is for judging selectors, not for them to see.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from qaq.artifacts import PAIRS, SCORES, SUBSET, read_table, write_table
from qaq.job import Job
from qaq.selection.config import Exclude, SelectorConfig
from qaq.selection.pool import build_pool
from qaq.selection.rules import select
from qaq.stages import SubsetStage

VERSION = 1

SCORE_COLUMNS = [name for name in SCORES.names if name.startswith(("row_id", "nll_", "tokens_"))]
SCORE_COLUMNS.append("reason")


def run(job: Job) -> dict[str, Any]:
    """Apply the job's rule; writes `rows.parquet` and returns the counts by reason."""
    stage = job.parse(SubsetStage)
    selector = stage.selector
    scores = {role: read_scores(job.inputs[role]) for role in selector.needs}
    pool, row_ids = build_pool(read_rows(job.inputs["pairs"], selector), scores)
    decision = select(selector, pool, ratio=stage.ratio, seed=stage.seed)
    write_table(job.out / "rows.parquet", decision.table(row_ids), SUBSET)
    kept = int(decision.kept.sum())
    record = job.record()
    record.log(rows=len(pool), selectable=decision.selectable, kept=kept)
    record.close()
    return {
        "method": selector.method,
        "rows": len(pool),
        "selectable": decision.selectable,
        "kept": kept,
        "reasons": decision.counts(),
    }


def read_scores(folder: Path) -> pa.Table:
    """A score table without the columns that no rule uses."""
    return read_table(folder / "shards", SCORES, SCORE_COLUMNS)


def read_rows(folder: Path, selector: SelectorConfig) -> pa.Table:
    """The pool's row ids, with the texts where the rule reads them."""
    columns = ["row_id"]
    if isinstance(selector, Exclude):
        columns += ["question", "answer"]
    return read_table(folder / "pairs.parquet", PAIRS, columns)
