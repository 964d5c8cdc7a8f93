"""The oracle of a damaged pool: what a rule could gain if it saw every damaged row."""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.host.errors import UserError
from qaq.selection.config import FORBID, RULES, LeaveOut, rule
from qaq.selection.decision import Decision, Size, nested
from qaq.selection.pool import Pool, given


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Undamaged(LeaveOut):
    """Leave out the rows that were damaged on purpose, then let a rule choose.

    No rule for use: it reads the truth (`defect` of the pairs), which exists only where `noise`
    planted it. It bounds from above what any rule can gain. The ratio counts the rows that
    are left.
    """

    method: Literal["undamaged"] = "undamaged"
    reads_truth: ClassVar[bool] = True


@rule(Undamaged)
def undamaged(config: Undamaged, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Apply the rule to the rows without planted damage.

    Raises:
        UserError: nothing was planted in this pool.
    """
    encoded = given(pool.defects, "its defects").combine_chunks().dictionary_encode()
    if len(encoded.dictionary) == 0:
        raise UserError(
            "no row of this pool was damaged on purpose, so there is nothing that an oracle could "
            "know; add noise=planted, or leave this arm out"
        )
    label = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    rest = label < 0
    decision = RULES[config.rule.method].apply(config.rule, pool.take(rest), size, seed)
    labels = [f"excluded: {kind}" for kind in encoded.dictionary.to_pylist()]
    return nested(rest, decision, labels, label)
