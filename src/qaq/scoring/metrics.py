"""Every metric of a (question, answer) pair as a formula over the columns of a score table.

A score table (`qaq.store.tables.SCORES`) keeps, for each span, the sum of the negative
log-likelihood in nats (`nll_<span>`), the number of tokens (`tokens_<span>`) and the UTF-8 bytes of
its text (`bytes_<span>`). The spans are `q` (the question alone), `q_given_a` (the question after
its answer), `a` (the answer alone) and `a_given_q` (the answer after its question). Nothing here
runs a model: a new metric is a new formula under the decorator `metric`, here or in a file of one's
own (`qaq.host.plugins`).

All functions map columns of n rows to a float64 array of n values. The natural unit is nats per
token. A row that could not be scored is NaN in every metric, never a number.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qaq.host.errors import UserError
from qaq.host.plugins import PluginError, Registry, guarded, owner
from qaq.store.tables import SPANS, Span

FloatArray = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[np.generic]]
Metric = Callable[[Columns], FloatArray]


PARTS = ("nll", "tokens", "bytes")
METRICS: Registry[Metric] = Registry("metric", "qaq.scoring.metrics")
_TITLES: dict[str, str | None] = {}
SHORT = {"ifd": "ifd_loss_ratio", "perplexity": "perplexity_pair"}  # what people ask for


def metric(title: str | None) -> Callable[[Metric], Metric]:
    """Register a function as the metric of its name.

    Args:
        title: what heads it in reports and studies; None where it orders rows as another metric
            does, which is listed there.
    """

    def register(function: Metric) -> Metric:
        name, module = function.__name__, owner(function.__module__)
        if name in (*SHORT, "all"):
            meant = SHORT.get(name, "every metric")
            raise PluginError(f"a metric cannot be called {name}, which stands for {meant}")
        if title and (same := [n for n, t in _TITLES.items() if t == title and n != name]):
            raise PluginError(
                f"{title!r} is the title of the metric {same[0]} already; {name} "
                "needs one of its own"
            )
        METRICS.add(name, _checked(guarded(function, module), name), module)
        _TITLES[name] = title
        return function

    return register


def spans_of(*names: str) -> frozenset[Span]:
    """The spans whose columns the named metrics read, found by computing each for one row."""
    read: set[str] = set()

    class Reading(dict[str, npt.NDArray[np.generic]]):
        def __getitem__(self, column: str) -> npt.NDArray[np.generic]:
            read.add(column)
            return super().__getitem__(column)

    columns = {"rows": np.ones(1)}  # first, where a metric's rows are counted
    columns |= {f"{part}_{span}": np.ones(1) for part in PARTS for span in SPANS}
    for name in names:
        METRICS[name](Reading(columns))
    return frozenset(span for span in SPANS for part in PARTS if f"{part}_{span}" in read)


def metric_names(asked: Any) -> tuple[str, ...]:
    """The metrics that are meant by `all`, by one name, or by several; each may be a short one.

    Raises:
        ValueError: there is no such metric.
    """
    names = METRICS if asked == "all" else [asked] if isinstance(asked, str) else asked or ()
    return tuple(METRICS.check(SHORT.get(str(name), str(name))) for name in names)


def titles() -> dict[str, str]:
    """The metrics that reports and studies list, with their titles."""
    return {name: title for name in METRICS if (title := _TITLES[name]) is not None}


def _checked(function: Metric, name: str) -> Metric:
    """The metric, which has to give one number a row."""

    @functools.wraps(function)
    def call(columns: Columns) -> FloatArray:
        values = np.asarray(function(columns), dtype=np.float64)
        rows = len(columns[next(iter(columns))])
        if values.shape != (rows,):
            raise UserError(
                f"the metric {name} gave an array of shape {values.shape} for {rows} rows; "
                "expected one number a row (NaN for a row without a score)"
            )
        return values

    return call


def mean_nll(columns: Columns, *spans: str) -> FloatArray:
    """Mean negative log-likelihood per token over the spans together, in nats.

    NaN where a sum is missing or the spans hold no token.
    """
    nll = sum((column(columns, f"nll_{span}") for span in spans), start=np.float64(0))
    tokens = sum((column(columns, f"tokens_{span}") for span in spans), start=np.float64(0))
    return np.asarray(divide(np.asarray(nll), np.asarray(tokens)))


@metric("RMI")
def rmi(columns: Columns) -> FloatArray:
    """Reverse mutual information: what the answer tells about the question.

    Formula: log PPL(Q) - log PPL(Q|A), PPL = exp(mean NLL per token).
    Unit: nats per token of the question.
    Direction: higher, the answer tells more; the paper keeps a middle band, not the top.
    Low tail: the answer does not help to guess the question; the two do not match.
    High tail: the answer gives the question away; it repeats it, or follows a known pattern.
    Source: QAQ, arXiv 2603.12165; equals -log r-IFD of arXiv 2402.10110.
    """
    return mean_nll(columns, "q") - mean_nll(columns, "q_given_a")


@metric(None)
def rmi_authors(columns: Columns) -> FloatArray:
    """RMI with the clamp of the authors' script: a span without tokens counts as log PPL = 0.

    Formula: sum NLL(Q) / max(1, tokens) - sum NLL(Q|A) / max(1, tokens).
    Unit: nats per token of the question.
    Direction: as for `rmi`.
    Low tail: as for `rmi`.
    High tail: as for `rmi`, and rows whose answer left no room for the question (a fault of the
    script that is kept for comparison).
    Source: `rmi_math.py` of the authors' repository; meant for the framing `authors`.
    """
    q, q_given_a = (
        column(columns, f"nll_{span}") / np.maximum(column(columns, f"tokens_{span}"), 1)
        for span in ("q", "q_given_a")
    )
    return q - q_given_a


@metric(None)
def r_ifd(columns: Columns) -> FloatArray:
    """Reversed IFD: how well the answer predicts the question.

    Formula: PPL(Q|A) / PPL(Q) = exp(-RMI).
    Unit: ratio of perplexities.
    Direction: lower, the answer tells more; its paper keeps low values.
    Low tail: the answer gives the question away (high RMI).
    High tail: the answer does not help to guess the question (low RMI).
    Source: Selective Reflection-Tuning, arXiv 2402.10110.
    """
    return np.asarray(np.exp(-rmi(columns)))


@metric("IFD")
def ifd_loss_ratio(columns: Columns) -> FloatArray:
    """Instruction-following difficulty as a ratio of losses.

    Formula: mean NLL(A|Q) / mean NLL(A).
    Unit: ratio of losses; 1 = the question does not help.
    Direction: higher, the question helps less; its paper keeps the highest below 1.
    Low tail: the question makes the answer easy.
    High tail: the question hardly helps: a hard instruction, or one that does not match; above 1
    it misleads.
    Source: Cherry_LLM, arXiv 2308.12032 and its official code; meant for the framing `cherry`.
    """
    return np.asarray(divide(mean_nll(columns, "a_given_q"), mean_nll(columns, "a")))


@metric("IFD (PPL)")
def ifd_ppl_ratio(columns: Columns) -> FloatArray:
    """Instruction-following difficulty as a ratio of perplexities.

    Formula: PPL(A|Q) / PPL(A) = exp(mean NLL(A|Q) - mean NLL(A)).
    Unit: ratio of perplexities; 1 = the question does not help.
    Direction: higher, the question helps less; its paper keeps the highest below 1.
    Low tail: the question makes the answer easy.
    High tail: the question hardly helps, or (above 1) misleads.
    Source: Superfiltering, arXiv 2402.00530 and its official code; framing `superfiltering`.
    """
    return np.asarray(np.exp(mean_nll(columns, "a_given_q") - mean_nll(columns, "a")))


@metric("log PPL(Q)")
def log_perplexity_q(columns: Columns) -> FloatArray:
    """Log perplexity of the question alone; its equal-count bins are the strata of RMI.

    Formula: mean NLL(Q).
    Unit: nats per token.
    Direction: higher, the question is less expected; neither side is kept, it makes strata.
    Low tail: common wording, boilerplate.
    High tail: rare words, other languages, noise; short questions too.
    Source: QAQ, arXiv 2603.12165.
    """
    return mean_nll(columns, "q")


@metric(None)
def perplexity_q(columns: Columns) -> FloatArray:
    """Perplexity of the question alone.

    Formula: exp(mean NLL(Q)).
    Unit: perplexity; 1 = certain.
    Direction: higher, the question is less expected.
    Low tail: common wording, boilerplate.
    High tail: rare words, other languages, noise; short questions too.
    Source: QAQ, arXiv 2603.12165.
    """
    return np.asarray(np.exp(mean_nll(columns, "q")))


@metric("PPL(A)")
def perplexity_a(columns: Columns) -> FloatArray:
    """Perplexity of the answer alone.

    Formula: exp(mean NLL(A)).
    Unit: perplexity; 1 = certain.
    Direction: higher, the answer is less expected.
    Low tail: boilerplate, repetition.
    High tail: rare or damaged code, other languages; short answers too.
    Source: the denominator of IFD, arXiv 2308.12032.
    """
    return np.asarray(np.exp(mean_nll(columns, "a")))


@metric("PPL(Q, A)")
def perplexity_pair(columns: Columns) -> FloatArray:
    """Perplexity of the rendered pair, the question and then its answer.

    Formula: exp((sum NLL(Q) + sum NLL(A|Q)) / (tokens of Q + tokens of A)).
    Unit: perplexity; 1 = certain.
    Direction: higher, the pair is less expected; its source keeps a middle or a high part.
    Low tail: text that the model knows already.
    High tail: text that the model does not expect: new, rare, or damaged.
    Source: the perplexity baselines of arXiv 2503.01807.
    """
    return np.asarray(np.exp(mean_nll(columns, "q", "a_given_q")))


@metric("question length")
def length_q(columns: Columns) -> FloatArray:
    """Length of the question.

    Formula: scored tokens of Q.
    Unit: tokens of the scoring model.
    Direction: higher, more tokens.
    Low tail: short questions, whose other scores are noisy.
    High tail: long questions, up to the token limit of the framing.
    Source: none; a control.
    """
    return column(columns, "tokens_q")


@metric("answer length")
def length_a(columns: Columns) -> FloatArray:
    """Length of the answer.

    Formula: scored tokens of A.
    Unit: tokens of the scoring model.
    Direction: higher, more tokens; the baseline keeps the longest.
    Low tail: short answers, whose other scores are noisy.
    High tail: long answers; one longer than the framing's token limit counts as cut.
    Source: the "longest" baseline, arXiv 2402.04833.
    """
    return column(columns, "tokens_a")


def column(columns: Columns, name: str) -> FloatArray:
    """One column as float64; what is missing or not finite is NaN."""
    values = np.asarray(columns[name], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """The quotient, NaN where the denominator is not above zero."""
    out = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
