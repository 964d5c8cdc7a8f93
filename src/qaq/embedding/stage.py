"""The `embeddings` stage: one vector per pair, by the model that is to be fine-tuned.

A pair is rendered as fine-tuning renders it (prompt and response in the model's chat template); its
vector is the mean of the last hidden layer over the tokens, token i of n weighing i, at length 1
(RDS+, arXiv 2503.01807). With `pairs` as input the rows of the pool are embedded, without it the
target queries: two artifacts, so that other queries leave the pool's vectors as they are.

Rows are cut into shards of consecutive rows. A shard is the unit of resume and of distribution, and
appears by one rename; rank 0 joins them at the end into one file that can be mapped into memory.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.embedding.config import EmbeddingsStage
from qaq.embedding.queries import target_queries
from qaq.evaluation import benchmarks
from qaq.host.errors import DataError
from qaq.host.terminal import show
from qaq.store.jobs import Job
from qaq.store.tables import EMBEDDED, appearing, with_system, write_table

if TYPE_CHECKING:
    from qaq.embedding.engine import Embedder
    from qaq.host.progress import Progress

TEXTS = ["question", "answer"]
Text = tuple[str, ...]  # question, answer, perhaps a system turn (null: none)


def run(job: Job) -> dict[str, Any]:
    """Embed what is missing of this rank's shards; rank 0 writes `rows.npy`, `row_ids.parquet`.

    Raises:
        DataError: the query file is missing, is not one, or repeats an evaluated problem.
    """
    from qaq.embedding.engine import Embedder
    from qaq.host.progress import Progress

    config = job.parse(EmbeddingsStage)
    names, texts = read_texts(config, job.inputs.get("pairs"), job.runtime.shard_rows)
    folder = job.scratch / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    size = job.runtime.shard_rows
    mine = range(job.rank, math.ceil(len(names) / size), job.world_size)
    missing = {n for n in mine if not is_whole(folder, n, names[n * size : (n + 1) * size])}
    if missing:
        embedder = Embedder(config.model, config.system_prompt, config.max_tokens, job.runtime)
        todo = sum(min(size, len(names) - n * size) for n in missing)
        record = job.record()
        label = f"embedding with {config.model.name}"
        with Progress(label, todo, "rows", rank=job.rank, ranks=job.world_size) as progress:
            for number, shard in enumerate(texts):
                if number in missing:
                    ids = names[number * size : (number + 1) * size]
                    save_shard(folder, number, ids, embed(shard, embedder, progress))
                    record.log(step=number, rows=len(shard), tokens=progress.tokens)
        record.close()
    if job.world_size > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
    return join(job, folder, names) if job.rank == 0 else {}


def read_texts(
    config: EmbeddingsStage, pairs: Path | None, size: int
) -> tuple[list[str], Iterator[list[Text]]]:
    """The names of all rows, and their texts in shards of `size`."""
    if pairs is None:
        queries = target_queries(config.queries, evaluated_prompts(config))
        parts = (queries[start : start + size] for start in range(0, len(queries), size))
        return [q.name for q in queries], ([(q.question, q.answer) for q in p] for p in parts)
    file = pq.ParquetFile(pairs / "pairs.parquet")
    names = file.read(columns=["row_id"])["row_id"].to_pylist()
    columns = with_system(pairs / "pairs.parquet", TEXTS)
    shards = (
        list(zip(*(batch[name].to_pylist() for name in columns), strict=True))
        for batch in file.iter_batches(size, columns=columns)
    )
    return names, shards


def evaluated_prompts(config: EmbeddingsStage) -> Iterator[str]:
    """The prompts of every problem that the experiment evaluates."""
    for suite in config.suites:
        loaded = benchmarks.load(suite, suite=config.specs.get(suite))
        yield from (problem.prompt for problem in loaded.problems)


def embed(texts: Iterable[Text], embedder: "Embedder", progress: "Progress") -> np.ndarray:
    """The vectors of some texts, float32, in their order."""
    rendered = [embedder.render(*text) for text in texts]
    found: dict[int, np.ndarray] = {}
    for batch in embedder.batches(rendered):
        vectors = embedder.vectors([rendered[i] for i in batch])
        found.update(zip(batch, vectors, strict=True))
        progress.update(len(batch), sum(len(rendered[i]) for i in batch))
    return np.stack([found[at] for at in range(len(rendered))])


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` appears when it is complete."""
    return folder / f"part-{number:06d}.npz"


def save_shard(folder: Path, number: int, names: list[str], vectors: np.ndarray) -> None:
    """Write a shard; it appears by one rename."""
    with appearing(shard_path(folder, number)) as temporary, temporary.open("wb") as file:
        np.savez(file, names=np.array(names), vectors=vectors)


def is_whole(folder: Path, number: int, names: list[str]) -> bool:
    """Whether a shard of an earlier try holds these rows; one that does not is named and goes."""
    path = shard_path(folder, number)
    try:
        with np.load(path) as shard:
            if shard["names"].tolist() == names and len(shard["vectors"]) == len(names):
                return True
        fault = "it holds other rows"
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        fault = str(error)
    show(f"{path}: {fault}; embedding these rows again", error=True)
    path.unlink()
    return False


def vectors_of(shard: Path) -> np.ndarray:
    """The vectors of a shard."""
    with np.load(shard) as content:
        vectors: np.ndarray = content["vectors"]
        return vectors


def join(job: Job, folder: Path, names: list[str]) -> dict[str, Any]:
    """All shards as one file, copied a shard at a time. Raises DataError: rows are missing."""
    shards = sorted(folder.glob("part-*.npz"))
    sizes = [vectors_of(shard).shape for shard in shards]
    there = sum(rows for rows, _ in sizes)
    if there != len(names):
        raise DataError(f"{len(names) - there} of {len(names)} rows have no vector in {folder}")
    whole = np.lib.format.open_memmap(
        job.out / "rows.npy", "w+", np.float32, (len(names), sizes[0][1])
    )
    start, unusable = 0, 0
    for shard in shards:
        vectors = vectors_of(shard)
        whole[start : start + len(vectors)] = vectors
        start += len(vectors)
        unusable += int((~np.isfinite(vectors).all(axis=1)).sum())
    whole.flush()
    write_table(job.out / "row_ids.parquet", pa.table({"row_id": names}), EMBEDDED)
    return {"rows": len(names), "width": sizes[0][1], "not_finite": unusable}
