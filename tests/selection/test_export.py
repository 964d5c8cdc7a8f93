"""What leaves the house is what was kept, in a form that the row reader takes back."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.data.rows import Entry, Pair, read_row
from qaq.host.errors import DataError, UserError
from qaq.selection.export import export
from qaq.selection.inputs import load_pool
from qaq.selection.rules import select
from qaq.selection.rules.rmi import RmiExtreme
from qaq.store.tables import SUBSET, write_table


@pytest.fixture
def subset(make, tmp_path):
    """A pool in an order of its own, and the three of its rows with the highest RMI."""
    ids = make.ids(12)
    shuffled = np.random.default_rng(0).permutation(12)
    for name in ("pairs", "strong/shards", "subset"):
        (tmp_path / name).mkdir(parents=True)
    pairs = make.pairs(ids).take(shuffled)
    pq.write_table(pairs, tmp_path / "pairs" / "pairs.parquet")
    scores = make.scores(ids, rmi=[float(i) for i in range(12)])
    pq.write_table(scores, tmp_path / "strong/shards/0.parquet")
    rule = RmiExtreme(method="rmi_top", bins=1)
    pool, row_ids = load_pool(rule, {r: tmp_path / r for r in ("pairs", "strong")})
    table = select(rule, pool, ratio=0.25).table(row_ids)
    write_table(tmp_path / "subset" / "rows.parquet", table, SUBSET)
    return tmp_path, [i for i in pairs["row_id"].to_pylist() if i in ids[9:]]


def test_the_kept_rows_come_out_in_the_order_of_the_pool(subset):
    folder, expected = subset
    assert export(folder / "subset", folder / "pairs", folder / "kept.jsonl") == 3
    lines = [json.loads(line) for line in (folder / "kept.jsonl").read_text().splitlines()]
    assert [line["row_id"] for line in lines] == expected
    assert all(line["score"] >= 9 for line in lines)


def test_the_reader_takes_the_rows_back_with_their_texts(subset):
    folder, _ = subset
    export(folder / "subset", folder / "pairs", folder / "kept.jsonl")
    pairs = pq.read_table(folder / "pairs" / "pairs.parquet").to_pandas().set_index("row_id")
    for line in (folder / "kept.jsonl").read_text().splitlines():
        record = json.loads(line)
        row = pairs.loc[record["row_id"]]
        pair = read_row(Entry(1, record), "test")
        assert isinstance(pair, Pair)
        assert (pair.question, pair.answer) == (row["question"], row["answer"])


def test_parquet_holds_the_same_rows(subset):
    folder, expected = subset
    export(folder / "subset", folder / "pairs", folder / "kept.parquet")
    table = pd.read_parquet(folder / "kept.parquet")
    assert table["row_id"].tolist() == expected
    assert list(table) == ["row_id", "question", "answer", "source", "score", "rank"]


def test_another_form_is_refused(subset):
    folder, _ = subset
    with pytest.raises(UserError, match=r"\.jsonl or \.parquet"):
        export(folder / "subset", folder / "pairs", folder / "kept.csv")


def test_a_subset_of_another_pool_is_refused(subset, make):
    folder, _ = subset
    pq.write_table(make.pairs(make.ids(13)), folder / "pairs" / "pairs.parquet")
    with pytest.raises(DataError, match="was not chosen from"):
        export(folder / "subset", folder / "pairs", folder / "kept.jsonl")


def test_system_turns_leave_with_their_rows(subset):
    folder, expected = subset
    file = folder / "pairs" / "pairs.parquet"
    pairs = pq.read_table(file)
    said = [f"For {i}." if i == expected[1] else None for i in pairs["row_id"].to_pylist()]
    pq.write_table(pairs.append_column("system", pa.array(said, pa.string())), file)
    export(folder / "subset", folder / "pairs", folder / "kept.jsonl")
    found = [
        read_row(Entry(1, json.loads(line)), "s").system
        for line in (folder / "kept.jsonl").read_text().splitlines()
    ]
    assert found == [None, f"For {expected[1]}.", None]
    export(folder / "subset", folder / "pairs", folder / "kept.parquet")
    assert pq.read_table(folder / "kept.parquet")["system"].to_pylist() == found
