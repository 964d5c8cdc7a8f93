"""Only the spans that are asked for are scored, and those asked for later join the same table."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.cli import main
from qaq.data.config import DataConfig, NoiseConfig, PairsStage
from qaq.host.errors import ConfigError, UserError
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.plan import counting
from qaq.run.compose import compose
from qaq.run.fingerprints import read_by
from qaq.run.pipeline import plan
from qaq.run.runner import make
from qaq.run.stage import Stage
from qaq.scoring.config import FramingConfig, ScoresStage
from qaq.scoring.engine import Engine
from qaq.scoring.metrics import METRICS, spans_of
from qaq.scoring.stage import UNREAL as NO_NUMBER
from qaq.scoring.stage import joined, score_rows
from qaq.selection.config import RULES, spans_read
from qaq.selection.inputs import load_pool
from qaq.selection.pool import build_pool
from qaq.selection.rules import select
from qaq.selection.rules.ifd import IfdCherry
from qaq.selection.rules.longest import Longest
from qaq.selection.rules.rmi import RmiBand
from qaq.selection.rules.then import Then
from qaq.store.store import Store
from qaq.store.tables import (
    SCORES,
    SPANS,
    read_scores,
    read_table,
    scores_schema,
    spans_scored,
)

from .conftest import Tiny

ROWS = 20
RMI, IFD = ("q", "q_given_a"), ("a", "a_given_q")


@pytest.fixture
def scores(tiny_model: Path, tmp_path: Path) -> Stage:
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        "".join(
            json.dumps(
                {"instruction": f"Add {n} to x.", "output": f"def f(x):\n    return x + {n}"}
            )
            + "\n"
            for n in range(ROWS)
        )
    )
    data = DataConfig(name="mine", source="jsonl", path=file)
    pairs = planned(PairsStage(data=data, noise=NoiseConfig(name="none")), "mine")
    settings = ScoresStage(
        model=ModelConfig(name="tiny", id=str(tiny_model), dtype="float32"),
        framing=FramingConfig(name="chat", kind="chat"),
        system_prompt=None,
    )
    return planned(settings, "mine-tiny", {"pairs": pairs})


def planned(
    config: PairsStage | ScoresStage, name: str, inputs: dict[str, Stage] | None = None
) -> Stage:
    """A stage with the hashes of what it reads from elsewhere, as the planner gives it."""
    return Stage(config, name, inputs or {}, fingerprints=read_by(config))


def narrowed(stage: Stage, spans: Iterable[str]) -> Stage:
    return replace(stage, config=replace(stage.config, spans=tuple(spans)))


def build(stage: Stage, root: Path) -> list[str]:
    """Make the stage and its input; the states."""
    runtime = RuntimeConfig(device="cpu", shard_rows=8)
    results = make([stage.inputs["pairs"], stage], Store(root), runtime, lambda _: None)
    assert all(r.error is None for r in results), results
    return [r.state for r in results]


def tables(stage: Stage, root: Path) -> dict[str, np.ndarray]:
    found = Store(root).find("scores", stage.key)
    assert found is not None
    table = read_scores(found.path)
    return {name: np.asarray(table[name]) for name in table.column_names}


def test_a_table_gets_the_spans_that_are_asked_for_later_and_keeps_those_it_has(
    scores: Stage, tmp_path: Path
) -> None:
    some, whole = narrowed(scores, RMI), scores
    assert some.key == whole.key
    root = tmp_path / "store"
    assert build(some, root) == ["ran", "ran"]
    first = tables(some, root)
    assert {name for name in first if name.startswith("nll_")} == {f"nll_{s}" for s in RMI}
    assert build(some, root) == ["reused", "reused"]
    assert build(narrowed(scores, ["q"]), root) == ["reused", "reused"]

    torn = Store(root).work("scores", whole.key) / "out" / "shards" / "part-000001.parquet"
    torn.parent.mkdir()
    torn.write_bytes(bytes(500))  # of an earlier try that lost its power
    assert build(whole, root) == ["reused", "ran"]
    artifact = Store(root).find("scores", whole.key)
    assert artifact is not None and not artifact.damage()
    assert "spans" not in artifact.manifest["summary"] and artifact.manifest["tries"] == 2
    assert len(list((artifact.path / "shards").iterdir())) == 3
    assert spans_scored(artifact.path / "shards") == SPANS
    joined = tables(whole, root)
    for name, values in first.items():
        assert np.array_equal(values, joined[name]), name
    assert build(some, root) == ["reused", "reused"]  # the table holds more than is asked for

    assert build(whole, tmp_path / "other") == ["ran", "ran"]
    for name, values in tables(whole, tmp_path / "other").items():
        if name.startswith("nll_"):
            assert np.allclose(joined[name], values, rtol=0, atol=1e-3), name
        else:
            assert np.array_equal(joined[name], values), name


@pytest.mark.slow
def test_an_interrupted_extension_goes_on_and_shards_of_more_spans_are_no_trouble(
    scores: Stage, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    build(narrowed(scores, RMI), root)
    store = Store(root)
    before = store.find("scores", scores.key)
    assert before is not None
    build(scores, tmp_path / "whole")
    full = Store(tmp_path / "whole").find("scores", scores.key)
    assert full is not None
    shards = store.work("scores", scores.key) / "out" / "shards"
    shards.mkdir()
    done = shards / "part-000001.parquet"  # as a try that was killed behind its first shard left it
    done.write_bytes((full.path / "shards" / done.name).read_bytes())
    build(scores, root)
    made = store.find("scores", scores.key)
    assert made is not None and spans_scored(made.path / "shards") == SPANS
    assert read_table(made.path / "shards" / done.name, SCORES).equals(
        read_table(full.path / "shards" / done.name, SCORES)
    )


@pytest.mark.slow
def test_a_damaged_table_is_not_taken_up(scores: Stage, tmp_path: Path) -> None:
    root = tmp_path / "store"
    build(narrowed(scores, RMI), root)
    found = Store(root).find("scores", scores.key)
    assert found is not None
    shard = found.path / "shards" / "part-000000.parquet"
    changed = bytearray(shard.read_bytes())
    changed[100] ^= 1
    shard.write_bytes(changed)
    assert build(narrowed(scores, IFD), root) == ["reused", "ran"]
    made = Store(root).find("scores", scores.key)
    assert made is not None and spans_scored(made.path / "shards") == IFD


@pytest.mark.slow
def test_a_rule_chooses_the_same_from_its_spans_as_from_all(scores: Stage, tmp_path: Path) -> None:
    rule, chosen = RmiBand(bins=2), []
    for spans, root in ((spans_read(rule), tmp_path / "some"), (SPANS, tmp_path / "all")):
        build(narrowed(scores, spans), root)
        store = Store(root)
        folders = {
            "pairs": store.find("pairs", scores.inputs["pairs"].key),
            "strong": store.find("scores", scores.key),
        }
        pool, _ = load_pool(rule, {role: a.path for role, a in folders.items() if a})
        chosen.append(select(rule, pool, ratio=0.25))
        if spans == RMI:
            with pytest.raises(UserError, match="the scores have no nll_a"):
                select(IfdCherry(), pool, ratio=0.25)
    assert np.array_equal(chosen[0].kept, chosen[1].kept)


def test_every_rule_names_what_it_reads() -> None:
    for name, rule in RULES.items():
        needs = rule.config.needs
        if isinstance(needs, property) or {"strong", "weak"} & set(needs):
            assert hasattr(rule.config, "spans"), name
    assert spans_read(RmiBand()) == RMI and spans_read(IfdCherry()) == IFD
    both = Then(filter=IfdCherry(), filter_ratio=0.5, rank=RmiBand())
    assert spans_read(both) == SPANS


def test_the_spans_of_a_metric_are_those_its_formula_reads() -> None:
    assert spans_of("rmi") == set(RMI) and spans_of("ifd_loss_ratio") == set(IFD)
    assert spans_of("length_a") == {"a"} and spans_of("perplexity_pair") == {"q", "a_given_q"}
    assert spans_of(*METRICS) == set(SPANS)


def test_fewer_spans_are_fewer_tokens_in_a_plan(tiny_model: Path) -> None:
    texts = [("Add one to x, please.", "def f(x):\n    return x + 1\n" * 8, None)]
    model = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    framing = FramingConfig(name="chat", kind="chat")
    run = {
        spans: counting.scored(texts, model, tiny_model, framing, None, spans).run
        for spans in (RMI, IFD, SPANS)
    }
    assert max(run[RMI], run[IFD]) < run[SPANS]


@pytest.mark.slow
def test_select_scores_what_its_rule_reads_and_another_rule_adds_to_it(
    scores: Stage, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(tiny_model)]
    common = ["select", "pairs.jsonl", "--keep", "25%", *model, "-o"]
    assert main([*common, "one.jsonl", "--by", "rmi_top"]) == 0
    (folder,) = Path("artifacts/scores").iterdir()
    assert spans_scored(folder / "shards") == RMI
    assert main([*common, "two.jsonl", "--by", "ifd", "--scores", "table.parquet"]) == 0
    (again,) = Path("artifacts/scores").iterdir()
    assert again == folder and spans_scored(folder / "shards") == SPANS
    assert {"rmi", "ifd_loss_ratio"} <= set(pq.read_schema("table.parquet").names)


def test_what_is_no_number_in_one_span_changes_nothing_for_a_rule_that_reads_others(
    tiny: Tiny,
) -> None:
    class Broken(Engine):
        def score(self, batch: Any) -> list[dict[str, float]]:
            found = super().score(batch)
            return [
                s | {n: math.nan for n in s if (task.row, n) in ((1, "q"), (2, "a"))}
                for task, s in zip(batch, found, strict=True)
            ]

    engine = Broken(tiny.model)
    pairs = [
        {"row_id": f"{n:016x}", "question": f"Add {n} to x.", "answer": f"return x + {n * n}"}
        for n in range(12)
    ]

    def rows(spans: tuple[str, ...]) -> list[dict[str, Any]]:
        progress = Progress("test", len(pairs), "rows")
        return score_rows(pairs, tiny.framer("chat"), engine, 512, progress, spans)

    def chosen(scored: list[dict[str, Any]], spans: tuple[str, ...], rule: Any) -> list[bool]:
        table = pa.Table.from_pylist(scored, scores_schema(spans))
        ids = pa.table({"row_id": [row["row_id"] for row in scored]})
        pool, _ = build_pool(ids, {"strong": table})
        return select(rule, pool, ratio=0.25).kept.tolist()

    whole = rows(SPANS)
    assert [row["reason"] for row in whole[:4]] == [None, NO_NUMBER + "q", NO_NUMBER + "a", None]
    assert whole[1]["nll_q"] is whole[1]["tokens_q"] is None and whole[1]["nll_a"] is not None
    for rule in (RmiBand(bins=2), IfdCherry(), Longest()):
        spans = spans_read(rule)
        some = rows(spans)
        later = joined(some, rows(tuple(s for s in SPANS if s not in spans)))
        assert [row["reason"] for row in later] == [row["reason"] for row in whole]
        assert chosen(some, spans, rule) == chosen(later, SPANS, rule) == chosen(whole, SPANS, rule)
    assert joined(rows(("q",)), rows(("q_given_a", "a")))[1]["reason"] == NO_NUMBER + "q"


def test_a_run_asks_for_what_its_rules_and_the_metrics_asked_for_read() -> None:
    def asked(*overrides: str) -> set[Any]:
        stages = plan(compose(list(overrides)))
        found = {stage.config.spans for stage in stages if isinstance(stage.config, ScoresStage)}
        assert getattr(stages[-1].config, "spans", SPANS) in (found or {SPANS})
        return found

    assert asked("selector=rmi_band") == {RMI} and asked("selector=ifd") == {IFD}
    assert asked("experiment=quickstart") == {SPANS}  # an arm by RMI, one by IFD
    assert asked("selector=rmi_band", "metrics=[length_a]") == {("q", "q_given_a", "a")}
    assert asked("selector=rmi_band", "metrics=all") == {SPANS}
    assert asked("selector=random") == set() and asked("selector=random", "metrics=ifd") == {IFD}
    # what a study asks a model about each pair has one span
    assert asked("experiment=metric_agreement", "data=stdlib") == {SPANS, ("a_given_q",)}
    with pytest.raises(ConfigError, match=r"metrics: .*did you mean rmi"):
        compose(["metrics=[rmy]"])
