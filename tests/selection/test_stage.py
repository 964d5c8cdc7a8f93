"""The stage on real files: artifacts in, one audited table out."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.host.errors import DataError
from qaq.host.runtime import RuntimeConfig
from qaq.selection import stage
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, SUBSET, read_table, write_table


@pytest.fixture
def order(make, tmp_path):
    """Write inputs for n rows and return a job for a rule."""

    def prepare(selector, n=40, *, weak_rows=None, ratio=0.25, seed=1, **strong):
        ids = make.ids(n)
        for name in ("pairs", "strong/shards", "weak/shards", "out", "scratch"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(make.pairs(ids), tmp_path / "pairs" / "pairs.parquet")
        strong.setdefault("rmi", [i / 10 for i in range(n)])
        strong.setdefault("ppl_q", [1 + (7 * i % n) / n for i in range(n)])
        table = make.scores(ids, **strong)
        for shard, start in enumerate(range(0, n, 16)):  # as the engine leaves them: in parts
            pq.write_table(table.slice(start, 16), tmp_path / f"strong/shards/{shard:05d}.parquet")
        weak_ids = ids if weak_rows is None else ids[:weak_rows]
        weak = make.scores(weak_ids, rmi=[-i / 10 for i in range(len(weak_ids))])
        pq.write_table(
            weak.take(pa.array(range(len(weak_ids))[::-1])), tmp_path / "weak/shards/0.parquet"
        )
        return Job(
            kind="subset",
            name="test",
            key="0" * 64,
            config={"selector": selector, "ratio": ratio, "seed": seed},
            inputs={role: tmp_path / role for role in ("pairs", "strong", "weak")},
            out=tmp_path / "out",
            scratch=tmp_path / "scratch",
            runtime=RuntimeConfig(),
        )

    return prepare


def rows(job):
    return read_table(job.out / "rows.parquet", SUBSET).to_pandas()


def test_the_table_holds_every_row_once_with_its_reason(order, make):
    job = order({"method": "rmi_band"})
    summary = stage.run(job)
    table = rows(job)
    assert table.row_id.tolist() == make.ids(40)
    assert table.kept.sum() == summary["kept"] == 10
    assert table.reason.value_counts().to_dict() == summary["reasons"]
    assert summary["rows"] == summary["selectable"] == 40
    assert json.dumps(summary)
    kept = table[table.kept]
    assert kept["rank"].between(0.4, 0.85).all()
    assert table.stratum.nunique() == 10


def test_the_file_does_not_depend_on_the_order_of_the_pool(order):
    job = order({"method": "diff_high"})
    stage.run(job)
    first = (job.out / "rows.parquet").read_bytes()
    pairs = job.inputs["pairs"] / "pairs.parquet"
    table = pq.read_table(pairs)
    pq.write_table(table.take(pa.array(range(len(table))[::-1])), pairs)
    stage.run(job)
    assert (job.out / "rows.parquet").read_bytes() == first


def test_no_rule_sees_what_was_planted(order):
    job = order({"method": "rmi_band"})
    stage.run(job)
    before = rows(job)
    pairs = job.inputs["pairs"] / "pairs.parquet"
    table = pq.read_table(pairs)
    defects = pa.array(["swapped_answer"] * len(table), pa.string())
    write_table(pairs, table.set_column(4, "defect", defects), PAIRS)
    stage.run(job)
    assert rows(job).equals(before)
    pq.write_table(table.drop_columns(["defect"]), pairs)
    stage.run(job)
    assert rows(job).equals(before)


def test_an_unscored_row_is_null_with_the_engines_reason(order):
    reasons = [None] * 39 + ["no room for the question"]
    job = order({"method": "rmi_top"}, reasons=reasons, ratio=0.5)
    summary = stage.run(job)
    last = rows(job).iloc[-1]
    assert last.isna()[["score", "stratum", "rank"]].all()
    assert (last.kept, last.reason) == (False, "no score: no room for the question")
    assert (summary["selectable"], summary["kept"]) == (39, round(0.5 * 39))


def test_a_rule_without_scores_reads_none(order):
    job = order({"method": "random"})
    del job.inputs["strong"], job.inputs["weak"]
    assert stage.run(job)["kept"] == 10


def test_two_models_that_scored_different_rows_stop_the_stage(order):
    job = order({"method": "diff_high"}, weak_rows=33)
    with pytest.raises(
        DataError, match="7 rows are only in the strong scores and 0 only in the weak"
    ):
        stage.run(job)
    assert not (job.out / "rows.parquet").exists()


def test_the_record_holds_the_counts(order):
    job = order({"method": "full"}, ratio=None, seed=None)
    stage.run(job)
    lines = [json.loads(line) for line in (job.out / "record.jsonl").read_text().splitlines()]
    assert lines[-1]["kept"] == lines[-1]["rows"] == 40
