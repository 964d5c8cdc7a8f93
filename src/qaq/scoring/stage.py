"""The `scores` stage: every row's summed NLL, token and byte counts, per span.

Rows are cut into shards of consecutive rows. A shard is the unit of resume and of distribution:
rank r of n takes every n-th, and each appears under its final name by one rename, when complete.
Ranks share nothing but the folder: a rank that dies costs its unfinished shard only.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.host.errors import DataError, StoreError
from qaq.host.hardware import keep_few_kernels, keep_freed_memory
from qaq.host.terminal import show
from qaq.scoring.config import FramingConfig, ScoresStage
from qaq.scoring.metrics import PARTS
from qaq.store.jobs import Job
from qaq.store.tables import (
    SCORES,
    SPANS,
    read_table,
    scores_schema,
    spans_scored,
    with_system,
    write_rows,
)

if TYPE_CHECKING:
    from qaq.host.progress import Progress
    from qaq.scoring.engine import Engine
    from qaq.scoring.framing import Framer
    from qaq.scoring.plan import Task
    from qaq.scoring.vllm import VllmEngine

PAIR_COLUMNS = ["row_id", "question", "answer", "input_start"]
POLL = 0.2  # seconds between looks for the shards of other ranks
LINE_EVERY = 30.0
UNREAL = "the model gave no finite number for "  # a reason, before the spans
Row = dict[str, Any]


def run(job: Job) -> dict[str, Any]:
    """Score what is missing of this rank's shards; rank 0 checks the whole at the end."""
    from qaq.host.progress import Progress
    from qaq.models.load import load_positions, load_tokenizer
    from qaq.scoring.framing import make_framer, places_system

    config = job.parse(ScoresStage)
    tokenizer = load_tokenizer(config.model)
    positions = load_positions(config.model)
    framer = make_framer(config.framing, config.model, tokenizer, config.system_prompt, positions)
    folder = job.out / "shards"
    folder.mkdir(exist_ok=True)
    pairs = job.inputs["pairs"] / "pairs.parquet"
    pool, columns = pq.ParquetFile(pairs), with_system(pairs, PAIR_COLUMNS)
    size, total = job.runtime.shard_rows, pool.metadata.num_rows
    shards = range(math.ceil(total / size))
    mine = shards[job.rank :: job.world_size]
    names = pool.read(columns=["row_id"])["row_id"]
    looked_at = shards if job.rank == 0 else mine  # rank 0 reads them all at the end
    held = {n: spans_of_shard(folder, n, names.slice(n * size, size)) for n in looked_at}
    lacking = {n: tuple(s for s in config.spans if s not in held[n]) for n in mine}
    missing = {n: spans for n, spans in lacking.items() if spans}
    placeless = 0 if places_system(framer) else _system_turns(pool)
    if missing:
        _say_inputs(config.framing, pool)
        if placeless:
            show(
                f"{placeless} rows have a system turn of their own; framing={config.framing.name} "
                f"with {config.model.name} has no place for one and leaves it out",
                error=True,
            )
        keep_few_kernels()
        engine = make_engine(job, config)
        keep_freed_memory()  # from here on the same activations are made again and again
        todo = sum(min(size, total - n * size) for n in missing)
        record = job.record()
        label = f"scoring with {config.model.name}"
        with Progress(label, todo, "rows", rank=job.rank, ranks=job.world_size) as progress:
            for number, rows, tasks in tokenised(pool, columns, size, missing, framer):
                score_tasks(rows, tasks, engine, job.runtime.token_budget, progress)
                path, before = shard_path(folder, number), held[number]
                old = read_table(path, scores_schema(before)).to_pylist() if before else []
                whole = joined(old, rows) if before else rows
                write_rows(path, whole, scores_schema({*before, *missing[number]}))
                record.log(step=number, rows=len(rows), tokens=progress.tokens)
        record.close()
    if job.rank > 0:
        return {}
    wait_for(folder, shards, config.spans)
    left_out = {"without_their_system_turn": placeless} if placeless else {}
    return check(folder, total, config.framing.max_failed_share) | left_out


def make_engine(job: Job, config: ScoresStage) -> "Engine | VllmEngine":
    """What gives the sums: the model loaded here, or servers that have it."""
    adapter = job.inputs.get("adapter")
    if config.engine == "vllm":
        from qaq.models.vllm import Served
        from qaq.scoring.vllm import VllmEngine

        served = Served(config.model, job.runtime.vllm[config.model.id], adapter)
        job.record().log(None, engine=served.version, servers=len(served.replicas))
        return VllmEngine(served)
    from qaq.models.load import load_model
    from qaq.scoring.engine import Engine

    return Engine(load_model(config.model, job.runtime.device, adapter=adapter), take_over=True)


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` appears when it is complete."""
    return folder / f"part-{number:06d}.parquet"


def spans_of_shard(folder: Path, number: int, names: pa.ChunkedArray) -> tuple[str, ...]:
    """The spans that a shard of these rows holds from before; one that is torn or of other rows is
    named and goes.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return ()
    try:
        spans = spans_scored(path)
        table = read_table(path, scores_schema(spans))
        if table["row_id"].combine_chunks().equals(names.combine_chunks()):
            return spans
        fault = "it holds other rows"
    except (OSError, StoreError, pa.ArrowException) as error:
        fault = str(error)
    show(f"{path}: {fault}; scoring these rows again", error=True)
    path.unlink(missing_ok=True)
    return ()


def joined(before: list[Row], rows: list[Row]) -> list[Row]:
    """The same rows with the spans of both, and the reasons of both."""
    both = []
    for old, new in zip(before, rows, strict=True):
        row = new | {name: value for name, value in old.items() if value is not None}
        if bad := _unreal_spans(old) | _unreal_spans(new):
            row["reason"] = _unreal_reason(bad)
        both.append(row)
    return both


def tokenised(
    pool: pq.ParquetFile,
    columns: list[str],
    size: int,
    wanted: Mapping[int, Collection[str]],
    framer: "Framer",
) -> Iterator[tuple[int, list[Row], list["Task"]]]:
    """Number, rows and tasks of each wanted shard, tokenised by a thread one shard ahead.

    `wanted` has the spans that are to be scored of each shard.
    """
    shards = (
        (number, batch)
        for number, batch in enumerate(pool.iter_batches(size, columns=columns))
        if number in wanted
    )

    def following() -> tuple[int, list[Row], list["Task"]] | None:
        found = next(shards, None)
        return found and (found[0], *tokenise(found[1].to_pylist(), framer, wanted[found[0]]))

    with ThreadPoolExecutor(1) as ahead:
        future = ahead.submit(following)
        while shard := future.result():
            future = ahead.submit(following)
            yield shard


def wait_for(folder: Path, shards: range, spans: Collection[str]) -> None:
    """Until every shard has the spans, the other ranks' too; if one dies its launcher ends us."""
    last_line = time.monotonic()
    missing = list(shards)
    while missing := [n for n in missing if not _has(shard_path(folder, n), spans)]:
        if time.monotonic() - last_line >= LINE_EVERY:
            last_line = time.monotonic()
            print(f"waiting for {len(missing)} shards of other processes", file=sys.stderr)
        time.sleep(POLL)


def _has(shard: Path, spans: Collection[str]) -> bool:
    return shard.exists() and set(spans) <= set(spans_scored(shard))


def score_rows(
    rows: list[Row],
    framer: "Framer",
    engine: "Engine | VllmEngine",
    token_budget: int,
    progress: "Progress",
    spans: Collection[str] = SPANS,
) -> list[Row]:
    """Score pairs (row_id, question, answer, perhaps input_start and system) as a table's rows."""
    scored, tasks = tokenise(rows, framer, spans)
    score_tasks(scored, tasks, engine, token_budget, progress)
    return scored


def tokenise(
    pairs: list[Row], framer: "Framer", spans: Collection[str] = SPANS
) -> tuple[list[Row], list["Task"]]:
    """Rows of the scores table without sums yet, and what has to be run for these spans of them."""
    from qaq.scoring.plan import Task, merge, only

    rows, tasks = [], []
    for at, pair in enumerate(pairs):
        own = pair.get("input_start"), pair.get("system")
        framed = framer(pair["question"], pair["answer"], *own)
        row: Row = dict.fromkeys(SCORES.names)
        row |= {"row_id": pair["row_id"], "truncated": framed.truncated, "reason": framed.reason}
        row |= {f"bytes_{name}": n for name, n in framed.bytes.items() if name in spans}
        for rendering in merge(only(framed.renderings, spans)):
            tasks.append(Task(at, rendering))
            row |= {f"tokens_{s.name}": s.end - s.start for s in rendering.spans}
        rows.append(row)
    return rows, tasks


def score_tasks(
    rows: list[Row],
    tasks: list["Task"],
    engine: "Engine | VllmEngine",
    token_budget: int,
    progress: "Progress",
) -> None:
    """Fill the sums into `rows`.

    A span whose result is not a finite number is null, and the row has a reason.
    """
    done, shown, total = 0, 0, sum(task.length for task in tasks)
    for batch in engine.batches(tasks, token_budget):
        for task, sums in zip(batch, engine.score(batch), strict=True):
            rows[task.row] |= {f"nll_{name}": value for name, value in sums.items()}
        tokens = sum(task.length for task in batch)
        done += tokens
        # by tokens: a row's renderings stand in several batches, so most rows end with the last
        now = len(rows) * done // total
        progress.update(now - shown, tokens)
        shown = now
    progress.update(len(rows) - shown)
    for row in rows:
        _refuse_unreal(row)


def check(folder: Path, total: int, max_failed_share: float) -> dict[str, Any]:
    """Counts over all shards.

    Raises:
        DataError: rows are missing, or more than `max_failed_share` of them have no score for
            another reason than that a published script drops them.
    """
    from qaq.scoring.framing import DROPPED

    rows = truncated = 0
    reasons: Counter[str] = Counter()
    for shard in sorted(folder.glob("*.parquet")):
        table = read_table(shard, SCORES, ["truncated", "reason"])
        rows += table.num_rows
        truncated += table["truncated"].to_pylist().count(True)
        reasons.update(r for r in table["reason"].to_pylist() if r is not None)
    if rows != total:
        raise DataError(f"the shards hold {rows} rows, the pool {total}, in {folder}")
    unscored = sum(reasons.values())
    failures = Counter({why: n for why, n in reasons.items() if not why.startswith(DROPPED)})
    if (failed := failures.total()) > max_failed_share * total:
        listed = "; ".join(f"{count} x {reason}" for reason, count in failures.most_common())
        raise DataError(
            f"{failed} of {total} rows could not be scored, more than the {max_failed_share:.1%} "
            f"that framing.max_failed_share allows: {listed}"
        )
    spans = spans_scored(folder)
    partly = {} if spans == SPANS else {"spans": list(spans)}
    return {"rows": total, "unscored": unscored, "truncated": truncated, **partly}


def _say_inputs(framing: FramingConfig, pool: pq.ParquetFile) -> None:
    """Where the published code scores other tokens than it means to, say for how many rows."""
    column = pool.read(columns=["input_start"])["input_start"]
    rows = len(column) - column.null_count
    if rows and framing.kind.startswith("cherry") and framing.cherry_prompt == "wiz":
        print(
            f"{rows} of {len(column)} questions have an input part; there {framing.name} scores "
            "the tokens that Cherry_LLM's code scores, which begin before the answer (see "
            "docs/framings.md). framing=cherry_alpaca does not have this",
            file=sys.stderr,
        )


def _system_turns(pool: pq.ParquetFile) -> int:
    """How many rows have a system turn of their own."""
    if "system" not in pool.schema_arrow.names:
        return 0
    column = pool.read(columns=["system"])["system"]
    return len(column) - int(column.null_count)


def _refuse_unreal(row: Row) -> None:
    """A NaN or infinite sum is null and gives a reason; it is never a number.

    The row's other spans stay: what a rule makes of a row may not depend on which spans that it
    does not read were scored.
    """
    bad = {s for s in SPANS if row[f"nll_{s}"] is not None and not math.isfinite(row[f"nll_{s}"])}
    if bad:
        row |= {f"{part}_{span}": None for part in PARTS for span in bad}
        row["reason"] = _unreal_reason(bad)


def _unreal_reason(spans: Collection[str]) -> str:
    return UNREAL + ", ".join(span for span in SPANS if span in spans)


def _unreal_spans(row: Row) -> set[str]:
    """The spans that the reason of a row names."""
    reason = str(row["reason"])
    return set(reason.removeprefix(UNREAL).split(", ")) if reason.startswith(UNREAL) else set()
