import json
import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from qaq.data import identity, sources
from qaq.data.config import DataConfig
from qaq.data.rows import Entry, Rejected
from qaq.host.errors import DataError

ROWS = [{"instruction": f"Say {i}.", "output": f"print({i})"} for i in range(3)]


def config(source, path):
    return DataConfig(name="test", source=source, path=path)


def test_a_broken_line_in_the_middle_is_refused_with_its_number_and_the_rest_is_read(write_jsonl):
    path = write_jsonl(ROWS[0], b'{"instruction": "cut of', ROWS[1], b"", ROWS[2])
    entries = list(sources.read(config("jsonl", path)))
    assert [e.position for e in entries] == [1, 2, 3, 5]
    assert [e.record for e in entries if isinstance(e, Entry)] == ROWS
    broken = entries[1]
    assert isinstance(broken, Rejected)
    assert (broken.reason, broken.raw) == ("broken_json", '{"instruction": "cut of')


def test_a_line_that_is_not_utf8_is_refused_and_its_bytes_can_be_read_back(write_jsonl):
    line = b'{"instruction": "caf\xe9", "output": "x"}'
    _, refused, _ = sources.read(config("jsonl", write_jsonl(ROWS[0], line, ROWS[1])))
    assert (refused.position, refused.reason) == (2, "not_utf8")
    assert "byte 21" in refused.detail
    assert "caf\\xe9" in refused.raw


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"{'a': 1}"])
def test_lines_that_json_cannot_hold_are_refused_not_raised(write_jsonl, line):
    entries = list(sources.read(config("jsonl", write_jsonl(ROWS[0], line, ROWS[1]))))
    assert [getattr(e, "reason", None) for e in entries] == [None, "broken_json", None]


def test_a_byte_order_mark_windows_line_ends_and_unicode_line_separators_are_harmless(tmp_path):
    path = tmp_path / "pool.jsonl"
    text = json.dumps({"prompt": "a\u2028b", "completion": "c"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n" + text.encode())
    entries = list(sources.read(config("jsonl", path)))
    assert [e.record["prompt"] for e in entries] == ["a\u2028b"] * 2
    assert entries[0].raw == text


def test_a_json_list_and_a_parquet_file_give_the_same_rows_as_lines(tmp_path, write_jsonl):
    listed = tmp_path / "pool.json"
    listed.write_text(json.dumps(ROWS))
    table = tmp_path / "pool.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), table, row_group_size=2)
    for source, path in (("json", listed), ("parquet", table), ("jsonl", write_jsonl(*ROWS))):
        entries = list(sources.read(config(source, path)))
        assert [(e.position, e.record) for e in entries] == list(enumerate(ROWS, start=1)), source


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n{"a": 2}\n', "data.source=jsonl"),
        (b'{"rows": []}', "expected a list"),
        (b'[{"a": 1},', "not JSON"),
        (b'["caf\xe9"]', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_json_file_that_is_no_list_is_an_error_that_says_what_to_do(tmp_path, content, said):
    path = tmp_path / "pool.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(sources.read(config("json", path)))


def test_a_file_that_is_no_parquet_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "pool.parquet"
    path.write_bytes(b"not a table")
    with pytest.raises(DataError, match=r"pool\.parquet cannot be read as Parquet"):
        list(sources.read(config("parquet", path)))


@pytest.mark.parametrize("source", ["jsonl", "json", "parquet"])
def test_a_missing_file_is_an_error_with_its_path(tmp_path, source):
    with pytest.raises(DataError, match=r"no such file: .*nowhere"):
        list(sources.read(config(source, tmp_path / "nowhere")))


def test_a_folder_without_a_file_of_the_form_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no \.jsonl or \.ndjson or .* in"):
        list(sources.read(config("jsonl", tmp_path)))


def records(source, path):
    return [entry.record for entry in sources.read(config(source, path))]


@pytest.mark.parametrize("packing", ["gzip", "zstd", "bz2"])
@pytest.mark.parametrize("source", ["jsonl", "json"])
def test_packed_files_are_read_whatever_their_name(tmp_path, source, packing):
    text = json.dumps(ROWS) if source == "json" else "\n".join(map(json.dumps, ROWS))
    path = tmp_path / "pool"
    with pa.output_stream(path, compression=packing) as file:
        file.write(text.encode())
    assert records(source, path) == ROWS
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"damaged|not JSON"):
        records(source, path)


def test_the_files_of_a_folder_or_a_pattern_are_one_source_and_each_row_says_which(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, row in enumerate(ROWS):
        (shards / f"part-{number}.jsonl").write_text(f"\n{json.dumps(row)}\n")
    (shards / ".hidden.jsonl").write_text("no")
    (shards / "README.md").write_text("no")
    for path in (shards, shards / "part-*.jsonl", tmp_path / "**" / "*-*.jsonl"):
        entries = list(sources.read(config("jsonl", path)))
        assert [e.record for e in entries] == ROWS
        assert [(e.file, e.position) for e in entries] == [(1, 2), (2, 2), (3, 2)]
    several = (shards / "part-2.jsonl", shards, shards / "part-2.jsonl")
    entries = list(sources.read(config("jsonl", several)))
    assert [e.record for e in entries] == [ROWS[2], ROWS[0], ROWS[1]]
    for number, row in enumerate(ROWS):
        pq.write_table(pa.Table.from_pylist([row]), shards / f"{number}.parquet")
    assert records("parquet", shards) == ROWS


def test_shards_are_found_by_their_endings_in_any_case(tmp_path):
    names = ("a.JSONL", "b.jsonl.GZ", "c.jsonlines", "d.jl.zst", "e.NDJSON.bz2")
    for number, name in enumerate(names):
        packing = identity.PACKED.get((tmp_path / name).suffix.lower())
        with pa.output_stream(tmp_path / name, compression=packing) as file:
            file.write(json.dumps({"number": number}).encode())
    assert records("jsonl", tmp_path) == [{"number": number} for number in range(5)]


@pytest.mark.parametrize(
    "name", ["b.jsonl.xz", "b.JSONL.ZIP", "b.jsonl.tar.gz", "b.jsonl.tgz", "data-00000.arrow"]
)
def test_a_shard_that_cannot_be_read_ends_the_reading_of_its_folder(tmp_path, name):
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "notes.zip").touch()
    assert records("jsonl", tmp_path) == [{}]
    (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / f"*{name[1:]}", tmp_path / name):
        with pytest.raises(DataError, match=rf"{name} is (packed in a way|what Dataset)"):
            records("jsonl", path)


def test_links_inside_a_folder_are_followed_to_files_and_refused_to_folders(tmp_path):
    for name in ("shards", "more"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jsonl").write_text(f'{{"from": "{name}"}}')
    link = tmp_path / "shards" / "link.jsonl"
    link.symlink_to(tmp_path / "more" / "more.jsonl")
    (tmp_path / "shards" / ".cache").symlink_to(tmp_path / "more")
    assert records("jsonl", tmp_path / "shards") == [{"from": "more"}, {"from": "shards"}]
    (tmp_path / "shards" / "more").symlink_to(tmp_path / "more")
    with pytest.raises(DataError, match=r"shards/more is a link to a folder.*shards/\*\.jsonl'"):
        records("jsonl", tmp_path / "shards")
    (tmp_path / "shards" / "more").unlink()
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"link\.jsonl is no file, or a link that leads nowhere"):
        records("jsonl", tmp_path / "shards")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_in_a_file_named_jsonl_gives_its_items(tmp_path, indent):
    path = tmp_path / "pool.jsonl"
    path.write_text("\ufeff" + json.dumps(ROWS, indent=indent), encoding="utf-8")
    assert records("jsonl", path) == ROWS


@pytest.mark.parametrize("source", ["jsonl", "json", "parquet"])
def test_a_git_lfs_pointer_is_not_the_data(tmp_path, source):
    path = tmp_path / "pool.jsonl"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 12345\n")
    with pytest.raises(DataError, match="git lfs pull"):
        records(source, path)


def test_lines_are_streamed_not_read_at_once(write_jsonl):
    reader = sources.read(config("jsonl", write_jsonl(ROWS[0], *[b"{broken"] * 5)))
    assert next(reader).record == ROWS[0]


def test_an_item_of_a_json_list_keeps_its_own_text(tmp_path):
    items = ['{"a":1.0,  "b" : "\\u00e9]"}', '{\n  "a": [1, 2]\n}', '"x, y"', "null"]
    path = tmp_path / "pool.json"
    path.write_text(f" [ {items[0]},\n{items[1]} ,{items[2]},\t{items[3]}\n] \n")
    entries = list(sources.read(config("json", path)))
    assert [e.raw for e in entries] == items
    assert [e.record for e in entries] == [json.loads(item) for item in items]


@pytest.mark.parametrize("text", ["[1, 2,]", "[1 2]", "[1, 2", "[1] [2]", "[", "[,1]"])
def test_a_list_that_json_does_not_know_is_refused_as_a_whole(tmp_path, text):
    path = tmp_path / "pool.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not JSON"):
        list(sources.read(config("json", path)))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_gives_records_with_their_own_text(tmp_path, separator, end):
    path = tmp_path / "pool.csv"
    rows = ['"Say ""hi"",{e}twice"{s}print(1)', "", "b{s}", '"torn" x{s}y', "one", "c{s}d"]
    rows = [row.format(e=end, s=separator) for row in [*rows[:1], rows[1], *rows[2:]]]
    text = end.join([f"prompt{separator}completion", *rows])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    entries = list(sources.read(config("csv", path)))
    assert [e.position for e in entries] == [1, 2, 3, 4, 5]
    assert [e.raw for e in entries] == [row for row in rows if row]
    assert entries[0].record == {"prompt": f'Say "hi",{end}twice', "completion": "print(1)"}
    assert entries[1].record == {"prompt": "b", "completion": ""}
    assert [e.reason for e in entries[2:4]] == ["broken_csv"] * 2
    assert "line 6" in entries[2].detail
    assert "1 cells, the header 2" in entries[3].detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n1,2\n"3,4\n5,6\n', "line 3 opens a quote that is never closed"),
        ("a,a\n1,2\n", "each once"),
        ("", "two or more columns"),
        ('"a" ,b\n1,2\n', "quotes of its header are wrong"),
        ('a,b\n"q1 is open,1\nq2,2\nq3 "has" one,3\nq4,4\n', "line 2 are wrong.*to line 4"),
        ("caf\u00e9,b\n", "not UTF-8"),
    ],
)
def test_a_csv_file_that_cannot_be_cut_into_records_is_refused(tmp_path, text, said):
    path = tmp_path / "pool.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        list(sources.read(config("csv", path)))


def test_parquet_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "pool.parquet")
    with pytest.raises(DataError, match="columns of one name"):
        list(sources.read(config("parquet", tmp_path / "pool.parquet")))


def test_hidden_files_and_folders_are_read_where_they_are_named(tmp_path):
    for name in ("a.jsonl", ".b.jsonl", ".old/c.jsonl", "sub/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")

    def found(name):
        files = identity.files_of(tmp_path / name, (".jsonl",))
        return [str(file.relative_to(tmp_path)) for file in files]

    assert found(".") == ["a.jsonl", "sub/d.jsonl"]
    assert found("*.jsonl") == ["a.jsonl"]
    assert found(".old") == found(".old/*.jsonl") == [".old/c.jsonl"]
    assert found(".b.jsonl") == [".b.jsonl"]


def test_the_packaged_pairs_are_what_their_card_says():
    table = pq.read_table(identity.CODERS)
    card = (identity.CODERS.parent / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(\w+)`", card)) >= set(table.column_names)
    strong, weak = (table.filter(pc.field("source") == who) for who in ("strong", "weak"))
    assert f"{len(table)}: {len(strong)} answered by the 1.5B model, {len(weak)} by" in card
    entries = list(sources.read(DataConfig(name="coders", source="coders")))
    assert [e.record for e in entries if isinstance(e, Entry)] == table.to_pylist()
    assert len({(r["instruction"], r["output"]) for r in table.to_pylist()}) == len(table)


@pytest.mark.parametrize("source", ["jsonl", "json"])
def test_a_record_with_a_key_twice_is_refused_and_the_others_stay(tmp_path, source):
    twice = '{"question": "one", "question": "two", "answer": "which?"}'
    lines = [json.dumps(ROWS[0]), twice, '{"question": "q", "answer": "a", "more": {"x": 1}}']
    path = tmp_path / "pool"
    path.write_text("[" + ",\n".join(lines) + "]" if source == "json" else "\n".join(lines))
    first, refused, last = sources.read(config(source, path))
    assert (refused.position, refused.reason, refused.raw) == (2, "broken_json", twice)
    assert refused.detail == "the key 'question' stands in it twice"
    assert [first.record, first.raw, last.raw] == [ROWS[0], lines[0], lines[2]]
    assert last.position == 3


@pytest.mark.parametrize("source", ["jsonl", "json", "csv"])
def test_a_file_in_utf_16_is_one_sentence_with_the_way_out(tmp_path, source):
    path = tmp_path / "pool"
    path.write_text(json.dumps(ROWS), encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16; convert it first: iconv"):
        list(sources.read(config(source, path)))
