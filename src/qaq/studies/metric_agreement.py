"""How far the metrics, the layouts and the models agree on the same clean rows.

Rows with a planted defect take no part: they would make any two metrics that see them agree.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from qaq.evidence.estimate import Estimate, share
from qaq.evidence.ranking import PAPER_RMI_IFD, spearman
from qaq.page.drawing import Drawn
from qaq.page.figures import triangle
from qaq.page.page import Section
from qaq.page.tables import Table
from qaq.scoring.metrics import titles
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, Mask
from qaq.selection.rules.disagreement import Disagreement
from qaq.selection.rules.rmi import RmiBand
from qaq.studies import figures
from qaq.studies.agreement_tables import (
    PAPER_TUNED,
    Named,
    Shared,
    Stable,
    matrix_table,
    named_table,
    stability_table,
    subset_table,
)
from qaq.studies.data import StudyData, difference, difference_of_ifd, metric, subset
from qaq.studies.results import (
    PROVENANCE,
    Findings,
    chosen,
    overlap,
    said,
    said_percent,
    top,
)

PAPER_OVERLAP = 0.1385  # claim 5; of what, the paper's notes do not say


def study(data: StudyData) -> Findings:
    """Matrices, the named correlations and overlaps beside the paper's, and stability."""
    named, subsets = list(correlations(data)), list(subset_overlaps(data))
    tuned = list(stability(data))
    tables = [named_table(named), subset_table(subsets)]
    tables += [stability_table(tuned)] if tuned else []
    drawn: dict[str, Drawn] = {"tuned": figures.before_after(data)} if tuned else {}
    length = metric(data.of("strong"), "length_q")[data.clean]
    for ending, columns in (("", by_metric(data)), ("_layouts", by_layout(data))):
        if columns:
            for table, figure in _matrices(columns, ending, data.spec.ratio, length):
                tables.append(table)
                drawn[table.name] = figure
    drawn["length"] = figures.over_length(data)
    sections = (
        Section("tuned", "Before and after fine-tuning", ("tuned", "figure:tuned")),
        Section("paper", "Beside the paper", ("named", "subsets")),
        Section(
            "metrics",
            "Metrics and models",
            ("figure:spearman", "figure:length", "figure:partial", "figure:overlap"),
        ),
        Section("layouts", "Layouts", ("figure:spearman_layouts", "figure:overlap_layouts")),
        PROVENANCE,
    )
    return Findings(
        sentences=tuple(_sentences(data, named, subsets, tuned)),
        terminal=("tuned",) if tuned else ("named", "subsets"),
        sections=sections,
        tables=tuple(tables),
        figures=drawn,
        facts=(
            ("clean rows", f"{int(data.clean.sum()):,}"),
            ("score tables", str(len(data.scores))),
        ),
    )


def by_metric(data: StudyData) -> dict[str, FloatArray]:
    """Every metric of both models in the experiment's own layout, Ask-LLM, and what needs no model.

    Over the clean rows.
    """
    scores = {
        f"{title} · {scorer}": metric(data.of(scorer), name)[data.clean]
        for scorer in ("strong", "weak")
        for name, title in titles().items()
    }
    strong, weak = (subset(data.of(scorer), data.clean) for scorer in ("strong", "weak"))
    scores |= {"Diff": difference(strong, weak), "Diff of IFD": difference_of_ifd(strong, weak)}
    beside = {**data.asked, **data.free}
    return scores | {name: values[data.clean] for name, values in beside.items()}


def by_layout(data: StudyData) -> dict[str, FloatArray]:
    """RMI and IFD of both models in every layout that has them, over the clean rows.

    Empty with one layout. The authors' layout scores no answer, Cherry_LLM's no question.
    """
    columns = {
        f"{titles()[name]} · {scorer} · {framing}": metric(data.of(scorer, framing), name)[
            data.clean
        ]
        for name in ("rmi", "ifd_loss_ratio")
        for scorer in ("strong", "weak")
        for framing in data.framings
        if len(data.framings) > 1
    }
    return {name: values for name, values in columns.items() if not np.isnan(values).all()}


def _matrices(
    columns: dict[str, FloatArray], ending: str, ratio: float, length: FloatArray
) -> Iterator[tuple[Table, Drawn]]:
    """Spearman's correlation, the same given `length`, and the overlap of the top share.

    Each is a table and a figure.
    """
    partial_title = f"Partial Spearman correlation of every two scores, {GIVEN}"
    for name, compare, title in (
        ("spearman", spearman, "Spearman correlation of every two scores"),
        ("partial", lambda a, b: spearman(a, b, length), partial_title),
        (
            "overlap",
            lambda a, b: top_overlap(a, b, ratio),
            f"Shared rows of the top {ratio:.0%} by every two scores",
        ),
    ):
        names, values = matrix(columns, compare)
        yield (
            matrix_table(name + ending, title, names, values),
            triangle(names, values, f"{title}."),
        )


def matrix(
    columns: dict[str, FloatArray],
    compare: Callable[[FloatArray, FloatArray], Estimate | None] = spearman,
) -> tuple[list[str], FloatArray]:
    """What every two columns have in common: Spearman's correlation, or another measure.

    A column of one value orders nothing and is left out.
    """
    names = [
        name for name, values in columns.items() if np.unique(values[~np.isnan(values)]).size > 1
    ]
    values = np.eye(len(names))
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            found = compare(columns[one], columns[other])
            values[i, j] = values[j, i] = np.nan if found is None else found.value
    return names, values


def top_overlap(first: FloatArray, second: FloatArray, ratio: float) -> Estimate | None:
    """Of the top `ratio` by one score, what is in the top by the other; over rows with both."""
    both = ~np.isnan(first) & ~np.isnan(second)
    one, other = top(first[both], ratio), top(second[both], ratio)
    return share(int((one & other).sum()), int(one.sum()))


LENGTH, GIVEN = "question length", "question length given"


def correlations(data: StudyData) -> Iterator[Named]:
    """The correlations that have a name: what, with what, Spearman, the paper's value."""

    def pair(
        first: str, a: FloatArray, second: str, *others: FloatArray, paper: float | None = None
    ) -> Iterator[Named]:
        rho = spearman(a[data.clean], *(one[data.clean] for one in others))
        if rho is not None:
            yield first, second, rho, paper

    for (scorer, framing), table in data.scores.items():
        label = f"{scorer}, {framing}"
        one = metric(table, "rmi")
        own = framing == data.spec.framing
        for other in ("ifd_loss_ratio", "ifd_ppl_ratio"):
            known = own and scorer == "strong" and other == "ifd_loss_ratio"
            paper = PAPER_RMI_IFD if known else None
            title = f"{titles()[other]} ({label})"
            yield from pair(f"RMI ({label})", one, title, metric(table, other), paper=paper)
        if own:
            question = metric(table, "log_perplexity_q")
            length, ifd = metric(table, "length_q"), metric(table, "ifd_loss_ratio")
            yield from pair(f"RMI ({label})", one, f"log PPL(Q) ({label})", question)
            yield from pair(f"RMI ({label})", one, LENGTH, length)
            yield from pair(f"IFD ({label})", ifd, LENGTH, length)
            yield from pair(f"RMI ({label})", one, f"IFD ({label}), {GIVEN}", ifd, length)
            continue
        base = data.of(scorer)
        for name in ("rmi", "ifd_loss_ratio"):
            short = titles()[name]
            first = f"{short} ({scorer}, {data.spec.framing})"
            a, b = metric(base, name), metric(table, name)
            yield from pair(first, a, f"{short} ({label})", b)
        if framing.startswith(("cherry", "superfiltering")):
            title = f"{titles()['ifd_loss_ratio']} ({label})"
            a, b = metric(base, "rmi"), metric(table, "ifd_loss_ratio")
            yield from pair(f"RMI ({scorer}, {data.spec.framing})", a, title, b)
    a, b = metric(data.of("strong"), "rmi"), metric(data.of("weak"), "rmi")
    yield from pair("RMI (strong)", a, "RMI (weak)", b)


def subset_overlaps(data: StudyData) -> Iterator[Shared]:
    """Diff-High and Sum-High under every reading of them: rules, shares, the paper's value."""
    pool = clean_pool(data)
    for ranks in ("stratified", "global"):
        for cut in ("share", "threshold"):
            rules = [
                Disagreement(method=method, ranks=ranks, cut=cut)
                for method in ("diff_high", "sum_high")
            ]
            choices = [chosen(pool, rule, data.spec.ratio) for rule in rules]
            everything = np.ones(int(data.clean.sum()), np.bool_)
            first, second = (choose(everything) for choose in choices)
            both = overlap(choices[0], choices[1], everything)
            if both is None:
                continue
            union = float((first & second).sum() / (first | second).sum())
            name = f"{ranks} ranks, cut by {cut}"
            yield name, f"{int(first.sum())} and {int(second.sum())}", both, union, PAPER_OVERLAP


def clean_pool(data: StudyData) -> Pool:
    """The clean rows with both models' scores in the experiment's own framing."""
    return data.pool(Disagreement(method="diff_high")).take(data.clean)


def stability(data: StudyData) -> Iterator[Stable]:
    """RMI before and after fine-tuning: Spearman, Pearson, shared band, shared top quarter."""
    for scorer in data.spec.study.tuned:
        before, after = data.of(scorer), data.of(f"{scorer}-tuned")
        a, b = metric(before, "rmi")[data.clean], metric(after, "rmi")[data.clean]
        known = ~np.isnan(a) & ~np.isnan(b)
        pearson = float(np.corrcoef(a[known], b[known])[0, 1])
        keys, rows = data.pool(RmiBand()).keys, data.clean
        bands = [
            chosen(Pool(keys, {"strong": table}), RmiBand(), data.spec.ratio)
            for table in (before, after)
        ]
        tops = [partial(_top, metric(table, "rmi"), data.spec.ratio) for table in (before, after)]
        same_band = overlap(bands[0], bands[1], rows)
        same_top = overlap(tops[0], tops[1], rows)
        yield scorer, spearman(a, b), pearson, same_band, same_top


def _top(score: FloatArray, ratio: float, rows: Mask) -> Mask:
    kept = np.zeros(len(rows), np.bool_)
    kept[rows] = top(score[rows], ratio)
    return kept


def _sentences(
    data: StudyData, named: list[Named], subsets: list[Shared], tuned: list[Stable]
) -> Iterator[str]:
    for scorer, rho, pearson, band_, _ in tuned:
        yield (
            f"RMI by the {scorer} model before and after fine-tuning: Spearman {said(rho, 3)}, "
            f"Pearson {pearson:.3f} (paper {PAPER_TUNED}); {said_percent(band_)} of the band's "
            "rows are kept both times."
        )
    if tuned and len(data.framings) == 1:  # a study of stability alone
        return
    for first, second, rho, paper in named:
        if paper is not None:
            yield f"{first} and {second}: Spearman {said(rho, 3)} (paper {paper})."
        elif second == LENGTH and first.startswith("RMI (strong"):
            yield f"{first} and question length: Spearman {said(rho, 3)}."
        elif first.startswith("RMI (strong") and second.endswith(GIVEN):
            yield f"{first} and {second}: partial Spearman {said(rho, 3)}."
        elif first == "RMI (strong)":
            yield f"The two models' RMI: Spearman {said(rho, 3)}."
    for name, _, both, union, paper in subsets[:1]:
        yield (
            f"Diff-High and Sum-High ({name}) share {said_percent(both)} of their rows, "
            f"{union:.0%} of the union (paper {paper:.2%})."
        )
    others = [
        r for f, s, r, _ in named if f.startswith("RMI (strong") and s.startswith("RMI (strong")
    ]
    if others:
        low = min(others, key=lambda r: r.value)
        yield f"Between layouts, RMI by the strong model correlates at least at {said(low, 3)}."
