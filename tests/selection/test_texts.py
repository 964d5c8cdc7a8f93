"""Texts come in the order of their file and know their place in the pool."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.host.errors import StoreError
from qaq.selection import texts as texts_module
from qaq.selection.inputs import load_pool
from qaq.selection.rules import select
from qaq.selection.rules.exclude import Exclude
from qaq.selection.rules.full import Full
from qaq.selection.texts import ABSENT, COLUMNS, TEXTS, File, Texts, without_texts


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
        monkeypatch.setattr(texts_module, "HELD_BYTES", 0)
    path, place = shuffled
    return Texts(File(path), place)


def read(texts):
    """All rows, as their runs are read by threads: place, question, answer."""

    def rows(start, place, block):
        assert start % 10 == 0
        return zip(place.tolist(), *(block[name].to_pylist() for name in COLUMNS), strict=True)

    with ThreadPoolExecutor(3) as threads:
        return [row for run in texts.each(rows, threads) for row in run]


def test_every_row_comes_once_with_its_place_whenever_it_is_asked_for(texts, shuffled):
    for _ in range(2):
        assert read(texts) == [(i, f"q{i}", f"a{i}") for i in shuffled[1]]


def test_a_row_is_found_where_it_stands_in_the_file(texts, shuffled):
    found = [texts.runs.row(i) for i in range(40)]
    assert found == [(f"q{i}", f"a{i}") for i in shuffled[1]]


def test_what_is_said_of_rows_without_their_texts_is_in_the_order_of_the_file(make, tmp_path):
    asked = ["é" * i + "a" for i in range(7)]
    pairs = make.pairs(make.ids(7)[::-1], asked, [one * 2 for one in asked])
    pq.write_table(pairs, tmp_path / "pairs.parquet", row_group_size=3)
    rows = without_texts(tmp_path / "pairs.parquet").to_pylist()
    assert [row["row_id"] for row in rows] == make.ids(7)[::-1]
    assert [row["question_characters"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["answer_characters"] for row in rows] == [2, 4, 6, 8, 10, 12, 14]
    with pytest.raises(StoreError, match="no table at"):
        without_texts(tmp_path / "none.parquet")


def test_runs_are_held_while_there_is_room(shuffled, monkeypatch):
    path, _ = shuffled
    size = sum(File(path).read(run).nbytes for run in (3, 1))
    monkeypatch.setattr(texts_module, "HELD_BYTES", size)
    file = File(path)
    rows = [file.read(run) for run in (3, 1, 0, 2)]
    path.unlink()
    assert file.read(3) is rows[0] and file.read(1) is rows[1]
    for run in (0, 2):
        with pytest.raises(FileNotFoundError):
            file.read(run)


def test_all_texts_come_in_the_order_of_the_pool(texts):
    expected = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(40)]
    assert texts.table().to_pylist() == expected


def test_a_part_of_a_part_of_the_pool_has_its_own_places(texts):
    part = texts.take(np.arange(40) % 2 == 0).take(np.arange(20) >= 5)
    there = sorted(row for row in read(part) if row[0] != ABSENT)
    assert there == [(n, f"q{2 * n + 10}", f"a{2 * n + 10}") for n in range(15)]
    assert part.table()["question"].to_pylist() == [question for _, question, _ in there]


def test_a_pool_without_a_row_has_no_text(make):
    nothing = make.texts(TEXTS.empty_table())
    assert read(nothing) == [] and len(nothing.table()) == 0
    assert read(make.texts()) == [] and len(make.texts().table()) == 0


def test_a_table_without_answers_is_named(tmp_path):
    pq.write_table(pa.table({"question": ["q"]}), tmp_path / "pairs.parquet")
    with pytest.raises(StoreError, match=r"columns \['answer'\] are missing"):
        File(tmp_path / "pairs.parquet")


def test_near_duplicates_are_the_same_from_memory_and_from_the_file(make, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    rows = [" ".join(f"w{w}" for w in rng.integers(0, 5, 30)) for _ in range(60)]
    ids = make.ids(120)
    pairs = make.pairs(ids, rows * 2, [row[::-1] for row in rows * 2])
    order = pa.array(rng.permutation(120))
    pq.write_table(pairs.take(order), tmp_path / "pairs.parquet", row_group_size=25)
    kept = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr(texts_module, "HELD_BYTES", limit)
        selector = Exclude(rule=Full(), near_duplicates=True)
        pool, _ = load_pool(selector, {"pairs": tmp_path})
        kept.append(make.kept(select(selector, pool)))
    assert kept[0] == kept[1] and 0 < len(kept[0]) <= 60
