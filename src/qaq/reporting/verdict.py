"""The verdict in two sentences, written from the tests and from nothing else.

"better" and "worse" come only from `Comparison.finding`, which the corrected test decides.
"""

from collections.abc import Sequence

from qaq.reporting.power import statement
from qaq.reporting.schema import Comparison, Power

PRIMARY, BITS, DETAIL, TUNING = "pass@1", "bits per byte", "by suite", "against untuned"
UNTRAINED = "Nothing was trained or judged: this report shows what the scores and the subsets say."
NAMED = 2  # findings spelled out; the rest are counted


def verdict(comparisons: Sequence[Comparison], powers: Sequence[Power]) -> tuple[str, ...]:
    """Two sentences: what pass@1 shows, and what bits per byte (or the power) adds."""
    primary = [c for c in comparisons if c.family == PRIMARY]
    if not primary:
        return ("There is no arm to compare with full or random, so nothing is claimed.",)
    first = _passes(primary)
    bits = [c for c in comparisons if c.family == BITS]
    limit = _limit(powers)
    second = _bits(bits) if bits else limit
    if bits and not _found(primary) and limit:
        first = f"{first.rstrip('.')}; {limit[0].lower()}{limit[1:]}"
    return tuple(s for s in (first, second) if s)


def _passes(primary: Sequence[Comparison]) -> str:
    found = _found(primary)
    head = f"On {primary[0].tasks} tasks ({_seeds(primary)})"
    if not found:
        arms = len({c.arm for c in primary})
        them = "the arm cannot" if arms == 1 else f"none of the {arms} arms can"
        against = " or ".join(sorted({c.baseline for c in primary}))
        return f"{head}, {them} be told apart from {against} by pass@1 (plus tests)."
    said = [
        f"{c.arm} is {c.finding} than {c.baseline} by {abs(c.difference) * 100:.1f} points "
        f"(95% interval {_points(c.low)} to {_points(c.high)})"
        for c in found[:NAMED]
    ]
    return f"{head}, by pass@1 (plus tests), {' and '.join(said)}{_rest(primary, found)}."


def _points(share: float) -> str:
    return f"{share * 100:+.1f}".replace("-", "−")


def _bits(bits: Sequence[Comparison]) -> str:
    found = _found(bits)
    if not found:
        return "Bits per byte of the reference solutions do not tell the arms apart either."
    each = ", one adapter each" if all(c.seeds == 1 for c in bits) else ""
    head = f"By bits per byte of the reference solutions{each}"
    if len(found) > NAMED:
        return f"{head}, after Holm's correction: {_grouped(bits, found)}."
    said = [
        f"{c.arm} is {c.finding} than {c.baseline} ({c.difference:+.4f})".replace("-", "−")
        for c in found
    ]
    return f"{head}, {' and '.join(said)}{_rest(bits, found)}."


def _grouped(all_of_them: Sequence[Comparison], found: Sequence[Comparison]) -> str:
    """All findings by what they are compared with, in the order of the arms."""
    single = {c.arm for c in all_of_them if c.seeds == 1}
    starred = single if any(c.seeds > 1 for c in all_of_them) else set()
    groups: dict[str, list[str]] = {}
    for c in all_of_them:
        said = f"{c.finding} than" if c in found else "not told apart from"
        groups.setdefault(f"{said} {c.baseline}", []).append(c.arm + "*" * (c.arm in starred))
    listed = [f"{said}: {', '.join(arms)}" for said, arms in groups.items()]
    return "; ".join(listed) + (" (* one adapter, not several seeds)" if starred else "")


def _limit(powers: Sequence[Power]) -> str:
    measured = next((p for p in powers if not p.assumed), None)
    return statement(measured) if measured else ""


def _found(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Findings, the surest first."""
    found = [c for c in comparisons if c.finding != "not told apart"]
    return sorted(found, key=lambda c: (c.p_holm, -abs(c.difference)))


def _seeds(comparisons: Sequence[Comparison]) -> str:
    counts = sorted({c.seeds for c in comparisons})
    if counts == [1]:
        return "1 seed, so the luck of training is not in the intervals"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _rest(all_of_them: Sequence[Comparison], found: Sequence[Comparison]) -> str:
    """What the sentence does not name: further findings, and comparisons without one."""
    more, none = len(found) - NAMED, len(all_of_them) - len(found)
    held = f"{more} more {'difference holds' if more == 1 else 'differences hold'}"
    shown = f"{none} {'comparison shows' if none == 1 else 'comparisons show'}"
    if more <= 0 and none == 0:
        return ""
    if more <= 0:
        return f"; {shown} no difference that survives Holm's correction"
    return f"; {held} after Holm's correction" + (f" and {shown} none" if none else "")


def p_text(p: float) -> str:
    """A p value as print has it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
