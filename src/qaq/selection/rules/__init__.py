"""The rules, one file each, and the one function that applies any of them.

A file here (or one of the user's, see `qaq.host.plugins`) holds a rule's parameters and, under the
decorator `rule`, its function. The same inputs give the same rows, on any platform.
"""

import numpy as np

from qaq.host.errors import UserError
from qaq.selection.config import RULES, Selector
from qaq.selection.decision import Decision, Size, TooFewRows
from qaq.selection.pool import Pool
from qaq.store.tables import SPANS


def select(
    config: Selector,
    pool: Pool,
    *,
    ratio: float | None = None,
    seed: int | None = None,
    count: int | None = None,
) -> Decision:
    """Apply a rule to a pool; a `count` of rows comes before the ratio.

    Raises:
        TooFewRows: more rows are asked for than can be selected, or the rule keeps none.
        UserError: whatever else the rule refuses.
    """
    try:
        decision = RULES[config.method].apply(config, pool, Size(ratio, count=count), seed)
    except UserError as error:
        error.args = (f"{error}{_spans_not_scored(pool)}",)
        raise
    if not decision.kept.any():
        asked = "" if ratio is None else f" (ratio {ratio:g})"
        raise TooFewRows(
            f"{config.method}{asked} keeps none of {len(pool)} rows, "
            f"{decision.selectable} of which can be selected; ask for more"
            + _spans_not_scored(pool)
        )
    return decision


def _spans_not_scored(pool: Pool) -> str:
    """What to add to a refusal where a framing that does not score every span may be its cause."""
    tables = pool.scores.values()
    absent = [
        span
        for span in SPANS
        if any(f"nll_{span}" in table and np.isnan(table[f"nll_{span}"]).all() for table in tables)
    ]
    if not absent:
        return ""
    return (
        f" (no row has a score of {', '.join(absent)}: if the rule reads that, take a framing "
        "that scores it, as chat does)"
    )
