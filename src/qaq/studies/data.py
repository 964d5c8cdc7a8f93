"""What a study looks at: one pool, scored by several models in several layouts, in one order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qaq.data.config import CONTROLS
from qaq.evidence.estimate import Estimate
from qaq.evidence.ranking import area
from qaq.scoring.metrics import METRICS, Columns, titles
from qaq.selection.config import Selector
from qaq.selection.controls import LENGTH_A, model_free
from qaq.selection.inputs import load_pool
from qaq.selection.pool import Keys, Pool, ScoreTable, build_pool
from qaq.selection.ranks import FloatArray, Mask, equal_count_bins, finite, ranks_within
from qaq.selection.rules.ask_llm import probability_of_yes
from qaq.selection.rules.disagreement import paired_ranks
from qaq.store.tables import PAIRS, read_scores, read_table
from qaq.studies.config import StudyStage

BINS = 10
Defects = npt.NDArray[np.object_]
LENGTH_MATCHED = ("truncated",)
MATCHES = 2  # clean rows for each damaged one
ASKED = "Ask-LLM"
HARMLESS = sorted(set(CONTROLS.values()))


@dataclass(frozen=True)
class StudyData:
    """The pool in the order of its row ids, which `keys` are as numbers.

    `defect` names what was planted in a row (None = clean). `scores` is by scorer and framing.
    `free` holds what is seen without a model, by name; `asked` the strong model's probability of
    "yes" under `ASKED`, or nothing where it was not asked.
    """

    spec: StudyStage
    inputs: Mapping[str, Path]
    keys: Keys
    defect: Defects
    scores: Mapping[tuple[str, str], ScoreTable]
    free: Mapping[str, FloatArray]
    asked: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def clean(self) -> Mask:
        """The rows that nothing was planted in."""
        return np.array([kind is None for kind in self.defect.tolist()], np.bool_)

    @property
    def damaged(self) -> Mask:
        """The rows with a planted defect; a control is neither clean nor damaged."""
        return ~self.clean & ~np.isin(self.defect, HARMLESS)

    def against(self, kind: str) -> Mask:
        """The rows that a kind of damage is compared with: clean ones, or those of its control.

        Truncated answers are short, so they are compared with clean ones of their length.
        """
        control = CONTROLS.get(kind)
        if kind in LENGTH_MATCHED:
            return nearest(self.free[LENGTH_A], self.defect == kind, self.clean)
        return self.defect == control if control in self.kinds else self.clean

    def area(self, score: FloatArray, kind: str) -> Estimate | None:
        """AUROC of a score against a kind of damage and the rows that it is compared with."""
        return area(score, self.defect == kind, self.against(kind))

    @property
    def kinds(self) -> list[str]:
        """The kinds of damage in the pool."""
        return sorted({kind for kind in self.defect.tolist() if kind is not None})

    @property
    def scorers(self) -> list[str]:
        """Names of the models that scored in the experiment's own framing."""
        return [scorer for scorer, framing in self.scores if framing == self.spec.framing]

    @property
    def framings(self) -> list[str]:
        """The layouts in which both the strong and the weak model scored, the own one first."""
        return [framing for scorer, framing in self.scores if scorer == "strong"]

    def of(self, scorer: str, framing: str | None = None) -> ScoreTable:
        """One model's score table, in the experiment's own framing unless another is named."""
        return self.scores[scorer, framing or self.spec.framing]

    def pool(self, selector: Selector) -> Pool:
        """The pool as a rule reads it, from the scores in the experiment's own framing."""
        own = {r: self.inputs.get(f"scores/{r}/{self.spec.framing}") for r in ("strong", "weak")}
        folders = {role: folder for role, folder in own.items() if folder is not None}
        pool, _ = load_pool(selector, {**self.inputs, **folders})
        return pool


def read(spec: StudyStage, inputs: Mapping[str, Path]) -> StudyData:
    """Read and join the artifacts of a study. Raises DataError: the tables hold different rows."""
    columns = ["row_id", "defect", "question", "answer"]
    rows = read_table(inputs["pairs"] / "pairs.parquet", PAIRS, columns)
    scored = [role for role in inputs if role.startswith("scores/") or role == "asked"]
    tables = {role: read_scores(inputs[role]) for role in scored}
    pool, row_ids = build_pool(rows.select(["row_id"]), tables)
    place = {row: i for i, row in enumerate(rows["row_id"].to_pylist())}
    ordered = rows.take([place[row] for row in row_ids.to_pylist()])
    defect, questions, answers = (ordered[name].to_pylist() for name in columns[1:])
    return StudyData(
        spec,
        inputs,
        pool.keys,
        np.array(defect, dtype=object),
        _in_order(spec, {role: t for role, t in pool.scores.items() if role != "asked"}),
        model_free(questions, answers),
        {ASKED: probability_of_yes(table)} if (table := pool.scores.get("asked")) else {},
    )


def _in_order(
    spec: StudyStage, tables: Mapping[str, ScoreTable]
) -> dict[tuple[str, str], ScoreTable]:
    """Strong before weak before the others, the own framing first."""
    named = {(role.split("/")[1], role.split("/")[2]): table for role, table in tables.items()}
    first = {"strong": 0, "weak": 1}
    order = sorted(named, key=lambda k: (k[1] != spec.framing, first.get(k[0], 2), k))
    return {key: named[key] for key in order}


def metric_titles() -> dict[str, str]:
    """What a study lists: every metric with a title, and the rank of RMI inside its strata."""
    return {"rmi": "", "rmi_rank": "stratified RMI"} | titles()


def metric(table: Columns, name: str, bins: int = BINS) -> FloatArray:
    """A metric of `qaq.scoring.metrics`, or `rmi_rank`, its rank inside strata of log PPL(Q)."""
    if name != "rmi_rank":
        return finite(METRICS[name](table))
    values = metric(table, "rmi")
    question = np.where(np.isnan(values), np.nan, metric(table, "log_perplexity_q"))
    return ranks_within(values, equal_count_bins(question, bins))


def difference(strong: Columns, weak: Columns, bins: int = BINS) -> FloatArray:
    """Rank of RMI by the strong model minus rank by the weak one."""
    first, second, _ = paired_ranks(strong, weak, bins=bins)
    return first - second


def difference_of_ifd(strong: Columns, weak: Columns) -> FloatArray:
    """The same of IFD, ranked over the whole pool, as the rule `diff_high_ifd` has it."""
    first, second, _ = paired_ranks(strong, weak, metric="ifd_loss_ratio", bins=1)
    return first - second


def per_row(data: StudyData) -> pa.Table:
    """All that the study's numbers rest on, a line per row of the pool, without its texts.

    `row_id`, `defect`; `SCORER/FRAMING/nll_SPAN` and `tokens_SPAN` for the spans that were scored;
    what is seen without a model, by its name. Numbers are float32, counts int32.
    """
    columns: dict[str, pa.Array] = {
        "row_id": pa.array([f"{key:016x}" for key in data.keys.tolist()]),
        "defect": pa.array(data.defect, pa.string()),
    }
    for (scorer, framing), table in data.scores.items():
        for name in (n for n in table if n.startswith(("nll_", "tokens_"))):
            values = table[name]
            if not np.isnan(values).all():
                kind = pa.float32() if name.startswith("nll_") else pa.int32()
                whole = pa.array(values, pa.float64(), mask=np.isnan(values))
                columns[f"{scorer}/{framing}/{name}"] = whole.cast(kind, safe=False)
    for name, values in {**data.asked, **data.free}.items():
        columns[name] = pa.array(values, mask=np.isnan(values)).cast(pa.float32())
    return pa.table(columns)


def nearest(values: FloatArray, rows: Mask, among: Mask) -> Mask:
    """For each of some rows the `MATCHES` others of the nearest values, each used once."""
    free = np.flatnonzero(among)
    found = np.zeros(len(values), np.bool_)
    for row in np.flatnonzero(rows).tolist() * MATCHES:
        if not len(free):
            break
        at = int(np.argmin(np.abs(values[free] - values[row])))
        found[free[at]] = True
        free = np.delete(free, at)
    return found


def subset(values: Columns, rows: Mask) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of a score table for some of its rows."""
    return {name: values[name][rows] for name in values if name not in ("truncated", "reason")}


def quarter(values: FloatArray, among: Mask, *, shortest: bool) -> Mask:
    """Rows inside the lowest or highest quarter of the values `among` some rows, ties included."""
    edge = np.nanquantile(values[among], 0.25 if shortest else 0.75)
    return values <= edge if shortest else values >= edge
