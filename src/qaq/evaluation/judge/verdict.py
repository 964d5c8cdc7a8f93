"""What a judge says of one program: a check for each of the two sets of tests, and its record."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One set of tests: EvalPlus's status, why it failed, and whether more time could help.

    `suspect`: it passed beside a false expected value too, so that nothing was compared.
    """

    status: str
    kind: str = ""
    raisable: bool = False
    suspect: bool = False


def verdict(
    check: Callable[[str], Check], suspect: Callable[[Check, Check], bool], *, spare: bool
) -> dict[str, Any]:
    """The verdict by both sets of tests, `base` and `plus`, as JSON values.

    Args:
        check: runs the program on the set of that name.
        suspect: whether the two checks together say that nothing was compared.
        spare: leave out the second set where the first fails; `base` is null then.
    """
    started = time.monotonic()
    base = check("base")
    if spare and base.status != "pass":
        return {"base": None}
    plus = check("plus")
    failed = next((c for c in (base, plus) if c.status != "pass"), None)
    return {
        "base": base.status,
        "plus": plus.status,
        "failure": failed.kind if failed else None,
        "raisable": any(c.kind == "timeout" and c.raisable for c in (base, plus)),
        "suspect": suspect(base, plus),
        "seconds": round(time.monotonic() - started, 3),
    }
