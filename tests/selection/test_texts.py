"""Texts come in the order of their file and know their place in the pool."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq import artifacts
from qaq.artifacts import PAIRS
from qaq.errors import StoreError
from qaq.selection import texts as texts_module
from qaq.selection.config import Exclude, Full
from qaq.selection.inputs import load_pool
from qaq.selection.rules import select
from qaq.selection.texts import File, Texts


@pytest.fixture
def shuffled(make, tmp_path):
    """A file of 40 pairs in four row groups, out of order: the file, and each row's place."""
    place = np.random.default_rng(0).permutation(40)
    ids = make.ids(40)
    pairs = make.pairs([ids[i] for i in place], [f"q{i}" for i in place], [f"a{i}" for i in place])
    pq.write_table(pairs, tmp_path / "pairs.parquet", row_group_size=10)
    return tmp_path / "pairs.parquet", place


@pytest.fixture(params=["kept in memory", "read from the file"])
def texts(request, monkeypatch, shuffled):
    if request.param == "read from the file":
        monkeypatch.setattr(texts_module, "KEPT_BYTES", 0)
    monkeypatch.setattr(artifacts, "BATCH_ROWS", 7)
    path, place = shuffled
    return Texts(File(path), place)


def read(texts):
    return [
        (int(at), row["question"], row["answer"])
        for place, block in texts.blocks()
        for at, row in zip(place, block.to_pylist(), strict=True)
    ]


def test_every_row_comes_once_with_its_place_whenever_it_is_asked_for(texts, shuffled):
    for _ in range(2):
        assert read(texts) == [(i, f"q{i}", f"a{i}") for i in shuffled[1]]
    assert [len(block) for _, block in texts.blocks()] == [0, *[7, 3] * 4]


def test_texts_are_kept_up_to_a_size_and_only_when_all_were_read(shuffled, monkeypatch):
    path, _ = shuffled
    small = File(path)
    next(iter(small))
    assert small.kept is None
    list(small)
    monkeypatch.setattr(texts_module, "KEPT_BYTES", 0)
    large = File(path)
    list(large)
    assert large.kept is None
    path.unlink()
    assert sum(len(block) for block in small) == 40


def test_rows_that_are_asked_for_come_in_the_order_of_the_pool(texts):
    mask = np.arange(40) % 7 == 3
    expected = [{"question": f"q{i}", "answer": f"a{i}"} for i in np.flatnonzero(mask)]
    assert texts.rows(mask).to_pylist() == expected
    assert texts.rows(np.zeros(40, np.bool_)).to_pylist() == []


def test_a_part_of_a_part_of_the_pool_has_its_own_places(texts):
    part = texts.take(np.arange(40) % 2 == 0).take(np.arange(20) >= 5)
    assert sorted(read(part)) == [(n, f"q{2 * n + 10}", f"a{2 * n + 10}") for n in range(15)]
    assert part.rows(np.arange(15) == 4)["question"].to_pylist() == ["q18"]


def test_a_pool_without_a_row_has_no_text():
    nothing = Texts([PAIRS.empty_table()], np.empty(0, np.int64))
    assert read(nothing) == [] and len(nothing.rows(np.zeros(0, np.bool_))) == 0


def test_a_table_without_answers_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "KEPT_BYTES", 0)
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "pairs.parquet")
    with pytest.raises(StoreError, match=r"columns \['answer'\] are missing"):
        read(Texts(File(tmp_path / "pairs.parquet"), np.arange(1)))


def test_near_duplicates_are_the_same_from_memory_and_from_the_file(make, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    rows = [" ".join(f"w{w}" for w in rng.integers(0, 5, 30)) for _ in range(60)]
    ids = make.ids(120)
    pairs = make.pairs(ids, rows * 2, [row[::-1] for row in rows * 2])
    order = pa.array(rng.permutation(120))
    pq.write_table(pairs.take(order), tmp_path / "pairs.parquet", row_group_size=25)
    kept = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(texts_module, "KEPT_BYTES", limit)
        monkeypatch.setattr(artifacts, "BATCH_ROWS", 11)
        selector = Exclude(rule=Full(), near_duplicates=True)
        pool, _ = load_pool(selector, {"pairs": tmp_path})
        kept.append(make.kept(select(selector, pool)))
    assert kept[0] == kept[1] and 0 < len(kept[0]) <= 60
