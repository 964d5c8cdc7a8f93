"""`qaq audit`: what a subset holds and why; with another, what moved and why.

An audit judges a rule after the fact, so unlike a rule it may look at the column `defect`. Rows
are joined by `row_id`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qaq.evidence.ranking import spearman
from qaq.host.errors import DataError
from qaq.page.drawing import element
from qaq.page.figures import kept_band
from qaq.selection.audit_page import to_html, to_text
from qaq.selection.audit_schema import Audit, Example, Group, Lengths, Move, Moved, SubsetDiff
from qaq.selection.texts import WITHOUT_TEXTS, File, without_texts
from qaq.store.tables import SUBSET, read_json, read_table

__all__ = ["Audit", "SubsetDiff", "audit", "diff", "page", "to_html", "to_json", "to_text"]

EXAMPLES = 5
EXCERPT = 320
LENGTH_BINS = 4


def audit(subset_dir: Path, pairs_dir: Path, pool: pd.DataFrame | None = None) -> Audit:
    """Count and sample a subset.

    Args:
        pairs_dir: the pairs artifact that it was chosen from.
        pool: `without_texts` of those pairs, where they were read before.

    Raises:
        DataError: the two hold different rows.
    """
    file = pairs_dir / "pairs.parquet"
    texts, known = File(file), _placed(without_texts(file).to_pandas() if pool is None else pool)
    rows = _subset(subset_dir).merge(known, on="row_id", how="outer", indicator=True)
    strangers = rows["_merge"].value_counts()
    if strangers["left_only"] or strangers["right_only"]:
        raise DataError(
            f"{subset_dir.name} and {pairs_dir.name} hold different rows: "
            f"{strangers['left_only']} are only in the subset and {strangers['right_only']} only "
            "in the pairs; give the pairs that the subset was chosen from"
        )
    ranked = rows[rows["rank"].notna()].sort_values(["rank", "score", "row_id"])
    return Audit(
        name=subset_dir.name,
        rule=_rule(subset_dir),
        rows=len(rows),
        kept=int(rows["kept"].sum()),
        unscored=int(rows["reason"].str.startswith("no score").sum()),
        by_reason=_groups(rows, rows["reason"], by_size=True),
        by_stratum=_groups(rows, rows["stratum"].astype("Int64")),
        by_source=_groups(rows, rows["source"], by_size=True),
        by_length=_by_length(rows),
        by_defect=_groups(rows, rows["defect"]) if rows["defect"].notna().any() else (),
        lengths=_lengths({"kept": rows[rows["kept"]], "dropped": rows[~rows["kept"]]}),
        lowest=_examples(ranked.head(EXAMPLES), texts),
        highest=_examples(ranked.tail(EXAMPLES)[::-1], texts),
        kept_at_cut=_examples(_at_cut(ranked, ranked["kept"]), texts),
        dropped_at_cut=_examples(_at_cut(ranked, ~ranked["kept"]), texts),
    )


def page(
    result: Audit, subset_dir: Path, store: str = "", pages: Sequence[tuple[str, str]] = ()
) -> str:
    """The audit of a subset as a page: the score with the kept band, tables, examples, what next.

    Args:
        store: the option that names its store on a command line, or nothing.
        pages: others beside this one: (title, address).
    """
    name = subset_dir.name
    steps = [
        ("artifact", f"{subset_dir.parents[1].name}/subset/{name}"),
        ("audit", f"qaq audit {name}{store}"),
        ("export", f"qaq export {name} chosen.jsonl{store}"),
    ]
    figures = element("kept", lambda: kept_band(_subset(subset_dir), result.rank_is_of))
    return to_html(result, figures, steps, pages)


def diff(a_dir: Path, b_dir: Path, pairs_dir: Path) -> SubsetDiff:
    """Compare two subsets row by row.

    Args:
        pairs_dir: the pairs of the first, for texts and lengths.

    Raises:
        DataError: the two subsets have no row in common.
    """
    first, second = _subset(a_dir), _subset(b_dir)
    both = first.merge(second, on="row_id", suffixes=("_first", "_second"))
    if both.empty:
        raise DataError(
            f"{a_dir.name} and {b_dir.name} have no row in common ({len(first)} and {len(second)} "
            "rows); compare subsets of one pool"
        )
    file = pairs_dir / "pairs.parquet"
    texts, known = File(file), _placed(without_texts(file).to_pandas())
    rows = both.merge(known, on="row_id", how="left")
    left = rows[rows["kept_first"] & ~rows["kept_second"]]
    entered = rows[~rows["kept_first"] & rows["kept_second"]]
    shared = rows[rows["kept_first"] & rows["kept_second"]]
    moved = pd.concat([left, entered])
    reasons = Counter(zip(moved["reason_first"], moved["reason_second"], strict=True))
    rank = spearman(rows["rank_first"].to_numpy(), rows["rank_second"].to_numpy())
    return SubsetDiff(
        first=a_dir.name,
        second=b_dir.name,
        rows=len(rows),
        absent=len(first) + len(second) - 2 * len(rows),
        kept_first=int(rows["kept_first"].sum()),
        kept_second=int(rows["kept_second"].sum()),
        kept_both=len(shared),
        rank_correlation=None if rank is None else rank.value,
        moves=tuple(Move(a, b, n) for (a, b), n in reasons.most_common()),
        lengths=_lengths({"kept by both": shared, "only first": left, "only second": entered}),
        by_source=_groups(moved.assign(kept=moved["kept_second"]), moved["source"], by_size=True),
        left=_moved(left, texts),
        entered=_moved(entered, texts),
    )


def to_json(result: Audit | SubsetDiff) -> dict[str, Any]:
    """The audit as plain values for `json.dumps`."""
    return asdict(result)


def _subset(folder: Path) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(folder / "rows.parquet", SUBSET).to_pandas()
    return frame.astype({"score": float, "rank": float, "stratum": float})


def _placed(pool: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pool, each with its place in the file, where its texts are."""
    rows: pd.DataFrame = pool[WITHOUT_TEXTS.names].assign(place=np.arange(len(pool)))
    return rows


def _rule(folder: Path) -> dict[str, object]:
    """The selector as the artifact's manifest states it; empty where there is no manifest."""
    file = folder / "manifest.json"
    if not file.is_file():
        return {}
    try:
        config = read_json(file).get("full_config", {})
    except (ValueError, AttributeError):
        raise DataError(f"{file} is damaged; make the subset again") from None
    rule = {k: v for k, v in config.get("selector", {}).items() if v is not None}
    asked = {name: config.get(name) for name in ("ratio", "count", "seed")}
    return rule | {name: value for name, value in asked.items() if value is not None}


def _groups(rows: pd.DataFrame, key: pd.Series, by_size: bool = False) -> tuple[Group, ...]:
    """Rows and kept rows by the values of `key`; rows without a value are left out."""
    counts = rows["kept"].astype(int).groupby(key, observed=True).agg(["size", "sum"])
    if by_size:
        counts = counts.sort_values("size", ascending=False, kind="stable")
    return tuple(Group(str(k), int(n), int(kept)) for k, n, kept in counts.itertuples())


def _by_length(rows: pd.DataFrame) -> tuple[Group, ...]:
    """Kept rows by quartile of the answer's length."""
    lengths = rows["answer_characters"]
    quantiles = np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1])
    edges = [int(edge) for edge in np.unique(quantiles.round())]
    lows, highs = [0, *(edge + 1 for edge in edges)], [*(str(edge) for edge in edges), ""]
    names = [f"{a} to {b}" if b else f"{a} or more" for a, b in zip(lows, highs, strict=True)]
    bins = pd.Series(np.searchsorted(edges, lengths, side="left"), index=rows.index)
    return tuple(Group(names[int(g.name)], g.rows, g.kept) for g in _groups(rows, bins))


def _lengths(parts: dict[str, pd.DataFrame]) -> tuple[Lengths, ...]:
    found = []
    for name, rows in parts.items():
        known = rows[rows["question_characters"].notna()]
        if len(known):
            both = (_quartiles(known[f"{text}_characters"]) for text in ("question", "answer"))
            found.append(Lengths(name, len(known), *both))
    return tuple(found)


def _quartiles(values: pd.Series) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def _at_cut(ranked: pd.DataFrame, side: pd.Series) -> pd.DataFrame:
    """The rows of one side whose rank is nearest to one of the other; a band has two such cuts."""
    rank, here = ranked["rank"].to_numpy(dtype=float), np.flatnonzero(side)
    if len(here) in (0, len(rank)):
        return ranked.head(0)
    cuts = np.concatenate([[-np.inf], np.delete(rank, here), [np.inf]])
    right = np.searchsorted(cuts, rank[here])
    away = np.minimum(rank[here] - cuts[right - 1], cuts[right] - rank[here])
    return ranked.iloc[here[np.argsort(away, kind="stable")[:EXAMPLES]]]


def _examples(rows: pd.DataFrame, texts: File) -> tuple[Example, ...]:
    return tuple(_example(row, texts) for _, row in rows.iterrows())


def _example(row: pd.Series, texts: File) -> Example:
    return Example(
        row["row_id"],
        row["source"],
        _number(row["score"]),
        _number(row["rank"]),
        None if pd.isna(row["stratum"]) else int(row["stratum"]),
        bool(row["kept"]),
        row["reason"],
        *_excerpts(row, texts),
    )


def _moved(rows: pd.DataFrame, texts: File) -> tuple[Moved, ...]:
    """The rows whose rank changed most; rows without a rank on a side come last."""
    change = (rows["rank_first"] - rows["rank_second"]).abs().fillna(-1.0)
    ordered = rows.assign(change=change).sort_values(["change", "row_id"], ascending=[False, True])
    return tuple(
        Moved(
            row["row_id"],
            _number(row["rank_first"]),
            _number(row["rank_second"]),
            row["reason_first"],
            row["reason_second"],
            *_excerpts(row, texts),
        )
        for _, row in ordered.head(EXAMPLES).iterrows()
    )


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _excerpts(row: pd.Series, texts: File) -> tuple[str, str]:
    """How a row's question and answer begin; nothing where the pairs do not have it."""
    if pd.isna(row["place"]):
        return "", ""
    question, answer = texts.row(int(row["place"]))
    return _excerpt(question), _excerpt(answer)


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + " …"
