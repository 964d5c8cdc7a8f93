"""One row per record of a source: where it stands, its scores, and why it has none."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qaq.scoring.metrics import METRICS, spans_of
from qaq.store.manifest import Artifact
from qaq.store.tables import (
    PAIRS,
    QUARANTINE,
    SUBSET,
    appearing,
    read_scores,
    read_table,
    spans_scored,
)

PLACE = ["file", "position"]
ROLES = {"strong": "", "weak": "_weak"}  # what a column's name ends in


def record_table(artifacts: dict[str, Artifact], sums: bool = False) -> pd.DataFrame:
    """Every record of the source, in its order.

    Args:
        artifacts: by role: `pairs`; score tables as `strong` and `weak`; perhaps `subset`.
        sums: whether the score tables' own columns are there too.

    Returns:
        `file` (its number), `position`, `row_id`; each metric of `qaq.scoring.metrics`, `truncated`
        and `reason` (why it has no score, or null), those of the weak model with `_weak` behind
        their names; of a subset `score`, `rank`, `kept` and `decision`. A record that is no row of
        the pool has its reason and nothing else. Records that `data.limit` left out are not there.
    """
    pairs = artifacts["pairs"].path
    rows = read_table(pairs / "pairs.parquet", PAIRS, ["row_id", *PLACE]).to_pandas()
    for role, end in ROLES.items():
        if role in artifacts:
            scores = _scores(artifacts[role].path, sums).add_suffix(end)
            rows = rows.merge(scores, left_on="row_id", right_index=True, validate="1:1")
    if "subset" in artifacts:
        rows = rows.merge(_subset(artifacts["subset"].path), on="row_id", validate="1:1")
    columns = [*PLACE, "reason", "detail"]
    refused = read_table(pairs / "quarantine.parquet", QUARANTINE, columns).to_pandas()
    refused["reason"] += ": " + refused.pop("detail")
    if "reason" not in rows:
        rows["reason"] = None
    if "kept" in rows:
        refused["kept"] = False
    whole = pd.concat([rows, refused]) if len(refused) else rows
    ordered: pd.DataFrame = whole.sort_values(PLACE, kind="stable", ignore_index=True)
    first = [*PLACE, "row_id"]
    return ordered[[*first, *(name for name in ordered.columns if name not in first)]]


def _scores(folder: Path, with_sums: bool) -> pd.DataFrame:
    """Metrics, and perhaps the sums that they are made of, by row id."""
    table = read_scores(folder)
    sums: dict[str, Any] = {
        name: table[name].to_numpy().astype(float)
        for name in table.column_names
        if name.startswith(("nll_", "tokens_", "bytes_"))
    }
    found: dict[str, Any] = {}
    scored = spans_scored(folder / "shards")
    for name in (name for name in METRICS if spans_of(name) <= set(scored)):
        metric = METRICS[name]
        values = np.asarray(metric(sums), dtype=float)
        found[name] = np.where(np.isfinite(values), values, np.nan)
    found |= {name: table[name].to_pandas() for name in ("truncated", "reason")}
    found |= sums if with_sums else {}
    return pd.DataFrame(found).set_index(table["row_id"].to_pandas())


def _subset(folder: Path) -> pd.DataFrame:
    columns = ["row_id", "score", "rank", "kept", "reason"]
    table: pd.DataFrame = read_table(folder / "rows.parquet", SUBSET, columns).to_pandas()
    return table.rename(columns={"reason": "decision"})


def write_scores(path: Path, table: pd.DataFrame, files: tuple[Path, ...]) -> None:
    """Write the table as Parquet, with the files' names in place of their numbers."""
    named = table.assign(file=[str(files[int(number) - 1]) for number in table["file"]])
    with appearing(path) as temporary:
        named.to_parquet(temporary, index=False)
