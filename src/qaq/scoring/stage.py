"""The `scores` stage: every row's summed NLL, token and byte counts, per span.

Rows are cut into shards of consecutive rows. A shard is the unit of resume and of distribution:
rank r of n takes every n-th, and each appears under its final name by one rename, when complete.
"""

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from qaq import stages
from qaq.artifacts import SCORES, SPANS, read_table, write_rows
from qaq.errors import DataError
from qaq.job import Job

if TYPE_CHECKING:
    from qaq.progress import Progress
    from qaq.scoring.engine import Engine
    from qaq.scoring.framing import Framer

VERSION = 1
PAIR_COLUMNS = ["row_id", "question", "answer"]
Row = dict[str, Any]


def run(job: Job) -> dict[str, Any]:
    """Score what is missing of this rank's shards; rank 0 checks the whole at the end."""
    from qaq.models.load import load_model, load_tokenizer
    from qaq.progress import Progress
    from qaq.scoring.engine import Engine
    from qaq.scoring.framing import make_framer

    config = job.parse(stages.ScoresStage)
    tokenizer = load_tokenizer(config.model)
    framer = make_framer(config.framing, config.model, tokenizer, config.system_prompt)
    folder = job.out / "shards"
    folder.mkdir(exist_ok=True)
    pool = pq.ParquetFile(job.inputs["pairs"] / "pairs.parquet")
    size, total = job.runtime.shard_rows, pool.metadata.num_rows
    mine = range(job.rank, math.ceil(total / size), job.world_size)
    missing = [n for n in mine if not shard_path(folder, n).exists()]
    if missing:
        model = load_model(config.model, job.runtime.device, adapter=job.inputs.get("adapter"))
        engine = Engine(model, tokenizer.pad_token_id or 0)
        todo = sum(min(size, total - n * size) for n in missing)
        record = job.record()
        with Progress(f"scoring with {config.model.name}", todo, "rows", rank=job.rank) as progress:
            for number, batch in enumerate(pool.iter_batches(size, columns=PAIR_COLUMNS)):
                if number in missing:
                    rows = score_rows(
                        batch.to_pylist(), framer, engine, job.runtime.token_budget, progress
                    )
                    write_rows(shard_path(folder, number), rows, SCORES)
                    record.log(step=number, rows=len(rows), tokens=progress.tokens)
        record.close()
    if job.world_size > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
    return check(folder, total, config.framing.max_failed_share) if job.rank == 0 else {}


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` appears when it is complete."""
    return folder / f"part-{number:06d}.parquet"


def score_rows(
    rows: list[Row], framer: "Framer", engine: "Engine", token_budget: int, progress: "Progress"
) -> list[Row]:
    """Score pairs (dicts with row_id, question, answer); returns rows of the scores table.

    A row that cannot be scored, or whose result is not a finite number, has null in every span
    and a reason.
    """
    from qaq.scoring.plan import Task, batches, merge

    scored, tasks, left = [], [], Counter[int]()
    for at, pair in enumerate(rows):
        framed = framer(pair["question"], pair["answer"])
        row: Row = dict.fromkeys(SCORES.names)
        row |= {"row_id": pair["row_id"], "truncated": framed.truncated, "reason": framed.reason}
        row |= {f"bytes_{name}": size for name, size in framed.bytes.items()}
        for rendering in merge(framed.renderings):
            tasks.append(Task(at, rendering))
            left[at] += 1
            row |= {f"tokens_{s.name}": s.end - s.start for s in rendering.spans}
        scored.append(row)
    progress.update(len(rows) - len(left))
    for batch in batches(tasks, token_budget):
        for task, sums in zip(batch, engine.score(batch), strict=True):
            scored[task.row] |= {f"nll_{name}": value for name, value in sums.items()}
            left[task.row] -= 1
        finished = sum(left[task.row] == 0 for task in {t.row: t for t in batch}.values())
        progress.update(finished, sum(task.length for task in batch))
    return [_refuse_unreal(row) for row in scored]


def check(folder: Path, total: int, max_failed_share: float) -> dict[str, Any]:
    """Counts over all shards.

    Raises:
        DataError: rows are missing, or more than `max_failed_share` of them have no score.
    """
    table = read_table(folder, SCORES)
    if table.num_rows != total:
        raise DataError(f"{total - table.num_rows} of {total} rows have no line in {folder}")
    reasons = Counter(r for r in table["reason"].to_pylist() if r is not None)
    failed = sum(reasons.values())
    if failed > max_failed_share * total:
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        raise DataError(
            f"{failed} of {total} rows could not be scored, more than the {max_failed_share:.1%} "
            f"that framing.max_failed_share allows: {listed}"
        )
    truncated = sum(t is True for t in table["truncated"].to_pylist())
    return {"rows": total, "unscored": failed, "truncated": truncated}


def _refuse_unreal(row: Row) -> Row:
    """A NaN or infinite sum becomes null with a reason; it is never passed on as a number."""
    bad = [s for s in SPANS if row[f"nll_{s}"] is not None and not math.isfinite(row[f"nll_{s}"])]
    if bad:
        row |= {f"nll_{span}": None for span in SPANS}
        row["reason"] = f"the model gave no finite number for {', '.join(bad)}"
    return row
