"""Reads the artifacts of an experiment into tables; nothing is computed here but joins by id.

Whatever has not been made (an arm that failed, scores nobody needed) is simply absent from the
tables, and the report says which arms are incomplete.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from qaq.data.intake import lost
from qaq.host.errors import DataError
from qaq.page.provenance import Manifest, read_manifest
from qaq.reporting.config import ReportStage
from qaq.scoring.metrics import METRICS, spans_of, titles
from qaq.selection.controls import model_free
from qaq.selection.texts import COLUMNS, without_texts
from qaq.store.tables import (
    OVERLAPS,
    PAIRS,
    PER_PROBLEM,
    PREFERENCES,
    SUBSET,
    Span,
    read_json,
    read_jsonl,
    read_table,
    scores_schema,
)

DRAWN = {"rmi": "rmi", "ifd": "ifd_loss_ratio", "log_ppl_q": "log_perplexity_q"}
FREE = "free:"  # before the name of a control in the columns of the pool
COUNTS = ("at_limit", "no_code", "cut")
ANSWERS = ["arm", "seed", "benchmark", "benchmark_md5", *COUNTS]
TOUCHED = ["row_id", "benchmark", "task_id", "kind"]
CURVE = ["arm", "seed", "step", "loss", "learning_rate"]


@dataclass(frozen=True)
class Collected:
    """Everything the report is made from.

    Attributes:
        spec: what was asked for.
        manifests: by role.
        pool: `row_id`, `source`, `defect`, `question_characters`, `answer_characters`; with
            planted noise `free:NAME`, what is seen without a model (`qaq.selection.controls`).
        scores: by model role: `row_id`, `scored` (whether it has a number), `rmi`, `ifd`,
            `log_ppl_q` (NaN where unscored, or where their spans were not asked for), and under
            `metric:` and its name every metric that is listed and whose spans were asked for.
        subsets: by (arm, seed): `row_id`, `score`, `kept`.
        outcomes: the columns of per_problem.parquet with `arm` and `seed` in front.
        preferences: `arm`, `seed`, `benchmark` and the columns of preferences.parquet, where asked.
        answers: `arm`, `seed`, `benchmark`, and the counts of `AnswerCounts`, one row per judged
            model and suite.
        lost: what of the source is not in the pool, in a sentence.
        curves: `arm`, `seed`, `step`, `loss`, `learning_rate`.
        overlaps: which row touches which problem and how, where that was looked for.
        reference: rows of the paper's tables, where a file was named.
    """

    spec: ReportStage
    manifests: Mapping[str, Manifest]
    pool: pd.DataFrame | None
    scores: Mapping[str, pd.DataFrame]
    subsets: Mapping[tuple[str, int], pd.DataFrame]
    outcomes: pd.DataFrame
    answers: pd.DataFrame
    curves: pd.DataFrame
    overlaps: pd.DataFrame | None = None
    lost: str | None = None
    reference: pd.DataFrame | None = None
    preferences: pd.DataFrame | None = None


def collect(spec: ReportStage, inputs: Mapping[str, Path]) -> Collected:
    """Read the artifacts named in `inputs` (role to folder)."""
    manifests = {role: read_manifest(role, folder) for role, folder in sorted(inputs.items())}
    subsets, curves, outcomes, answers, preferences = {}, [], [], [], []
    for role, folder in sorted(inputs.items()):
        match role.split("/"):
            case ["subset", arm, seed]:
                table = read_table(folder / "rows.parquet", SUBSET, ["row_id", "score", "kept"])
                subsets[arm, int(seed)] = table.to_pandas()
            case ["adapter", arm, seed]:
                curves.append(_curve(folder, arm, int(seed)))
            case ["outcomes", arm, seed, suite]:
                outcomes.append(_outcomes(folder, arm, int(seed), suite))
                answers += _answers(folder, arm, int(seed), suite)
                if (file := folder / "preferences.parquet").exists():
                    preferences.append(
                        read_table(file, PREFERENCES)
                        .to_pandas()
                        .assign(arm=arm, seed=int(seed), benchmark=suite)
                    )
    pool = _pool(inputs["pairs"]) if "pairs" in inputs else None
    nothing = pd.DataFrame(columns=["arm", "seed", *PER_PROBLEM.names])
    return Collected(
        spec=spec,
        manifests=manifests,
        pool=pool,
        scores={r: _scores(inputs[r], spec.spans) for r in ("strong", "weak") if r in inputs},
        subsets=subsets,
        outcomes=pd.concat(outcomes, ignore_index=True) if outcomes else nothing,
        answers=pd.DataFrame(answers, columns=ANSWERS),
        curves=pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=CURVE),
        lost=_lost(inputs["pairs"]) if "pairs" in inputs else None,
        overlaps=read_table(inputs["overlaps"] / "overlaps.parquet", OVERLAPS, TOUCHED).to_pandas()
        if "overlaps" in inputs
        else None,
        reference=_reference(spec.reference),
        preferences=pd.concat(preferences, ignore_index=True) if preferences else None,
    )


def _lost(folder: Path) -> str | None:
    file = folder / "counts.json"
    return lost(read_json(file)) if file.exists() else None


def _pool(folder: Path) -> pd.DataFrame:
    file = folder / "pairs.parquet"
    frame: pd.DataFrame = without_texts(file).to_pandas()
    if frame["defect"].notna().any():
        texts = read_table(file, PAIRS, COLUMNS)
        free = model_free(*(texts[name].to_pylist() for name in COLUMNS))
        frame = frame.assign(**{f"{FREE}{name}": values for name, values in free.items()})
    return frame


def _scores(folder: Path, spans: Collection[Span]) -> pd.DataFrame:
    """The metrics that the asked spans give; others may lie in the table, as of another run."""
    schema = scores_schema(spans)
    columns = [n for n in schema.names if n.startswith(("nll_", "tokens_", "bytes_"))]
    table = read_table(folder / "shards", schema, ["row_id", *columns])
    sums: dict[str, np.ndarray] = {c: table[c].to_numpy().astype(float) for c in columns}
    asked = {name for name in METRICS if spans_of(name) <= set(spans)}
    found = {column: METRICS[name](sums) for column, name in DRAWN.items() if name in asked}
    found |= {f"metric:{name}": METRICS[name](sums) for name in titles() if name in asked}
    scored = np.any([np.isfinite(sums[f"nll_{span}"]) for span in spans], axis=0)
    ends = {"row_id": table["row_id"].to_pandas(), "scored": scored}
    return pd.DataFrame({**ends, **dict.fromkeys(DRAWN, np.nan), **found})


def _curve(folder: Path, arm: str, seed: int) -> pd.DataFrame:
    file = folder / "training.jsonl"
    lines = read_jsonl(file if file.exists() else folder / "record.jsonl")
    points = [line for line in lines if "step" in line and "loss" in line]
    frame = pd.DataFrame(points, columns=["step", "loss", "learning_rate"])
    # A resumed training may have logged a step twice; the later one is part of the final run.
    frame = frame.drop_duplicates("step", keep="last").sort_values("step")
    return frame.assign(arm=arm, seed=seed)[CURVE]


def _outcomes(folder: Path, arm: str, seed: int, suite: str) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(folder / "per_problem.parquet", PER_PROBLEM).to_pandas()
    if frame.empty:
        raise DataError(f"{folder}: no task was judged; expected at least one row")
    if frame.duplicated(["task_id", "sample"]).any():
        raise DataError(f"{folder}: a task has two rows for one sample; delete it and run again")
    frame["benchmark"] = suite
    frame.insert(0, "arm", arm)
    frame.insert(1, "seed", seed)
    return frame


def _answers(folder: Path, arm: str, seed: int, suite: str) -> list[dict[str, object]]:
    """How the answers ended; outcomes from before this was counted say how generation finished."""
    file = folder / "scores.json"
    scores = read_json(file) if file.exists() else {}
    if "finish" not in scores:
        return []
    finish = scores["finish"]
    found = {"at_limit": finish.get("length", 0), "no_code": None, "cut": finish.get("stop", 0)}
    counts = {name: scores.get(name, found[name]) for name in COUNTS}
    md5 = scores.get("benchmark_md5")
    return [{"arm": arm, "seed": seed, "benchmark": suite, "benchmark_md5": md5} | counts]


def _reference(text: str | None) -> pd.DataFrame | None:
    """The paper's tables as shares; columns table, row, data_share and one per suite and metric."""
    if text is None:
        return None
    frame = pd.read_csv(StringIO(text), comment="#")
    missing = sorted({"table", "row", "data_share"} - set(frame.columns))
    if missing:
        found = ", ".join(map(str, frame.columns))
        raise DataError(f"reference: columns {missing} are missing; the file has {found}")
    return frame
