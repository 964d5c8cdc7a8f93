"""How much of the pool, and of each subset, the benchmarks' problems are found again in.

A row that only shares a function's name with a problem is counted but touches nothing: `add` is
anybody's name.
"""

import pandas as pd

from qaq.reporting import analysis
from qaq.reporting.analysis import ALL, Grids
from qaq.reporting.collect import Collected
from qaq.reporting.schema import Contamination, Untouched

POOL = "pool"
KINDS = ("exact", "prompt_run", "solution_run", "entry_point")
WEAK = "entry_point"


def contaminations(data: Collected) -> tuple[Contamination, ...]:
    """Of the pool and of each arm's subset, with every benchmark that was looked at."""
    if data.overlaps is None or data.pool is None:
        return ()
    subsets = {POOL: [data.pool["row_id"]]}
    for (arm, _), table in sorted(data.subsets.items()):
        subsets.setdefault(arm, []).append(table.loc[table["kept"], "row_id"])
    looked_at = data.manifests["overlaps"].config.get("suites", ())
    suites = sorted({*looked_at, *data.overlaps["benchmark"]})
    return tuple(
        _one(name, suite, data.overlaps[data.overlaps["benchmark"] == suite], kept)
        for suite in suites
        for name, kept in subsets.items()
    )


def _one(name: str, suite: str, overlaps: pd.DataFrame, seeds: list[pd.Series]) -> Contamination:
    """Means over the seeds of one arm."""
    found = [overlaps[overlaps["row_id"].isin(kept)] for kept in seeds]
    strong = [rows[rows["kind"] != WEAK] for rows in found]
    touched = [rows["row_id"].nunique() for rows in strong]
    sizes = [len(kept) for kept in seeds]
    return Contamination(
        subset=name,
        benchmark=suite,
        rows={
            kind: sum(r.loc[r["kind"] == kind, "row_id"].nunique() for r in found) / len(found)
            for kind in KINDS
        },
        touched=sum(touched) / len(touched),
        share=sum(touched) / max(sum(sizes), 1),
        tasks=sum(rows["task_id"].nunique() for rows in strong) / len(strong),
    )


def untouched(data: Collected, found: Grids) -> tuple[Untouched, ...]:
    """pass@1 of each arm without the problems that a row of the pool touches."""
    if data.overlaps is None:
        return ()
    strong = data.overlaps[data.overlaps["kind"] != WEAK]
    bad = {suite: set(rows["task_id"]) for suite, rows in strong.groupby("benchmark")}
    results = []
    for arm, by_suite in found.items():
        for suite in (s for s in by_suite if s != ALL and bad.get(s)):
            rows = data.outcomes[
                (data.outcomes["arm"] == arm) & (data.outcomes["benchmark"] == suite)
            ]
            kept = rows[~rows["task_id"].isin(bad[suite])]
            left_out = rows["task_id"].nunique() - kept["task_id"].nunique()
            if not left_out:
                continue
            one = None
            if len(kept):
                one = analysis.suite_result(suite, analysis.grid(kept, f"{arm} on {suite}"), kept)
            results.append(
                Untouched(
                    arm=arm,
                    suite=suite,
                    left_out=left_out,
                    base=None if one is None else one.base,
                    plus=None if one is None else one.plus,
                )
            )
    return tuple(results)
