"""The verdict in a few sentences, written from the tests of the primary family and nothing else.

Its words come from `qaq.evidence.claims`: "better" and "worse" from the corrected tests,
"non-inferior" and "inferior" from the test against the margin.
"""

from collections.abc import Sequence

from qaq.evidence.claims import ALPHA, FOUND, NO_ASSAY, ONE_RUN
from qaq.evidence.power import Power, statement
from qaq.reporting.family import PRIMARY
from qaq.reporting.schema import ArmResult, Comparison, Loss

BITS, DETAIL, TUNING = "bits per byte", "by suite", "beside untuned"
UNTRAINED = "Nothing was trained or judged: this report shows what the scores and the subsets say."
NAMED = 2  # findings, and rules, spelled out; the rest are counted
TESTS = {"plus": "plus tests", "base": "base tests"}


def verdict(
    comparisons: Sequence[Comparison], loss: Loss | None, powers: Sequence[Power]
) -> tuple[str, ...]:
    """What pass@1 shows, which arms are as good as all rows, and what could have been missed."""
    primary = [c for c in comparisons if c.family == PRIMARY]
    if not primary:
        return ("No comparison was declared that could be made, so nothing is claimed.",)
    shut = next((c.reason for c in primary if c.reason.startswith(NO_ASSAY)), None)
    said = [f"N{shut[1:]}, so nothing is said of the rules."] if shut else []
    # Where the assay shows nothing, only what it shows itself can be a finding.
    if asked := _found(primary) if shut else primary:
        said.append(_passes(asked))
    if loss is not None:
        said.append(_as_good(loss))
    measured = next((p for p in powers if not p.assumed), None)
    if measured and len(_found(primary)) < len(primary):
        said.append(statement(measured, held=loss is not None))
    return tuple(said)


def what_was_kept(arms: Sequence[ArmResult]) -> tuple[str, ...]:
    """What a report without training says first."""
    kept = [
        f"{arm.name} keeps {arm.holdings.rows:,.0f} rows, {arm.holdings.share:.1%} of the pool."
        for arm in arms
        if arm.holdings and arm.method != "full"
    ]
    said = kept if len(kept) <= NAMED else [f"{len(kept)} rules chose from the pool."]
    return (*said, UNTRAINED)


def tag(
    comparisons: Sequence[Comparison], loss: Loss | None, powers: Sequence[Power]
) -> str | None:
    """The verdict in a word; None where nothing was compared.

    "underpowered" where nothing was found and nothing could have been: no arm has two runs, no
    difference is large enough for the test, or the run cannot show a loss.
    """
    primary = [c for c in comparisons if c.family == PRIMARY]
    if not primary:
        return None
    words = {c.finding for c in _found(primary)}
    if words:
        return "better and worse" if len(words) > 1 else words.pop()
    if loss is not None and any(one.shown == "non-inferior" for one in loss.arms):
        return "non-inferior"
    measured = next((p for p in powers if not p.assumed), None)
    weak = any(c.reason.endswith(ONE_RUN) or c.reason.startswith(NO_ASSAY) for c in primary)
    weak = weak or (loss is not None and not loss.sensitive)
    return (
        "underpowered" if weak or not measured or not measured.difference else "no difference shown"
    )


def _passes(primary: Sequence[Comparison]) -> str:
    found = _found(primary)
    by = f"by pass@1 ({TESTS[primary[0].metric]})"
    head = f"On {primary[0].tasks} tasks ({_seeds(primary)})"
    if not found:
        arms = len({c.arm for c in primary})
        them = "the arm does not differ" if arms == 1 else f"none of the {arms} arms differs"
        against = " or ".join(sorted({c.baseline for c in primary}))
        models = [c for c in primary if c.finding.endswith("these tasks")]
        only = f"; {len(models)} pairs of models differ on these tasks" if models else ""
        if any(c.reason.endswith(ONE_RUN) for c in primary):
            only += "; no arm has two runs, so that nothing can be found between rules"
        return f"{head}, {them} significantly from {against} {by}{only}."
    said = [
        f"{c.arm} is {c.finding} than {c.baseline} by {abs(c.difference) * 100:.1f} points"
        f"{_limits(c)}"
        for c in found[:NAMED]
    ]
    return f"{head}, {by}, {' and '.join(said)}{_rest(primary, found)}."


def _limits(c: Comparison) -> str:
    if c.low is None or c.high is None:
        return ""
    return f" (interval {points(c.low)} to {points(c.high)})"


def points(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{share * 100:+.1f}".replace("-", "−")


def _as_good(loss: Loss) -> str:
    baseline = loss.arms[0].baseline
    if not loss.sensitive or loss.margin is None:
        return (
            f"No assay sensitivity: {baseline} is not shown to gain over the untuned model, so "
            "that no arm can be called as good as it."
        )
    how = "declared" if loss.declared else "half of what training on all rows is shown to gain"
    groups = {
        word: [a.arm for a in loss.arms if a.shown == word] for word in ("non-inferior", "inferior")
    }
    said = "; ".join(f"{word}: {', '.join(arms)}" for word, arms in groups.items() if arms)
    margin = f"up to {loss.margin * 100:.1f} points ({how})"
    rest = [a.arm for a in loss.arms if a.shown == "not shown"]
    more = f"not shown: {', '.join(rest)}" if rest else ""
    return f"Against {baseline}, {margin}: {'; '.join(s for s in (said, more) if s)}."


def _found(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Findings, the surest first."""
    found = [c for c in comparisons if c.finding in FOUND]
    return sorted(found, key=lambda c: (c.p_holm or 0.0, -abs(c.difference)))


def _seeds(comparisons: Sequence[Comparison]) -> str:
    counts = sorted({n for c in comparisons for n in c.seeds})
    if counts == [1]:
        return "1 run of each arm"
    return f"{counts[0]} runs" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} runs"


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
    if p < 0.001:
        return "< 0.001"
    digits = 4 if f"{p:.3f}" == f"{ALPHA:.3f}" else 3 if p < 0.1 else 2  # on which side it lies
    return f"{p:.{digits}f}"
