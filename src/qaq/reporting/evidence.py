"""What the scores and the subsets say before any training: defects, correlations, overlaps.

Everything is joined by `row_id`. Rows without a score take no part in a comparison of scores and
are counted; they are never given a value.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from qaq.data.config import CONTROLS
from qaq.evidence.estimate import Mask, share
from qaq.evidence.ranking import PAPER_RMI_IFD, area, spearman
from qaq.reporting.collect import DRAWN, FREE, Collected
from qaq.reporting.schema import (
    Correlation,
    Holdings,
    MetricSpread,
    ModelFree,
    Overlap,
    Pool,
    Retention,
    Separation,
)
from qaq.scoring.metrics import titles

Score = Literal["rmi", "ifd"]
End = Literal["low", "high"]

SCORES: tuple[Score, Score] = ("rmi", "ifd")
CLEAN = "clean"


def pool_facts(data: Collected) -> Pool | None:
    """Rows, sources, planted defects and unscored rows of the pool."""
    if data.pool is None:
        return None
    return Pool(
        rows=len(data.pool),
        sources=_counts(data.pool["source"]),
        defects=_counts(data.pool["defect"]),
        unscored={role: int((~table["scored"]).sum()) for role, table in data.scores.items()},
    )


def metrics(data: Collected) -> tuple[MetricSpread, ...]:
    """How every listed metric, the user's included, lies over the pool for each model."""
    found = []
    for name, title in titles().items():
        for role, table in data.scores.items():
            if f"metric:{name}" not in table:
                continue
            values = table[f"metric:{name}"].to_numpy()
            known = values[np.isfinite(values)]
            low, middle, high = np.quantile(known, (0.05, 0.5, 0.95)) if len(known) else [None] * 3
            found.append(
                MetricSpread(
                    name=name,
                    title=title,
                    model=role,
                    rows=len(known),
                    low=low,
                    median=middle,
                    high=high,
                )
            )
    return tuple(found)


def direction(score: Score, defect: str) -> End:
    """The end at which a defect should lie.

    RMI: high where the answer gives the question away, low where it does not match it. IFD the
    other way round: a question that does not help is a high IFD, which is why keeping the highest
    IFD keeps mismatched pairs.
    """
    gives_away = defect in ("echo", "paraphrase_echo", "described_code", "rebuilt_question")
    return "high" if gives_away == (score == "rmi") else "low"


def against(defects: pd.Series, kind: str) -> Mask:
    """The rows that a kind of damage is compared with: its control where the pool has it."""
    control = CONTROLS.get(kind)
    rows = defects == control
    return (rows if rows.any() else defects.isna()).to_numpy()


def separations(data: Collected) -> tuple[Separation, ...]:
    """AUROC of each score, for each model and planted defect, against clean rows or its control."""
    if data.pool is None:
        return ()
    found = []
    for role, table in data.scores.items():
        scores = table[["row_id", *SCORES]]
        joined = data.pool[["row_id", "defect"]].merge(scores, on="row_id", validate="1:1")
        for score in SCORES:
            known = joined[joined[score].notna()]
            for defect in sorted(known["defect"].dropna().unique()):
                end = direction(score, str(defect))
                sign = 1.0 if end == "high" else -1.0
                values = sign * known[score].to_numpy()
                bad = (known["defect"] == defect).to_numpy()
                found_area = area(values, bad, against(known["defect"], str(defect)))
                if found_area is not None:
                    found.append(
                        Separation(
                            model=role,
                            score=score,
                            defect=str(defect),
                            direction=end,
                            rows=found_area.n,
                            auroc=found_area,
                        )
                    )
    return tuple(found)


def without_model(data: Collected) -> tuple[ModelFree, ...]:
    """AUROC of what needs no model, in the same comparisons."""
    if data.pool is None:
        return ()
    defect = data.pool["defect"]
    found = []
    for column in (c for c in data.pool.columns if c.startswith(FREE)):
        values = data.pool[column].to_numpy()
        for kind in sorted(defect.dropna().unique()):
            estimate = area(values, (defect == kind).to_numpy(), against(defect, str(kind)))
            if estimate is not None:
                name = column.removeprefix(FREE)
                found.append(ModelFree(control=name, defect=str(kind), auroc=estimate))
    return tuple(found)


def retentions(data: Collected) -> tuple[Retention, ...]:
    """Share of each defect, and of the clean rows, that each arm keeps."""
    if data.pool is None or data.pool["defect"].isna().all():
        return ()
    groups = data.pool.assign(defect=data.pool["defect"].fillna(CLEAN))[["row_id", "defect"]]
    found = []
    for arm, kept in kept_shares(data).items():
        joined = groups.merge(kept, on="row_id", validate="1:1")
        for defect, rows in joined.groupby("defect"):
            estimate = share(float(rows["kept"].sum()), len(rows))
            if estimate is not None:
                found.append(Retention(arm=arm, defect=str(defect), rows=len(rows), kept=estimate))
    return tuple(found)


def kept_shares(data: Collected) -> dict[str, pd.DataFrame]:
    """For each arm `row_id` and `kept`: the share of its seeds that keep the row."""
    found = {}
    for arm in data.spec.arms:
        tables = [data.subsets[arm.name, s] for s in arm.seeds if (arm.name, s) in data.subsets]
        if tables:
            rows = pd.concat([t[["row_id", "kept"]] for t in tables])
            found[arm.name] = rows.groupby("row_id")["kept"].mean().reset_index()
    return found


def holdings(data: Collected) -> dict[str, Holdings]:
    """What each arm's subset is made of; means over its seeds."""
    if data.pool is None:
        return {}
    facts = data.pool
    if "strong" in data.scores:
        scores = data.scores["strong"][["row_id", "rmi", "log_ppl_q"]]
        facts = facts.merge(scores, on="row_id", how="left", validate="1:1")
    found: dict[str, list[Holdings]] = {}
    for (arm, _), subset in sorted(data.subsets.items()):
        kept = facts[facts["row_id"].isin(subset.loc[subset["kept"], "row_id"])]
        found.setdefault(arm, []).append(_one_holding(kept, len(facts)))
    return {arm: _mean_holding(parts) for arm, parts in found.items()}


def _one_holding(kept: pd.DataFrame, pool: int) -> Holdings:
    return Holdings(
        rows=len(kept),
        share=len(kept) / pool,
        defects={k: float(v) for k, v in _counts(kept["defect"]).items()},
        sources={k: float(v) for k, v in _counts(kept["source"]).items()},
        question_characters=float(kept["question_characters"].median()) if len(kept) else 0.0,
        answer_characters=float(kept["answer_characters"].median()) if len(kept) else 0.0,
        rmi=_median(kept, "rmi"),
        log_ppl_q=_median(kept, "log_ppl_q"),
    )


def _mean_holding(parts: list[Holdings]) -> Holdings:
    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    def counts(tables: list[dict[str, float]]) -> dict[str, float]:
        kinds = sorted({kind for table in tables for kind in table})
        return {k: float(np.mean([table.get(k, 0.0) for table in tables])) for k in kinds}

    return Holdings(
        rows=float(np.mean([p.rows for p in parts])),
        share=float(np.mean([p.share for p in parts])),
        defects=counts([p.defects for p in parts]),
        sources=counts([p.sources for p in parts]),
        question_characters=float(np.mean([p.question_characters for p in parts])),
        answer_characters=float(np.mean([p.answer_characters for p in parts])),
        rmi=mean([p.rmi for p in parts]),
        log_ppl_q=mean([p.log_ppl_q for p in parts]),
    )


def overlaps(data: Collected) -> tuple[Overlap, ...]:
    """Shared rows of every two arms (first seed of each); full subsets take no part."""
    kept = {}
    for arm in data.spec.arms:
        first = next((s for s in arm.seeds if (arm.name, s) in data.subsets), None)
        if first is not None and arm.method != "full":
            table = data.subsets[arm.name, first]
            kept[arm.name] = table.loc[table["kept"], "row_id"]
    return tuple(
        _overlap(a, kept[a], b, kept[b])
        for a, b in combinations(kept, 2)
        if len(kept[a]) and len(kept[b])
    )


def _overlap(first: str, one: pd.Series, second: str, other: pd.Series) -> Overlap:
    both = int(one.isin(other).sum())
    return Overlap(
        first=first,
        second=second,
        of_smaller=both / min(len(one), len(other)),
        of_union=both / (len(one) + len(other) - both),
    )


def correlations(data: Collected) -> tuple[Correlation, ...]:
    """RMI with IFD and with log PPL(Q) for each model; RMI between the two models.

    Over the clean rows: damage that two scores both see would make them agree, and the paper's
    value, which stands beside one of them, is of a pool without planted damage.
    """
    if data.pool is None:
        return ()
    clean = data.pool.loc[data.pool["defect"].isna(), ["row_id"]]
    tables = {
        role: clean.merge(table[["row_id", *DRAWN]], on="row_id", validate="1:1")
        for role, table in data.scores.items()
    }
    found: list[Correlation] = []
    for role, table in tables.items():
        rmi, paper = (f"RMI ({role})", table["rmi"]), PAPER_RMI_IFD if role == "strong" else None
        found += _correlation(*rmi, f"IFD ({role})", table["ifd"], paper)
        found += _correlation(*rmi, f"log PPL(Q) ({role})", table["log_ppl_q"])
    if len(tables) == 2:
        both = tables["strong"].merge(tables["weak"], on="row_id", validate="1:1")
        found += _correlation("RMI (strong)", both["rmi_x"], "RMI (weak)", both["rmi_y"])
    return tuple(found)


def _correlation(
    first: str, x: pd.Series, second: str, y: pd.Series, paper: float | None = None
) -> list[Correlation]:
    rho = spearman(x.to_numpy(), y.to_numpy())
    return [Correlation(first=first, second=second, rho=rho, paper=paper)] if rho else []


def _counts(column: pd.Series) -> dict[str, int]:
    counts: Mapping[object, int] = column.dropna().value_counts().to_dict()
    return {str(k): int(v) for k, v in sorted(counts.items(), key=lambda item: str(item[0]))}


def _median(frame: pd.DataFrame, column: str) -> float | None:
    if column not in frame or not frame[column].notna().any():
        return None
    return float(frame[column].median())
