"""What each metric finds of the planted noise, what each rule keeps, and the paper's claims."""

from collections.abc import Iterator

import numpy as np

from qaq.evidence.estimate import Estimate
from qaq.page.names import DEFECTS, order_defects
from qaq.page.page import Section
from qaq.page.tables import EMPTY, Cell, Column, Table, listing, number, percent, text, worded
from qaq.selection.ranks import Mask
from qaq.studies import figures
from qaq.studies.beside import (
    AGAINST,
    Differences,
    area_table,
    best_model_free,
    by_kind,
    damaged_rows,
    difference_table,
    kept_differences,
    model_free_table,
)
from qaq.studies.data import StudyData, difference, difference_of_ifd, metric, metric_titles
from qaq.studies.results import PROVENANCE, Findings, said
from qaq.studies.retention import CLEAN, DAMAGED, Kept, rates, retention


def study(data: StudyData) -> Findings:
    """Tables, figures and the paper's claims on this pool."""
    kept = list(retention(data))
    planted = float(data.damaged.mean())
    differences = kept_differences(data, kept, planted)
    claims = list(_claims(data, differences))
    tables = [
        _claim_table(claims),
        *(separation_table(data, scorer) for scorer in data.scorers),
        model_free_table(data),
        disagreement_table(data),
        difference_table(data, differences),
        _kept_table(data, kept, planted),
        _purity_table(data, kept, planted),
    ]
    sections = (
        Section("claims", "What the paper says, and this pool", ("claims",)),
        Section(
            "scores",
            "What each score finds",
            (
                "separation_free",
                *(f"separation_{s}" for s in data.scorers),
                "separation_both",
                "figure:roc",
            ),
        ),
        Section(
            "rules", "What each rule keeps", ("kept", "kept_differences", "figure:kept", "purity")
        ),
        Section("map", "The scores", ("figure:rmi_map",)),
        PROVENANCE,
    )
    return Findings(
        sentences=tuple(_sentences(claims)),
        terminal=("claims",),
        sections=sections,
        tables=tuple(tables),
        figures={
            "roc": figures.roc(data),
            "kept": figures.kept_over_ratio(kept, planted),
            **({"rmi_map": drawn} if (drawn := figures.rmi_map(data)) else {}),
        },
        hidden=(_all_kept_table(kept),),
        facts=(
            ("rows", f"{len(data.defect):,}"),
            ("damaged", f"{planted:.0%}"),
            ("kinds of damage", str(len(data.kinds))),
            ("rules", str(len(data.spec.arms))),
        ),
    )


def separation_table(data: StudyData, scorer: str) -> Table:
    """AUROC of every metric of one model against every kind of damage."""
    table = data.of(scorer)
    scores = {title: metric(table, n) for n, title in metric_titles().items() if n != "length_q"}
    if scorer == "strong":
        scores |= data.asked
    note = (
        "AUROC: the chance that a damaged row scores above a clean one, with its 95% "
        "interval. Near 1 the defect lies at the high end, near 0 at the low end; at 0.5 the score "
        f"is blind to it. {AGAINST} The table without a model stands beside it."
    )
    heading = f"separation_{scorer}", f"What each score finds, {scorer} model", note
    return area_table(data, heading, scores, (damaged_rows(data),))


def disagreement_table(data: StudyData) -> Table:
    """AUROC of the two models' difference and sum of ranks."""
    strong, weak = data.of("strong"), data.of("weak")
    diff = difference(strong, weak)
    scores = {
        "Diff": diff,
        "size of Diff": np.abs(diff),
        "Sum": metric(strong, "rmi_rank") + metric(weak, "rmi_rank"),
        "Diff of IFD": difference_of_ifd(strong, weak),
    }
    note = "AUROC of the strong model's rank minus (plus) the weak one's; 0.5 = blind."
    return area_table(data, ("separation_both", "What the two models find together", note), scores)


Claim = tuple[str, str, str, str]


def _claims(data: StudyData, differences: Differences) -> Iterator[Claim]:
    """The paper's claims that this pool can test: claim, measured, other scores, verdict."""
    strong = data.of("strong")
    rank, ifd = metric(strong, "rmi_rank"), metric(strong, "ifd_loss_ratio")
    for kind, end in (
        ("swapped_answer", "low"),
        ("neighbour_answer", "low"),
        ("invented_terms", "low"),
        ("hallucinated", "low"),
        ("echo", "high"),
        ("paraphrase_echo", "high"),
    ):
        if kind not in data.kinds:
            continue
        found = data.area(rank if end == "high" else -rank, kind)
        if found is not None:
            claim = f"{end.capitalize()} RMI marks rows with {DEFECTS[kind]}"
            beside = {"IFD": ifd, **data.asked}
            areas = [(name, data.area(one, kind)) for name, one in beside.items()]
            others = [f"{name} {max(one.value, 1 - one.value):.2f}" for name, one in areas if one]
            others += [f"{name} {value:.2f}" for name, value in best_model_free(data, kind)]
            yield claim, f"AUROC {said(found)}", "; ".join(others), _side(found, 0.5)
    spread = spread_ratio(metric(strong, "rmi"), metric(strong, "log_perplexity_q"), data.clean)
    if spread is not None:
        claim = "RMI spreads more where log PPL(Q) is large"
        measured = f"{said(spread)} times as wide in the upper half as in the lower"
        yield claim, measured, "", _side(spread, 1.0)
    for arm in ("rmi_band", "diff_high"):
        if arm in differences:
            yield f"{arm} leaves damaged rows out", *by_kind(differences[arm])


def _sentences(claims: list[Claim]) -> Iterator[str]:
    for verdict, words in (
        ("holds", "Claims of the paper that hold on this pool"),
        ("does not hold", "Claims that do not hold on it"),
        ("differs by kind", "Claims that hold for some kinds of damage and not for others"),
        ("not shown", "Claims that it does not show"),
    ):
        mine = [claim for claim, _, _, found in claims if found == verdict]
        if mine:
            yield f"{words}: {'; '.join(mine)}."


def _own(kept: Kept, data: StudyData) -> bool:
    return kept.ratio in (None, data.spec.ratio)


def _side(estimate: Estimate, blind: float) -> str:
    """Where the interval lies: above what a blind score would have, below, or across."""
    if estimate.low <= blind <= estimate.high:
        return "not shown"
    return "holds" if estimate.low > blind else "does not hold"


def spread_ratio(rmi: np.ndarray, question: np.ndarray, rows: Mask) -> Estimate | None:
    """Interquartile range of RMI in the upper half of log PPL(Q) over that in the lower half."""
    known = rows & ~np.isnan(rmi) & ~np.isnan(question)
    values, place = rmi[known], question[known]
    if len(values) < 20:
        return None

    def ratio(take: np.ndarray) -> float:
        value, at = values[take], place[take]
        middle = np.median(at)
        halves = value[at > middle], value[at <= middle]
        upper, lower = (np.subtract(*np.quantile(half, [0.75, 0.25])) for half in halves)
        return float(upper / lower) if lower > 0 else float("nan")

    rng = np.random.default_rng(0)
    n = len(values)
    drawn = np.array([ratio(rng.integers(0, n, n)) for _ in range(1000)])
    value = ratio(np.arange(n))
    if not np.isfinite(value) or not np.isfinite(drawn).all():
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high), n=n)


def _claim_table(claims: list[Claim]) -> Table:
    titles = ("the paper says", "measured", "other scores", "on this pool")
    columns = tuple(Column(t, kind="text") for t in titles)
    rows = tuple(
        (text(a), text(b), text(c), text(d, strong=d != "not shown")) for a, b, c, d in claims
    )
    note = (
        "An AUROC or a ratio decides where its 95% interval lies on one side. Beside it the AUROC "
        "of IFD and the best one without a model, at whichever end. A rule is judged by kind of "
        "damage, never over a mix of kinds, by Fisher's exact test with Holm's correction. Which "
        "data trains the better model is another question."
    )
    return Table("claims", "Claims that planted noise can test", note, columns, rows)


def _kept_table(data: StudyData, kept: list[Kept], planted: float) -> Table:
    """Shares kept at the experiment's ratio, as planted."""
    groups = [CLEAN, DAMAGED, *order_defects(set(data.kinds))]
    cells: dict[tuple[str, str], Cell] = {
        (k.arm, k.group): percent(k.share, 0) for k in kept if k.rate == planted and _own(k, data)
    }
    columns = [Column("rule", kind="text")]
    columns += [Column(DEFECTS.get(g, g), "kept (%)") for g in groups]
    arms = [arm for arm in data.spec.arms if (arm, CLEAN) in cells]
    rows = tuple((text(arm), *(cells.get((arm, g), EMPTY) for g in groups)) for arm in arms)
    note = (
        f"At ratio {data.spec.ratio:g}, or the rule's own size. A rule that is blind to a defect "
        "keeps as much of it as of the clean rows."
    )
    return Table("kept", "What each rule keeps", note, tuple(columns), rows)


def _purity_table(data: StudyData, kept: list[Kept], planted: float) -> Table:
    """Damaged rows in what each rule keeps, for every rate."""
    shown = [*rates(data), planted]
    cells = {
        (k.arm, k.rate): percent(k.of_kept, 1)
        for k in kept
        if k.group == DAMAGED and _own(k, data) and k.of_kept is not None
    }
    columns = [Column("rule", kind="text")]
    columns += [Column(f"{rate:.0%}", "damaged rows in the pool") for rate in shown]
    arms = [arm for arm in data.spec.arms if (arm, planted) in cells]
    rows = tuple((text(arm), *(cells.get((arm, rate), EMPTY) for rate in shown)) for arm in arms)
    note = (
        "Percent of the kept rows that are damaged; a blind rule has what the pool has. Means over "
        f"{data.spec.study.draws} draws of the damaged rows, with the interval of a single one."
    )
    return Table("purity", "Damaged rows among the kept, by noise rate", note, tuple(columns), rows)


def _all_kept_table(kept: list[Kept]) -> Table:
    return listing(
        "kept_all",
        "Every rule, ratio, rate and kind of row",
        "",
        kept,
        worded("rule", lambda k: k.arm),
        (Column("ratio"), lambda k: number(k.ratio, 2)),
        (Column("noise rate"), lambda k: number(k.rate, 3)),
        worded("rows", lambda k: k.group),
        (Column("kept"), lambda k: percent(k.share)),
        (Column("of the kept"), lambda k: percent(k.of_kept)),
    )
