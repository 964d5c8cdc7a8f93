"""The verdict in two sentences, written from the tests and from nothing else.

"better" and "worse" come only from `Comparison.finding`, which the corrected test decides.
"""

from collections.abc import Sequence

from qaq.reporting.schema import Comparison, Power

PRIMARY, BITS, DETAIL, TUNING = "pass@1", "bits per byte", "by suite", "against untuned"
NAMED = 3  # findings spelled out; the rest are counted


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
        them = "the arm" if arms == 1 else f"none of the {arms} arms"
        verb = "cannot" if arms == 1 else "can"
        against = " or ".join(sorted({c.baseline for c in primary}))
        return f"{head}, {them} {verb} be told apart from {against} in pass@1 (plus tests)."
    said = [
        f"{c.arm} is {c.finding} than {c.baseline} by {abs(c.difference) * 100:.1f} points "
        f"(95% interval {c.low * 100:+.1f} to {c.high * 100:+.1f}, corrected p {p_text(c.p_holm)})"
        for c in found[:NAMED]
    ]
    return f"{head}, {_join(said, len(found))} in pass@1 (plus tests){_rest(primary, found)}."


def _bits(bits: Sequence[Comparison]) -> str:
    found = _found(bits)
    if not found:
        return "Bits per byte of the reference solutions do not tell the arms apart either."
    said = [
        f"{c.arm} is {c.finding} than {c.baseline} ({c.difference:+.4f}, corrected p "
        f"{p_text(c.p_holm)})"
        for c in found[:NAMED]
    ]
    head = "By bits per byte of the reference solutions"
    return f"{head}, {_join(said, len(found))}{_rest(bits, found)}."


def _limit(powers: Sequence[Power]) -> str:
    measured = next((p for p in powers if not p.assumed), None)
    if measured is None:
        return ""
    if measured.difference is None:
        return "At this size no difference could have been found with 80% probability."
    return (
        f"A true difference below {measured.difference * 100:.1f} points would probably have been "
        f"missed (80% power, {measured.comparisons} comparisons)."
    )


def _found(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Findings, the surest first."""
    found = [c for c in comparisons if c.finding != "not told apart"]
    return sorted(found, key=lambda c: (c.p_holm, -abs(c.difference)))


def _seeds(comparisons: Sequence[Comparison]) -> str:
    counts = sorted({c.seeds for c in comparisons})
    if counts == [1]:
        return "1 seed, so the luck of training is not in the intervals"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _join(said: Sequence[str], total: int) -> str:
    more = [f"{total - len(said)} more such findings"] if total > len(said) else []
    parts = [*said, *more]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _rest(all_of_them: Sequence[Comparison], found: Sequence[Comparison]) -> str:
    rest = len(all_of_them) - len(found)
    if rest == 0:
        return ""
    noun = "comparison shows" if rest == 1 else "comparisons show"
    return f"; the other {rest} {noun} no difference that survives Holm's correction"


def p_text(p: float) -> str:
    """A p value as print has it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
