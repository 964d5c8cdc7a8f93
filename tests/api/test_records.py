"""The kept records are those of the source, byte for byte, in their form and order."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaq.api import records
from qaq.api.records import check_form
from qaq.data import sources
from qaq.data.config import DataConfig
from qaq.data.identity import identity
from qaq.host.errors import DataError, UserError
from qaq.host.targets import check_targets

KEPT = {(1, 2), (1, 4)}
NOTES = {place: {"row_id": f"r{place[1]}", "rmi": place[1] / 4, "rank": None} for place in KEPT}
ITEMS = [  # spaces, escapes, orders of keys and numbers that a second writing would change
    '{"instruction":"a",  "output" : "1"}',
    '{"output":"caf\\u00e9 \u2028", "instruction": "b", "n": 1.0, "e": 1E3}',
    '{ "instruction": "c", "output": "3" }',
    '{"instruction": "d\u00e9", "output": "4", "x": {"y": [1, null]}}',
]
CELLS = ["a,1", '"b, ""quoted""\nline",2', "c,3", 'd,"4"']


def config(source, *paths):
    return DataConfig(name="test", source=source, path=paths)


def write_records(data, out, kept, notes=None):
    records.write_records(data, out, kept, identity(data), notes)


def write(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_kept_as_they_are(tmp_path, end):
    path = write(tmp_path / "in.jsonl", "\ufeff" + end.join(ITEMS))
    out = tmp_path / "out.jsonl"
    write_records(config("jsonl", path), out, KEPT)
    lines = [ITEMS[1], ITEMS[3]]
    assert out.read_bytes() == "".join(f"{line}{end}" for line in lines).encode()


@pytest.mark.parametrize("between", [",", ",\n  ", " ,\t"])
def test_items_of_a_list_are_kept_as_they_are(tmp_path, between):
    path = write(tmp_path / "in.json", f"[ {between.join(ITEMS)}\n]")
    out = tmp_path / "out.json"
    write_records(config("json", path), out, KEPT)
    assert out.read_bytes() == f"[\n{ITEMS[1]},\n{ITEMS[3]}\n]\n".encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_records_are_kept_as_they_are_under_their_header(tmp_path, end):
    path = write(tmp_path / "in.csv", end.join(["prompt,completion", *CELLS]) + end)
    out = tmp_path / "out.csv"
    write_records(config("csv", path), out, KEPT)
    assert out.read_bytes() == end.join(["prompt,completion", CELLS[1], CELLS[3], ""]).encode()


def test_parquet_keeps_all_columns_the_schema_and_what_is_noted_of_it(tmp_path):
    schema = pa.schema(
        [
            ("instruction", pa.large_string()),
            ("tags", pa.list_(pa.string())),
            ("kind", pa.dictionary(pa.int32(), pa.string())),
            ("stars", pa.decimal128(5, 2)),
            pa.field("output", pa.string(), metadata={"of": "me"}),
        ],
        metadata={"made by": "hand"},
    )
    rows = [
        {"instruction": f"i{n}", "tags": ["x"] * n, "kind": "k", "output": str(n)}
        for n in range(1, 6)
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2, compression="gzip")
    out = tmp_path / "out.parquet"
    write_records(config("parquet", tmp_path / "in.parquet"), out, KEPT)
    found = pq.read_table(out)
    there = pq.read_table(tmp_path / "in.parquet")
    assert there.schema.metadata == schema.metadata
    assert found.schema.equals(there.schema, check_metadata=True)
    assert found.equals(there.take([1, 3]))
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "GZIP"


@pytest.mark.parametrize(
    ("ending", "packing"), [("gz", "gzip"), ("zst", "zstd"), ("bz2", "bz2"), ("GZ", "gzip")]
)
def test_a_packed_name_gives_a_packed_file_with_the_same_bytes(tmp_path, ending, packing):
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(ITEMS).encode()))
    out = tmp_path / f"out.jsonl.{ending}"
    write_records(config("jsonl", path), out, KEPT)
    with pa.input_stream(out, compression=packing) as file:
        assert file.read() == f"{ITEMS[1]}\n{ITEMS[3]}\n".encode()


def test_several_files_give_one_in_their_order(tmp_path):
    b = write(tmp_path / "b.jsonl", f"{ITEMS[0]}\n\n{ITEMS[1]}")
    a = write(tmp_path / "a.jsonl", f"\ufeff{ITEMS[2]}\n{ITEMS[3]}\n")
    out = tmp_path / "out.jsonl"
    write_records(config("jsonl", b, a), out, {(1, 3), (2, 1)})
    assert out.read_text(encoding="utf-8") == f"{ITEMS[1]}\n{ITEMS[2]}\n"


@pytest.mark.parametrize("source", ["jsonl", "json"])
def test_scores_go_under_one_key_and_the_rest_stays_byte_for_byte(tmp_path, source):
    text = "\n".join(ITEMS) if source == "jsonl" else f"[{','.join(ITEMS)}]"
    out = tmp_path / "out"
    write_records(config(source, write(tmp_path / "in", text)), out, KEPT, NOTES)
    note = '"qaq": {"row_id": "r2", "rmi": 0.5, "rank": null}}'
    assert f"{ITEMS[1][:-1]}, {note}" in out.read_text(encoding="utf-8")
    found = [e.record for e in sources.read(config(source, out))]
    assert [r.pop("qaq") for r in found] == [NOTES[place] for place in sorted(KEPT)]
    assert found == [json.loads(ITEMS[1]), json.loads(ITEMS[3])]


def test_scores_are_one_more_column_of_csv_and_parquet(tmp_path):
    path = write(tmp_path / "in.csv", "prompt;completion\na;1\nb;2\nc;3\nd;4")
    out = tmp_path / "out.csv"
    write_records(config("csv", path), out, KEPT, NOTES)
    rows = [e.record for e in sources.read(config("csv", out))]
    assert [json.loads(r["qaq"]) for r in rows] == [NOTES[place] for place in sorted(KEPT)]
    assert out.read_text().startswith("prompt;completion;qaq\nb;2;")
    meta = {"huggingface": "says that there are two columns"}
    table = pa.table({"prompt": list("abcd"), "completion": list("1234")})
    pq.write_table(table.replace_schema_metadata(meta), tmp_path / "in.parquet")
    write_records(config("parquet", tmp_path / "in.parquet"), tmp_path / "o.parquet", KEPT, NOTES)
    found = pq.read_table(tmp_path / "o.parquet")
    assert found["qaq"].to_pylist() == [NOTES[place] for place in sorted(KEPT)]
    assert b"huggingface" not in (found.schema.metadata or {})


@pytest.mark.parametrize("source", ["jsonl", "json", "csv"])
def test_a_record_that_has_the_key_already_is_not_overwritten(tmp_path, source):
    text = {"jsonl": '{"qaq": 1}', "json": '[{"qaq": 1}]', "csv": "qaq,b\n1,2"}[source]
    data = config(source, write(tmp_path / "in", text))
    with pytest.raises(UserError, match="a field qaq already"):
        write_records(data, tmp_path / "out", {(1, 1)}, {(1, 1): {}})
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_between_reading_and_writing_gives_no_file(tmp_path, monkeypatch):
    path = write(tmp_path / "in.jsonl", "\n".join(ITEMS))
    data = config("jsonl", path)
    with pytest.raises(DataError, match="changed between reading and writing"):
        write_records(data, tmp_path / "out.jsonl", {*KEPT, (1, 9)})
    before = identity(data)
    write(path, "\n".join(ITEMS[::-1]))
    with pytest.raises(DataError, match="changed between reading and writing"):
        records.write_records(data, tmp_path / "out.jsonl", KEPT, before)
    read = sources.read

    def changing(asked):
        yield from read(asked)
        path.write_text("{}")

    monkeypatch.setattr(sources, "read", changing)
    with pytest.raises(DataError, match="changed between reading and writing"):
        write_records(data, tmp_path / "out.jsonl", KEPT)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl"]


def test_files_with_other_columns_are_not_put_together(tmp_path):
    a, b = write(tmp_path / "a.csv", "x,y\n1,2\n"), write(tmp_path / "b.csv", "y,x\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        write_records(config("csv", a, b), tmp_path / "out", {(1, 1)})
    tables = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pq.write_table(pa.table({"x": [1]}), tables[0])
    pq.write_table(pa.table({"x": ["1"]}), tables[1])
    with pytest.raises(UserError, match="other columns"):
        write_records(config("parquet", *tables), tmp_path / "out", {(1, 1), (2, 1)})


@pytest.mark.parametrize(
    ("out", "form", "said"),
    [
        ("best.parquet", "jsonl", r"end the name in \.jsonl"),
        ("best.parquet.gz", "parquet", "packs its own columns"),
        ("BEST.PARQUET.GZ", "parquet", "packs its own columns"),
    ],
)
def test_an_output_of_another_form_is_refused(out, form, said):
    with pytest.raises(UserError, match=said):
        check_form(Path(out), form, [Path("pairs")])
    check_form(Path("out.json.gz"), "jsonl", [Path("lines.json")])
    check_form(Path("OUT.CSV.GZ"), "csv", [Path("POOL.CSV.gz")])


def test_what_stands_between_cells_stays_and_so_does_the_name_that_says_it():
    check_form(Path("best.tsv"), "csv", [Path("pairs.tsv.gz")])
    check_form(Path("best.csv"), "csv", [Path("stdin")])
    with pytest.raises(UserError, match=r"end the name in \.tsv"):
        check_form(Path("best.csv"), "csv", [Path("pairs.tsv")])


@pytest.mark.parametrize(
    ("targets", "force", "said"),
    [
        (["there.jsonl"], False, "there already"),
        (["new.jsonl", "pairs.jsonl"], True, "one of the files to choose from"),
        (["new.jsonl", "./new.jsonl"], True, "named for two outputs"),
        (["no/new.jsonl"], True, "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    tmp_path, targets, force, said, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pairs = write(tmp_path / "pairs.jsonl", "{}")
    write(tmp_path / "there.jsonl", "{}")
    with pytest.raises(UserError, match=said):
        check_targets([*map(Path, targets), None], [pairs], force)
    check_targets([Path("there.jsonl"), None, Path("new.parquet")], [pairs], True)


def test_a_csv_header_may_hold_the_end_of_a_line(tmp_path):
    header = '"prompt\r\n(text)",completion'
    path = write(tmp_path / "in.csv", "\r\n".join([header, *CELLS]))
    out = tmp_path / "out.csv"
    write_records(config("csv", path), out, KEPT, NOTES)
    rows = [e.record for e in sources.read(config("csv", out))]
    assert [list(row) for row in rows] == [["prompt\r\n(text)", "completion", "qaq"]] * 2


def test_columns_of_views_come_out_as_texts(tmp_path):
    table = pa.table({"prompt": pa.array(list("abcd"), pa.string_view()), "completion": [*"1234"]})
    pq.write_table(table, tmp_path / "in.parquet")
    write_records(config("parquet", tmp_path / "in.parquet"), tmp_path / "out.parquet", KEPT)
    assert pq.read_table(tmp_path / "out.parquet")["prompt"].to_pylist() == ["b", "d"]
