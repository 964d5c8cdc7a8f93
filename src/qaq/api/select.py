"""`qaq select` and `qaq score`: from files of pairs to the better part, or to a table of scores."""

import shlex
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from qaq.api.records import Place, check_form, write_records
from qaq.api.source import gathered
from qaq.api.stanzas import form_of_records, stanza_file, write_stanza
from qaq.api.tables import PLACE, record_table, write_scores
from qaq.api.work import (
    RULE,
    Keep,
    Say,
    Wishes,
    choosing,
    configured,
    made,
    metrics_named,
    override,
    refuse_unread,
)
from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.forms import layout_of
from qaq.data.intake import lost
from qaq.data.rows import Entry
from qaq.host.errors import UserError
from qaq.host.runtime import RuntimeConfig, store_option
from qaq.host.targets import check_targets, refuse_to_replace
from qaq.plan.planning import outlook
from qaq.run.config import Config
from qaq.run.pipeline import scoring
from qaq.run.stage import Stage
from qaq.scoring.metrics import spans_of
from qaq.selection.audit import audit, page
from qaq.store.manifest import Artifact
from qaq.store.tables import SPANS, read_json

EXCERPT = 60
FIRST = 256  # records that are looked at before the work
SHOWN = 2  # examples of each side of the cut


@dataclass(frozen=True)
class Outputs:
    """What is written, and where: records, scores, a page, what a trainer needs to read them."""

    out: Path
    scores: Path | None = None
    page: Path | None = None
    with_scores: bool = False
    trainer: str | None = None
    force: bool = False


def select_files(
    names: list[str], keep: Keep | None, wishes: Wishes, outputs: Outputs, say: Say
) -> None:
    """Choose from the records of files, and write those that are kept as they came."""
    if outputs.scores and outputs.scores.suffix != ".parquet":
        raise UserError(f"--scores {outputs.scores}: it is Parquet; end the name in .parquet")
    with gathered(names) as (form, files):
        check_form(outputs.out, form, files)
        check_targets((outputs.out, outputs.scores, outputs.page), files, outputs.force)
        config = configured(form, files, wishes)
        refuse_unread(config.selector, wishes)
        _check_trainer(outputs, config)
        stages = choosing(config, wishes.rule, keep)
        size = f"keep {keep}" if keep else "keep what the rule keeps"
        why = " (drops both tails; qaq select --explain says why)" if wishes.rule == RULE else ""
        _announce(f"{size} by {wishes.rule}{why}", names, stages, config, say)
        artifacts = made(stages, config, say)
        table = record_table(artifacts)
        chosen = table[table["kept"].astype(bool)]
        kept: dict[Place, dict[str, Any]] = {
            (int(file), int(position)): note
            for file, position, note in zip(
                chosen["file"], chosen["position"], _notes(chosen, wishes.rule), strict=True
            )
        }
        notes = kept if outputs.with_scores else None
        write_records(config.data, outputs.out, kept, stages["pairs"].fingerprints, notes)
        if outputs.scores:
            write_scores(outputs.scores, table, files)
        if outputs.page:
            subset, at = artifacts["subset"].path, store_option(config.runtime.store)
            html = page(audit(subset, artifacts["pairs"].path), subset, at)
            outputs.page.write_text(html, encoding="utf-8")
        say(_summary(table, artifacts, files, outputs))
        if outputs.trainer:
            say(f"{outputs.trainer}: {_write_stanza(outputs.trainer, outputs, config)}")
        say("\n".join(_next(artifacts, outputs, config)))


def score_files(
    names: list[str],
    wishes: Wishes,
    metrics: list[str] | None,
    out: Path,
    force: bool,
    say: Say,
) -> None:
    """Score the records of files; one row of the table is one record.

    `metrics`: those that are wanted, so that only what they read is scored; None for all.
    """
    if out.suffix != ".parquet":
        raise UserError(f"-o {out}: the table is Parquet; end the name in .parquet")
    with gathered(names) as (form, files):
        check_targets((out,), files, force)
        config = configured(form, files, wishes)
        spans = spans_of(*metrics_named(metrics).values()) if metrics else SPANS
        stages = scoring(config, ("strong", "weak") if wishes.weak else ("strong",), spans)
        _announce("score", names, stages, config, say)
        artifacts = made(stages, config, say)
        table = record_table(artifacts)
        write_scores(out, table, files)
        say(_counts(artifacts))
        unscored = int(table["reason"].notna().sum())
        say(f"{out}: {len(table):,} records, {unscored:,} of them without a score (reason)")


def _announce(
    what: str, names: list[str], stages: dict[str, Stage], config: Config, say: Say
) -> None:
    """What is going to be done, with which models, and about how long it takes."""
    roles = {"strong": "strong", "weak": "weak", "asked": "asked", "embeddings": "vectors"}
    read = [(stages[role].config.model.name, how) for role, how in roles.items() if role in stages]
    models = " and ".join(f"{name} ({how})" for name, how in read)
    say(f"{what}: {', '.join(names)}; scorers: {models or 'none, the rule reads no scores'}")
    if "overlaps" in stages:
        suites = ", ".join(config.benchmark.suites)
        say(f"contaminated means: overlaps with {suites} (another: benchmark=code)")
    say(outlook(stages.values(), config.runtime))


def _notes(chosen: pd.DataFrame, rule: str) -> list[dict[str, Any]]:
    left_out = {*PLACE, "kept", "decision", "reason"}
    columns = [name for name in chosen.columns if name not in left_out]
    plain = chosen[columns].astype(object).where(chosen[columns].notna(), None)
    return [
        {"rule": rule} | {str(k): v for k, v in row.items()} for row in plain.to_dict("records")
    ]


def _counts(artifacts: dict[str, Artifact]) -> str:
    counts = read_json(artifacts["pairs"].path / "counts.json")
    said = f"read {counts['read']:,}, unreadable {counts['unreadable']:,}"
    if counts["not_sampled"]:
        said += f", not in the sample {counts['not_sampled']:,} (data.limit)"
    return "\n".join(filter(None, [said, lost(counts), _system_turns(counts, artifacts)]))


def _system_turns(counts: dict[str, Any], artifacts: dict[str, Artifact]) -> str | None:
    if not (rows := counts.get("system")):
        return None
    placeless = any(
        "without_their_system_turn" in made.manifest["summary"] for made in artifacts.values()
    )
    where = "has no place for them: left out" if placeless else "has them in their prompts"
    return f"{rows:,} rows bring a system turn of their own; the framing {where}"


def _summary(
    table: pd.DataFrame, artifacts: dict[str, Artifact], files: tuple[Path, ...], outputs: Outputs
) -> str:
    kept = int(table["kept"].astype(bool).sum())
    selectable = artifacts["subset"].manifest["summary"]["selectable"]
    share = f"{kept / selectable:.1%} of the {selectable:,} that the rule can choose from"
    lines = ["", _counts(artifacts), f"kept {kept:,}: {share}", "near the cut:"]
    lines += _near_the_cut(table, artifacts, files)
    lines += [f"records: {outputs.out}"]
    lines += [f"scores:  {outputs.scores}"] if outputs.scores else []
    return "\n".join(lines + ([f"page:    {outputs.page}"] if outputs.page else []))


def _near_the_cut(
    table: pd.DataFrame, artifacts: dict[str, Artifact], files: tuple[Path, ...]
) -> list[str]:
    """Two kept and two dropped rows that lie nearest to each other in the rule's order."""
    rows = table[table["decision"].notna()] if "decision" in table else table
    ranked = rows[rows["rank"].notna()].sort_values(["rank", "score", "row_id"])
    order = ranked if len(ranked) else rows
    near = order.iloc[nearest(order["kept"].astype(bool).to_numpy())]
    pairs = pd.read_parquet(
        artifacts["pairs"].path / "pairs.parquet", columns=["row_id", "question"]
    )
    texts = pairs.set_index("row_id")["question"]
    lines = []
    for row in near.to_dict("records"):
        where = f"{files[int(row['file']) - 1].name} {int(row['position'])}"
        score = f"score {row['score']:.3f} rank {row['rank']:.3f}" if len(ranked) else "no rank"
        text = " ".join(str(texts[row["row_id"]]).split())
        text = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
        lines.append(f"  {'kept' if row['kept'] else 'dropped':<8}{score}  {where}: {text}")
    return lines


def nearest(kept: npt.NDArray[np.bool_]) -> list[int]:
    """Places of two kept and two dropped rows of an order, those nearest to where it changes."""
    at = np.arange(len(kept))
    away = at.astype(float)
    cuts = np.flatnonzero(kept[1:] != kept[:-1]) + 1
    if len(cuts):
        middle, edges = 2 * at + 1, np.r_[-np.inf, 2.0 * cuts, np.inf]
        right = np.searchsorted(edges, middle)
        away = np.minimum(middle - edges[right - 1], edges[right] - middle)
    sides = (np.flatnonzero(kept == side) for side in (True, False))
    first = (side[np.argsort(away[side], kind="stable")[:SHOWN]] for side in sides)
    return [int(place) for places in first for place in np.sort(places)]


def _check_trainer(outputs: Outputs, config: Config) -> None:
    """Refuse what the trainer could not read, by the first records, before any work is done."""
    if outputs.trainer is None:
        return
    path = stanza_file(outputs.trainer, outputs.out)
    if outputs.trainer != "llamafactory":  # whose file holds entries of others too
        refuse_to_replace(path, outputs.force)
    entries = (entry for entry in sources.read(config.data) if isinstance(entry, Entry))
    readable = (e for e in entries if layout_of(e.record, config.data.fields))
    if first := list(islice(readable, FIRST)):
        form_of_records(first, config.data.fields)


def _write_stanza(trainer: str, outputs: Outputs, config: Config) -> Path:
    written = replace(config.data, path=outputs.out)
    form = form_of_records(sources.read(written), config.data.fields)
    return write_stanza(trainer, outputs.out, form, config.data.source, outputs.force)


def _next(artifacts: dict[str, Artifact], outputs: Outputs, config: Config) -> list[str]:
    """Commands that go on from here."""
    store = config.runtime.store
    audit = f"next:   qaq audit {artifacts['subset'].path.name}{store_option(store)}"
    audit += "   # what it holds and why"
    path = override("data.path", outputs.out)
    data = [f"data={config.data.source}", path, *_as_read(config.data)]
    own = [] if store == RuntimeConfig().store else [override("runtime.store", store)]
    train = shlex.join(["qaq", "run", *data, "selector=full", "train=quick", *own])
    return [audit, f"        {train}   # fine-tune on it"]


def _as_read(data: DataConfig) -> list[str]:
    """The overrides by which the kept records are read as all were."""
    names = asdict(data.fields) if data.fields else {}
    usual = DataConfig(name=data.name, source=data.source)
    return [
        *(override(f"data.fields.{part}", n) for part, n in names.items() if n is not None),
        *(
            f"data.{name}={getattr(data, name)}"
            for name in ("turns", "system")
            if getattr(data, name) != getattr(usual, name)
        ),
    ]
