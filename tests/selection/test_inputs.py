"""Reading what the rarer rules need: contamination tables and embeddings."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.host.errors import DataError, UserError
from qaq.selection.inputs import bar, load_pool
from qaq.selection.rules import select
from qaq.selection.rules.exclude import Exclude
from qaq.selection.rules.full import Full
from qaq.selection.rules.longest import Longest
from qaq.selection.rules.random import Random
from qaq.selection.rules.rds import RdsPlus
from qaq.selection.rules.undamaged import Undamaged
from qaq.store.tables import OVERLAPS


@pytest.fixture
def folder(make, tmp_path):
    """A pairs artifact of ten rows."""
    pq.write_table(make.pairs(make.ids(10)), tmp_path / "pairs.parquet")
    return tmp_path


def overlaps(folder, ids, benchmarks, kinds):
    folder.mkdir()
    columns = {
        "row_id": ids,
        "benchmark": benchmarks,
        "task_id": ["0"] * len(ids),
        "kind": kinds,
        "evidence": ["shared words"] * len(ids),
    }
    pq.write_table(pa.table(columns, schema=OVERLAPS), folder / "overlaps.parquet")
    return folder


def test_a_row_that_touches_several_benchmarks_names_them_all(make, folder):
    ids = make.ids(10)
    touched = overlaps(
        folder / "o",
        [ids[3], ids[3], ids[7], ids[8]],
        ["mbpp", "humaneval", "mbpp", "mbpp"],
        ["prompt_run", "exact", "solution_run", "entry_point"],
    )
    selector = Exclude(rule=Full(), contaminated=True)
    pool, row_ids = load_pool(selector, {"pairs": folder, "overlaps": touched})
    decision = select(selector, pool)
    assert decision.counts() == {
        "kept: every row": 8,
        "excluded: contaminated: humaneval, mbpp": 1,
        "excluded: contaminated: mbpp": 1,
    }
    assert [row_ids[i].as_py() for i in np.flatnonzero(~decision.kept)] == [ids[3], ids[7]]


def test_a_shared_function_name_bars_a_row_only_when_asked_for(make, folder):
    touched = overlaps(folder / "o", make.ids(10)[:1], ["mbpp"], ["entry_point"])
    inputs = {"pairs": folder, "overlaps": touched}
    for kinds, kept in ((("exact",), 10), (("exact", "entry_point"), 9)):
        selector = Exclude(rule=Full(), contaminated=True, kinds=kinds)
        assert select(selector, load_pool(selector, inputs)[0]).kept.sum() == kept


def test_a_pool_without_any_contaminated_row_loses_none(folder):
    selector = Exclude(rule=Full(), contaminated=True)
    inputs = {"pairs": folder, "overlaps": overlaps(folder / "o", [], [], [])}
    assert select(selector, load_pool(selector, inputs)[0]).kept.all()


def test_what_an_exclusion_needs_is_named():
    assert Exclude(rule=Longest(), contaminated=True).needs == ("strong", "overlaps")
    assert Exclude(rule=Longest(), near_duplicates=True).needs == ("strong",)


def test_a_barred_row_that_is_not_in_the_pool_is_refused(make):
    pool = make.pool(3)
    with pytest.raises(DataError, match="1 of 2 barred rows are not in the pool"):
        bar(pool.keys, {make.ids(3)[1]: "x", "ffffffffffffffff": "y"})


def test_near_duplicates_are_found_in_the_texts_of_the_pool(make, tmp_path):
    ids = make.ids(3)
    text = "one two three four five six seven eight nine ten"
    pairs = make.pairs(ids, questions=["q", text, text], answers=["a", text, text])
    pq.write_table(pairs.take(pa.array([2, 0, 1])), tmp_path / "pairs.parquet")
    selector = Exclude(rule=Full(), near_duplicates=True)
    pool, _ = load_pool(selector, {"pairs": tmp_path})
    assert make.kept(select(selector, pool)) == [0, 1]


def embeddings(folder, ids, rows):
    folder.mkdir()
    np.save(folder / "rows.npy", rows)
    pq.write_table(pa.table({"row_id": ids}), folder / "row_ids.parquet")
    return folder


@pytest.fixture
def queries(tmp_path):
    (tmp_path / "queries").mkdir()
    np.save(tmp_path / "queries" / "rows.npy", np.array([[1.0, 0.0]]))
    return tmp_path / "queries"


def test_embeddings_are_joined_by_row_id(make, folder, queries):
    ids = make.ids(10)
    angles = np.linspace(0, np.pi, 10)
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    shuffled = np.random.default_rng(0).permutation(10)
    vectors = embeddings(folder / "e", [ids[i] for i in shuffled], rows[shuffled])
    inputs = {"pairs": folder, "embeddings": vectors, "queries": queries}
    pool, _ = load_pool(RdsPlus(), inputs)
    decision = select(RdsPlus(), pool, ratio=0.3)
    assert make.kept(decision) == [0, 1, 2]
    np.testing.assert_allclose(decision.score, np.cos(angles), atol=1e-6)


def test_embeddings_of_another_pool_are_counted(make, folder, queries):
    vectors = embeddings(folder / "e", make.ids(12)[:9], np.ones((9, 2)))
    shared = len(set(make.ids(12)[:9]) & set(make.ids(10)))
    with pytest.raises(DataError, match=f"9 vectors for 9 row ids, {shared} of which"):
        load_pool(RdsPlus(), {"pairs": folder, "embeddings": vectors, "queries": queries})


def test_only_the_tables_that_a_rule_needs_are_read(make, folder):
    (folder / "strong" / "shards").mkdir(parents=True)
    pq.write_table(make.scores(make.ids(10)), folder / "strong" / "shards" / "0.parquet")
    pool, _ = load_pool(Longest(), {"pairs": folder, "strong": folder / "strong"})
    assert set(pool.scores) == {"strong"} and pool.texts is None


def test_only_the_oracle_sees_what_was_planted_and_a_sound_pool_has_none(make, folder):
    ids = make.ids(10)
    oracle = Undamaged(rule=Random())
    with pytest.raises(UserError, match="no row of this pool was damaged"):
        select(oracle, load_pool(oracle, {"pairs": folder})[0], ratio=0.5, seed=1)
    rows = make.pairs(ids)
    planted = pa.array(["echo", None, "truncated", *[None] * 7], pa.string())
    rows = rows.set_column(rows.column_names.index("defect"), "defect", planted)
    pq.write_table(rows, folder / "pairs.parquet")
    assert load_pool(Random(), {"pairs": folder})[0].defects is None
    pool, row_ids = load_pool(oracle, {"pairs": folder})
    decision = select(oracle, pool, ratio=0.5, seed=1)
    kept = {row_ids[i].as_py() for i in np.flatnonzero(decision.kept)}
    assert len(kept) == 4
    assert not kept & {ids[0], ids[2]}
    assert decision.counts()["excluded: echo"] == decision.counts()["excluded: truncated"] == 1
