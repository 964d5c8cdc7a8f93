"""The Python functions: scores of pairs, the better part of them, two results compared.

    scores = qaq.score(pairs, strong="OWNER/NAME", metrics=["rmi", "ifd"])
    best = qaq.select(scores, "rmi_band", keep=0.25)
    pairs.select(best.positions)        # a datasets.Dataset; pairs.iloc[...] of a DataFrame

Everything goes through the store: the same pairs are not scored twice.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd
import pyarrow as pa

from qaq.api.bar import Bar
from qaq.api.source import fields_of, gathered
from qaq.api.tables import ROLES, record_table
from qaq.api.work import RULE, Keep, Wishes, configured, made, metrics_named
from qaq.host import plugins
from qaq.host.errors import UserError
from qaq.run.compose import compose
from qaq.run.pipeline import scoring
from qaq.scoring.metrics import METRICS, PARTS, spans_of
from qaq.store.tables import SCORES, SPANS

if TYPE_CHECKING:
    from qaq.reporting.compare import Compared

# Records may be those of a datasets.Dataset
Pairs: TypeAlias = "str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]] | pd.DataFrame"
Table: TypeAlias = Any  # a datasets.Dataset where one was given, else a DataFrame
SHARD_ROWS = 64  # how often the bar moves


@dataclass(frozen=True)
class Selection:
    """What a rule keeps of scored pairs.

    Attributes:
        positions: places of the kept pairs among those that were scored, from 0, ascending.
        table: a row per pair: `position`, `row_id`, the rule's `score`, `rank` and `stratum`,
            `kept` and `reason`.
    """

    positions: list[int]
    table: Table


def score(
    pairs: Pairs,
    strong: str | None = None,
    weak: str | None = None,
    metrics: str | Sequence[str] = ("rmi", "ifd"),
    *,
    fields: str | None = None,
    store: str | Path = "artifacts",
    progress: bool = True,
    overrides: str | Sequence[str] = (),
) -> Table:
    """Score pairs with one model, or with two; of each pair what the metrics read, no more.

    Args:
        pairs: a file (or several, or a folder), a list of records, a `datasets.Dataset` or a
            DataFrame; records have the forms that `qaq select` reads.
        strong: a preset (`qaq list models`), an id of the Hub, or a folder; None for the preset.
        weak: a second scorer, whose columns end in `_weak`.
        metrics: names of `qaq list metrics`, or `all`; `ifd` is the ratio of losses.
        fields: `question=NAME,answer=NAME` where the records' names are others than the usual.
        store: the artifact store.
        progress: whether to show a bar.
        overrides: others, as `qaq run` takes them, such as `framing=plain`.

    Returns:
        A row per pair, in their order: `position` (from 0), `row_id`, the metrics, `truncated`,
        `reason` (null, or why the pair has no score), and the sums that the rules read. Of files
        also `file` and `line` (of a JSONL file, else the place in the list or table).

    Raises:
        UserError: a metric is unknown, or the pairs cannot be read.
        StageError: scoring failed.
    """
    plugins.start(None)
    metrics = [metrics] if isinstance(metrics, str) else metrics
    overrides = [overrides] if isinstance(overrides, str) else overrides
    names = metrics_named(metrics)
    spans = spans_of(*names.values())
    wishes = Wishes(
        rule="full",
        model=strong,
        weak=weak,
        fields=fields_of(fields),
        store=Path(store),
        overrides=(f"runtime.shard_rows={SHARD_ROWS}", *overrides),
    )
    with TemporaryDirectory(prefix="qaq-") as folder:
        files, given = _as_files(pairs, Path(folder))
        with gathered(files) as (form, paths):
            config = configured(form, paths, wishes)
            if config.data.limit:
                raise UserError("data.limit: give fewer pairs")
            stages = scoring(config, ("strong", "weak") if weak else ("strong",), spans)
            with Bar(stages, config) if progress else contextlib.nullcontext():
                artifacts = made(stages, config, lambda _: None)
            table = record_table(artifacts, sums=True)
        sums = [f"{part}_{span}" for part in PARTS for span in SPANS if span in spans]
    places = pd.DataFrame({"position": range(len(table)), "row_id": table["row_id"]})
    if given is None:
        names_of = [str(paths[int(number) - 1]) for number in table["file"]]
        places = places.assign(file=names_of, line=table["position"])
    ends = [end for role, end in ROLES.items() if role in artifacts]
    columns = {f"{m}{end}": f"{names[m]}{end}" for end in ends for m in names}
    columns |= {n: n for end in ends for n in (f"{c}{end}" for c in ("truncated", "reason", *sums))}
    scores = {new: table[old] for new, old in columns.items()}
    return _like(given, pd.concat([places, pd.DataFrame(scores)], axis=1))


def select(
    scores: Table, rule: str = RULE, keep: float | str | None = None, *, seed: int = 1
) -> Selection:
    """Apply a rule to scored pairs.

    Args:
        scores: what `score` returned, or rows of it.
        rule: a name of `qaq list rules` that reads scores alone.
        keep: a share (0.25 or "25%") of the pairs that the rule can choose from, or a number of
            them (an int); None for a rule that has a size of its own.
        seed: of rules that draw.

    Raises:
        UserError: the rule reads what the table does not hold, or cannot keep so many.
    """
    from qaq.selection.config import reads_texts, spans_read
    from qaq.selection.pool import build_pool
    from qaq.selection.rules import select as apply

    plugins.start(None)
    frame: pd.DataFrame = scores.to_pandas() if hasattr(scores, "to_pandas") else scores
    if not {"position", "row_id"} <= set(getattr(frame, "columns", ())):
        raise UserError("qaq.select reads what qaq.score returned; score the pairs first")
    if frame["position"].isna().any() or frame["position"].duplicated().any():
        raise UserError(
            "the column position has a number twice, or none; score all pairs in one qaq.score, "
            "or number the rows of the joined tables anew"
        )
    selector = compose([f"selector={rule}"]).selector
    absent = [role for role in selector.needs if f"reason{ROLES.get(role, '?')}" not in frame]
    if absent or reads_texts(selector):
        raise UserError(
            f"{rule} reads {', '.join(absent) or 'texts'}, which the table does not hold"
            + ("; give qaq.score a weak model" if absent == ["weak"] else "; use qaq select")
        )
    ends = [ROLES[role] for role in selector.needs]
    unread = [s for s in spans_read(selector) if any(f"nll_{s}{e}" not in frame for e in ends)]
    if unread:
        fitting = ", ".join(m for m in METRICS if spans_of(m) == frozenset(spans_read(selector)))
        raise UserError(
            f"{rule} reads the spans {', '.join(unread)}, of which the table has no score; give "
            f"qaq.score a metric that reads them ({fitting or 'or several'})"
        )
    if selector.uses_ratio != (keep is not None):
        raise UserError(
            f"{rule} has a size of its own; leave out keep"
            if keep is not None
            else f"how much is {rule} to keep? keep=0.25, or a number of pairs"
        )
    size = Keep() if keep is None else Keep.of(keep)
    rows = frame[frame["row_id"].notna()]
    tables = {role: _score_table(rows, ROLES[role]) for role in selector.needs}
    ids = pa.table({"row_id": pa.array(rows["row_id"].tolist(), pa.string())})
    pool, names = build_pool(ids, tables, None)
    decision = apply(selector, pool, ratio=size.ratio, count=size.count, seed=seed)
    decided = decision.table(names).to_pandas().set_index("row_id")
    columns = ["score", "rank", "stratum", "kept", "reason"]
    whole = frame[["position", "row_id"]].join(decided[columns], on="row_id")
    whole["kept"] = whole["kept"].eq(True)
    whole["reason"] = whole["reason"].where(whole["reason"].notna(), frame.get("reason"))
    positions = sorted(int(p) for p in whole["position"][whole["kept"]])
    return Selection(positions, _like(scores, whole.reset_index(drop=True)))


def compare(
    a: str | Path,
    b: str | Path,
    arm_a: str | None = None,
    arm_b: str | None = None,
    different_benchmarks: bool = False,
    *,
    store: str | Path = "artifacts",
) -> "Compared":
    """Paired tests between two results, as `qaq compare`; print its `text`.

    Args:
        a, b: files, folders, or names of what lies in the store.
        arm_a, arm_b: which arm of a report.
        different_benchmarks: compare although they were judged on different files of a benchmark.
        store: the artifact store.
    """
    from qaq.reporting.compare import compare as compare_results
    from qaq.store.inspection import find_result

    def found(side: str | Path) -> Path:
        path = Path(side)
        return path if path.exists() else find_result(Path(store), str(side)).path

    return compare_results(found(a), found(b), arm_a, arm_b, different_benchmarks)


def _as_files(pairs: Pairs, folder: Path) -> tuple[list[str], Any]:
    """Names of files, and the pairs themselves where they are in memory."""
    if isinstance(pairs, str | Path):
        return [str(pairs)], None
    if isinstance(pairs, Mapping):  # a DatasetDict is one too
        raise UserError(f"found one {type(pairs).__name__}; expected many records, or one split")
    if isinstance(pairs, pd.DataFrame):
        if pairs.columns.nlevels > 1 or not pairs.columns.is_unique:
            raise UserError(
                f"the table's columns are {list(pairs.columns)}; expected names, each once"
            )
        records: Iterable[Any] = pairs.astype(object).where(pairs.notna(), None).to_dict("records")
    else:
        records = pairs = list(pairs) if isinstance(pairs, Iterator) else pairs
        first = next(iter(pairs), None)
        if isinstance(first, str | Path):
            return [str(path) for path in pairs], None
        if first is None:
            raise UserError("there are no pairs; give one record at least")
    path = folder / "pairs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            if not isinstance(record, Mapping):
                raise UserError(
                    f"found a {type(record).__name__} among the pairs; expected records (mappings "
                    "such as {'instruction': …, 'output': …}), or paths"
                )
            file.write(json.dumps(dict(record), default=_plain) + "\n")
    return [str(path)], pairs


def _plain(value: Any) -> Any:
    """A value that JSON does not know; what is no text does not become one."""
    return value.tolist() if hasattr(value, "tolist") else {"type": type(value).__name__}


def _score_table(rows: pd.DataFrame, end: str) -> pa.Table:
    """One model's sums as the table of the stage `scores`."""
    columns: dict[str, Any] = {"row_id": rows["row_id"].tolist()}
    for name in (name for name in SCORES.names if f"{name}{end}" in rows and name != "row_id"):
        values = rows[f"{name}{end}"].astype(object)
        columns[name] = values.where(values.notna(), None).tolist()
    return pa.table({n: pa.array(v, SCORES.field(n).type) for n, v in columns.items()})


def _like(given: Any, frame: pd.DataFrame) -> Table:
    """A `datasets.Dataset` where one was given."""
    if isinstance(given, pd.DataFrame) or not hasattr(given, "to_pandas"):
        return frame
    from datasets import Dataset

    return Dataset.from_pandas(frame, preserve_index=False)
