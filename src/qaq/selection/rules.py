"""All rules by name, and the one function that applies any of them.

A rule is a function of its config, the pool, the size asked for and the seed; it returns what it
decided for every row. The same inputs give the same rows, on any platform.
"""

from collections.abc import Callable
from typing import Any

from qaq.errors import UserError
from qaq.selection.basic import full, longest, perplexity, random
from qaq.selection.config import SelectorConfig
from qaq.selection.decision import Decision, Size
from qaq.selection.disagreement import disagreement
from qaq.selection.ifd import ifd_cherry, ifd_superfiltering
from qaq.selection.pool import Pool
from qaq.selection.rmi import rmi_band, rmi_extreme

RULES: dict[str, Callable[[Any, Pool, Size, int | None], Decision]] = {
    "full": full,
    "random": random,
    "longest": longest,
    "perplexity_high": perplexity,
    "perplexity_middle": perplexity,
    "ifd_cherry": ifd_cherry,
    "ifd_superfiltering": ifd_superfiltering,
    "rmi_top": rmi_extreme,
    "rmi_bottom": rmi_extreme,
    "rmi_band": rmi_band,
    "diff_high": disagreement,
    "diff_low": disagreement,
    "sum_high": disagreement,
    "sum_low": disagreement,
}


def select(
    config: SelectorConfig, pool: Pool, *, ratio: float | None = None, seed: int | None = None
) -> Decision:
    """Apply a rule to a pool.

    Raises:
        UserError: more rows are asked for than can be selected, or the rule keeps none.
    """
    decision = RULES[config.method](config, pool, Size(ratio), seed)
    if not decision.kept.any():
        asked = "" if ratio is None else f" (ratio {ratio:g})"
        raise UserError(
            f"{config.method}{asked} keeps none of {len(pool)} rows, "
            f"{decision.selectable} of which can be selected; ask for more"
        )
    return decision
