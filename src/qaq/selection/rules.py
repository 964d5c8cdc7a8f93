"""All rules by name, and the one function that applies any of them.

A rule is a function of its config, the pool, the size asked for and the seed; it returns what it
decided for every row. The same inputs give the same rows, on any platform.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from qaq.host.errors import UserError
from qaq.selection.basic import full, longest, perplexity, random
from qaq.selection.config import Exclude, SelectorConfig, Then
from qaq.selection.decision import Decision, Size, nested
from qaq.selection.disagreement import disagreement
from qaq.selection.ifd import ifd_cherry, ifd_superfiltering
from qaq.selection.pool import Pool
from qaq.selection.ranks import Mask
from qaq.selection.rds import rds_plus
from qaq.selection.rmi import rmi_band, rmi_extreme
from qaq.selection.scar import scar

T = TypeVar("T")


def then(config: Then, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Filter by one rule, then choose by another; the second sees only what the first kept."""
    first = RULES[config.filter.method](config.filter, pool, Size(config.filter_ratio), seed)
    size = Size(size.ratio, of=first.selectable if config.share_of == "all" else None)
    second = RULES[config.rank.method](config.rank, pool.take(first.kept), size, seed)
    labels = [_filtered(text, config.filter.method) for text in first.labels]
    return nested(first.kept, second, labels, first.label)


def exclude(config: Exclude, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Leave out contaminated rows, then near-duplicates among the rest, then apply the rule."""
    labels = ["excluded: near-duplicate of a row with a lower id"]
    label = np.full(len(pool), -1, np.int32)
    if config.contaminated:
        reasons = _required(pool.barred, "a contamination table").combine_chunks()
        encoded = reasons.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        label = np.where(codes < 0, -1, codes + 1).astype(np.int32)
        labels += [f"excluded: {text}" for text in encoded.dictionary.to_pylist()]
    if config.near_duplicates:
        label[_repeats(pool, label < 0, config.jaccard)] = 0
    rest = label < 0
    decision = RULES[config.rule.method](config.rule, pool.take(rest), size, seed)
    return nested(rest, decision, labels, label)


def _filtered(label: str, method: str) -> str:
    """A filter's reason as it appears in the composed table."""
    return label if label.startswith("no score") else f"filtered by {method}: {label}"


def _repeats(pool: Pool, among: Mask, jaccard: float) -> npt.NDArray[np.int64]:
    """Indices of the rows that repeat an earlier one of those in `among`."""
    # here, since the compiler takes half a second to import
    from qaq.selection.duplicates import near_duplicates
    from qaq.selection.repeats import NOT_DUPLICATE

    texts = _required(pool.texts, "texts")
    return np.flatnonzero(near_duplicates(texts, among, jaccard) != NOT_DUPLICATE)


def _required(value: T | None, what: str) -> T:
    if value is None:
        raise ValueError(f"this rule needs a pool with {what}")
    return value


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
    "rds_plus": rds_plus,
    "scar": scar,
    "then": then,
    "exclude": exclude,
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
