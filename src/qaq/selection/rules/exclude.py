"""Leave contaminated rows and near-duplicates out before a rule chooses."""

from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from qaq.selection.config import FORBID, OVERLAP_KINDS, RULES, LeaveOut, OverlapKind, rule
from qaq.selection.decision import Decision, Size, nested
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import Mask


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Exclude(LeaveOut):
    """Leave rows out before a rule chooses; the ratio counts the rows that are left.

    `contaminated`: rows that overlap with a benchmark in one of the ways named in `kinds` (see
    `qaq.data.contamination`; a shared function name alone is weak evidence, so it is not among
    them unless asked for).
    `near_duplicates`: rows whose word 5-grams overlap with an earlier row's (by row_id) by at
    least `jaccard`.
    """

    method: Literal["exclude"] = "exclude"
    contaminated: bool = False
    kinds: tuple[OverlapKind, ...] = OVERLAP_KINDS
    near_duplicates: bool = False
    jaccard: Annotated[float, Field(ge=0.6, le=1)] = 0.8

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.contaminated or self.near_duplicates):
            raise ValueError("nothing to exclude; set contaminated or near_duplicates to true")
        return self

    @property
    def reads_texts(self) -> bool:
        """Near-duplicates are found in the texts."""
        return self.near_duplicates

    @property
    def needs(self) -> tuple[str, ...]:
        """What the rule reads, and the overlaps with the benchmarks."""
        return (*self.rule.needs, *(("overlaps",) if self.contaminated else ()))


@rule(Exclude)
def exclude(config: Exclude, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Leave out contaminated rows, then near-duplicates among the rest, then apply the rule."""
    labels = ["excluded: near-duplicate of a row with a lower id"]
    label = np.full(len(pool), -1, np.int32)
    if config.contaminated:
        reasons = given(pool.barred, "a contamination table").combine_chunks()
        encoded = reasons.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        label = np.where(codes < 0, -1, codes + 1).astype(np.int32)
        labels += [f"excluded: {text}" for text in encoded.dictionary.to_pylist()]
    if config.near_duplicates:
        label[_repeats(pool, label < 0, config.jaccard)] = 0
    rest = label < 0
    decision = RULES[config.rule.method].apply(config.rule, pool.take(rest), size, seed)
    return nested(rest, decision, labels, label)


def _repeats(pool: Pool, among: Mask, jaccard: float) -> npt.NDArray[np.int64]:
    """Indices of the rows that repeat an earlier one of those in `among`."""
    # here, since the compiler takes half a second to import
    from qaq.selection.duplicates import near_duplicates
    from qaq.selection.repeats import NOT_DUPLICATE

    texts = given(pool.texts, "texts")
    return np.flatnonzero(near_duplicates(texts, among, jaccard) != NOT_DUPLICATE)
