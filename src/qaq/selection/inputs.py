"""From artifact folders to the pool that a rule needs, reading nothing that it does not.

The column `defect` of the pairs is read for an oracle alone: what was planted is for judging rules.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from qaq.host.errors import DataError
from qaq.selection.config import (
    OVERLAP_KINDS,
    Selector,
    reads_texts,
    reads_truth,
    rules_within,
)
from qaq.selection.pool import Embeddings, Keys, Pool, build_pool, row_keys
from qaq.store.tables import EMBEDDED, OVERLAPS, PAIRS, read_scores, read_table

SCORERS = ("strong", "weak", "asked")


def load_pool(selector: Selector, inputs: Mapping[str, Path]) -> tuple[Pool, pa.ChunkedArray]:
    """The pool as the selector needs it, and its row ids as text in the same order.

    Args:
        inputs: folders by role: `pairs`, and those in `selector.needs`.

    Raises:
        DataError: tables hold different rows, or one that the rule needs is missing.
    """
    pairs = inputs["pairs"] / "pairs.parquet"
    columns = ["row_id", "defect"] if reads_truth(selector) else ["row_id"]
    with ThreadPoolExecutor(1) as thread:
        rows = thread.submit(read_table, pairs, PAIRS, columns)
        scores = {role: read_scores(inputs[role]) for role in selector.needs if role in SCORERS}
    pool, row_ids = build_pool(rows.result(), scores, pairs if reads_texts(selector) else None)
    if "embeddings" in selector.needs:
        queries = inputs["queries"] if "queries" in selector.needs else None
        pool = replace(pool, embeddings=read_embeddings(inputs["embeddings"], queries, pool.keys))
    if "overlaps" in selector.needs:
        file = inputs["overlaps"] / "overlaps.parquet"
        table = read_table(file, OVERLAPS, ["row_id", "benchmark", "kind"])
        named = (k for r in rules_within(selector) if (k := getattr(r, "kinds", None)))
        kinds = next(named, OVERLAP_KINDS)
        pool = replace(pool, barred=bar(pool.keys, contaminated(table, kinds)))
    return pool, row_ids


def read_embeddings(folder: Path, queries: Path | None, keys: Keys) -> Embeddings:
    """Vectors of two embeddings artifacts: the pool's, joined with it by row id, and the queries'.

    A rule that asks no queries gets none.

    A folder holds `rows.npy` (n x d) and `row_ids.parquet` (their `row_id`s in that order); the
    pool's vectors are mapped, not read.
    """
    names = read_table(folder / "row_ids.parquet", EMBEDDED)["row_id"]
    there = row_keys(names, "the embeddings")
    order = np.argsort(there, kind="stable")
    rows = np.load(folder / "rows.npy", mmap_mode="r")
    if len(rows) != len(there) or not np.array_equal(there[order], keys):
        both = len(np.intersect1d(there, keys))
        raise DataError(
            f"the embeddings hold {len(rows)} vectors for {len(there)} row ids, {both} of which "
            f"are among the pool's {len(keys)}; embed this pool again"
        )
    asked = np.load(queries / "rows.npy") if queries else np.empty((0, rows.shape[1]), np.float32)
    return Embeddings(rows, order, asked)


def contaminated(overlaps: pa.Table, kinds: Collection[str]) -> dict[str, str]:
    """Why each touched row is barred: `contaminated: ` and the benchmarks it overlaps with."""
    touched: dict[str, set[str]] = defaultdict(set)
    columns = (overlaps[name].to_pylist() for name in ("row_id", "benchmark", "kind"))
    for row_id, benchmark, kind in zip(*columns, strict=True):
        if kind in kinds:
            touched[row_id].add(benchmark)
    return {row: f"contaminated: {', '.join(sorted(names))}" for row, names in touched.items()}


def bar(keys: Keys, reasons: Mapping[str, str]) -> pa.ChunkedArray:
    """For each row of the pool null, or why it may not be chosen.

    Raises:
        DataError: a row id is not one of the pool's.
    """
    barred = row_keys(pa.chunked_array([pa.array(list(reasons), pa.string())]), "the barred rows")
    places = np.searchsorted(keys, barred)
    known = places < len(keys)
    known[known] = keys[places[known]] == barred[known]
    if not known.all():
        raise DataError(f"{int((~known).sum())} of {len(known)} barred rows are not in the pool")
    column = np.full(len(keys), None, dtype=object)
    column[places] = list(reasons.values())
    return pa.chunked_array([pa.array(column, pa.string())])
