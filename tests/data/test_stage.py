import gc
import json
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from qaq.data import defects, sources, stage
from qaq.data.config import DataConfig, Fields
from qaq.data.intake import lost
from qaq.data.rows import Pair
from qaq.host.errors import DataError
from qaq.store.keys import keyed
from qaq.store.tables import PAIRS

ROWS = [
    {
        "instruction": f"Write the Python function `f{i}(x)`. It adds {i} to x.",
        "output": f"def f{i}(x):\n    # {'very ' * i}simple\n    y = x + {i}\n    return y",
    }
    for i in range(40)
]
NOISE = {
    "name": "planted",
    "shares": {
        "swapped_answer": 0.1,
        "echo": 0.1,
        "invented_terms": 0.1,
        "truncated": 0.1,
        "not_code": 0.1,
    },
}


def test_the_pool_is_the_source_in_its_order(run_pairs, write_jsonl):
    result = run_pairs({"source": "jsonl", "path": write_jsonl(*ROWS)})
    assert [p["question"] for p in result.pairs] == [r["instruction"] for r in ROWS]
    assert [p["answer"] for p in result.pairs] == [r["output"] for r in ROWS]
    assert {p["source"] for p in result.pairs} == {"jsonl"}
    assert {p["defect"] for p in result.pairs} == {None}
    assert result.quarantine == result.planted == []


def test_every_row_says_from_which_record_of_which_file_it_is(run_pairs, write_jsonl):
    paths = [write_jsonl(*ROWS[:3], name="b.jsonl"), write_jsonl(b"", [1], ROWS[3], name="a.jsonl")]
    result = run_pairs({"source": "jsonl", "path": paths, "max_unreadable": 0.5})
    places = [(p["file"], p["position"]) for p in result.pairs]
    assert places == [(1, 1), (1, 2), (1, 3), (2, 3)]
    assert [(q["file"], q["position"]) for q in result.quarantine] == [(2, 2)]
    assert result.counts["files"] == ["b.jsonl", "a.jsonl"]
    with pytest.raises(DataError, match=r"row 2 of a\.jsonl"):
        run_pairs({"source": "jsonl", "path": paths})


def test_a_damaged_row_says_from_which_record_it_was_made(run_pairs, write_jsonl):
    noisy = run_pairs({"source": "jsonl", "path": write_jsonl(*ROWS)}, NOISE)
    assert [p["position"] for p in noisy.pairs] == [*range(1, len(ROWS) + 1)]


def test_a_file_that_changes_while_it_is_read_makes_no_pool(run_pairs, write_jsonl, monkeypatch):
    path = write_jsonl(*ROWS)

    def read(config):
        for row in sources.read(config):
            path.write_text(path.read_text() + "\n")
            yield row

    monkeypatch.setattr(stage, "sources", SimpleNamespace(read=read, label=sources.label))
    with pytest.raises(DataError, match="was changed while it was read"):
        run_pairs({"source": "jsonl", "path": path})


def test_nothing_is_lost_and_the_counts_add_up(run_pairs, write_jsonl):
    lines = [*ROWS[:3], b'{"instruction": "cut', *ROWS[3:20], ROWS[0], [1], {"foo": 1}]
    lines += [b"\xff{}", {"instruction": "i", "output": " "}, {"instruction": 3, "output": "o"}]
    data = {"source": "jsonl", "path": write_jsonl(*lines), "limit": 12, "max_unreadable": 0.2}
    result = run_pairs(data, NOISE)
    counts = result.counts
    assert counts["read"] == len(lines) == 27
    assert counts["quarantined"] == {
        "broken_json": 1,
        "duplicate": 1,
        "not_an_object": 1,
        "unknown_form": 1,
        "not_utf8": 1,
        "empty_answer": 1,
        "not_text": 1,
    }
    assert counts["read"] == counts["kept"] + sum(counts["quarantined"].values())
    assert counts["kept"] == counts["pool"] + counts["not_sampled"] == 20
    assert counts["pool"] == len(result.pairs) == 12
    assert counts["planted"] == dict.fromkeys(NOISE["shares"], 1)
    assert [(q["position"], q["reason"]) for q in result.quarantine] == [
        (4, "broken_json"),
        (22, "duplicate"),
        (23, "not_an_object"),
        (24, "unknown_form"),
        (25, "not_utf8"),
        (26, "empty_answer"),
        (27, "not_text"),
    ]


def test_the_sample_is_drawn_before_the_noise_is_planted(run_pairs, write_jsonl):
    data = {"source": "jsonl", "path": write_jsonl(*ROWS), "limit": 20, "sample_seed": 4}
    clean = run_pairs(data)
    noisy = run_pairs(data, NOISE)
    original = {row["row_id"]: row["original_row_id"] for row in noisy.planted}
    restored = [original.get(p["row_id"], p["row_id"]) for p in noisy.pairs]
    assert restored == [p["row_id"] for p in clean.pairs]
    questions = [r["instruction"] for r in ROWS]
    places = [questions.index(p["question"]) for p in clean.pairs]
    assert places == sorted(places)


def test_the_record_of_the_planting_agrees_with_the_pool(run_pairs, write_jsonl):
    result = run_pairs({"source": "jsonl", "path": write_jsonl(*ROWS)}, NOISE)
    labelled = {p["row_id"]: p["defect"] for p in result.pairs if p["defect"]}
    assert {row["row_id"]: row["defect"] for row in result.planted} == labelled
    assert len(labelled) == 20
    assert len({p["row_id"] for p in result.pairs}) == len(ROWS)


def test_the_same_config_gives_the_same_pool_and_another_seed_another(run_pairs, write_jsonl):
    data = {"source": "jsonl", "path": write_jsonl(*ROWS), "limit": 30}
    first, again = run_pairs(data, NOISE), run_pairs(data, NOISE)
    assert first.pairs == again.pairs
    assert first.planted == again.planted
    assert run_pairs(data, NOISE | {"seed": 1}).planted != first.planted


def test_what_a_killed_run_left_behind_does_not_matter(run_pairs, write_jsonl, tmp_path):
    for folder in ("out", "scratch"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pairs.parquet").write_bytes(b"half a table")
        (tmp_path / folder / "quarantine.parquet").write_bytes(b"half a table")
    result = run_pairs({"source": "jsonl", "path": write_jsonl(*ROWS)})
    assert len(result.pairs) == len(ROWS)


def test_an_empty_file_is_an_error_that_says_what_was_expected(run_pairs, write_jsonl, tmp_path):
    with pytest.raises(DataError, match=r"pool\.jsonl holds no rows; expected at least one"):
        run_pairs({"source": "jsonl", "path": write_jsonl()})
    assert not (tmp_path / "out" / "pairs.parquet").exists()


def test_a_file_without_a_usable_row_is_an_error_with_the_reasons_and_their_counts(
    run_pairs, write_jsonl
):
    path = write_jsonl({"frage": 1}, b"{", {"frage": 2}, {"frage": 3})
    with pytest.raises(DataError) as caught:
        run_pairs({"source": "jsonl", "path": path})
    message = str(caught.value)
    assert "no usable row of the 4 read" in message
    assert "3 unknown_form (first: row 1, found the keys frage;" in message
    assert "1 broken_json (first: row 2" in message
    assert caught.value.exit_code == 2


def test_a_pool_too_small_for_the_noise_is_an_error_with_the_numbers(run_pairs, write_jsonl):
    prose = [{"question": f"Why {i}?", "answer": f"So {i}."} for i in range(10)]
    with pytest.raises(DataError, match="asks for 2 of 10 rows, but only 0"):
        run_pairs({"source": "jsonl", "path": write_jsonl(*prose)}, {"shares": {"truncated": 0.2}})


def test_the_library_of_this_python_is_a_pool_of_thousands(library):
    counts = library.counts
    assert counts["pool"] == len(library.pairs) > 2000
    assert counts["read"] == counts["kept"] + len(library.quarantine)
    assert {row["reason"] for row in library.quarantine} <= {"duplicate"}


def test_a_pool_of_another_form_carries_every_kind_of_noise_too(run_pairs, tmp_path, mined):
    rows = [
        {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for q, a in ((p.question, f"Here:\n\n```python\n{p.answer}\n```") for p in mined[:600])
    ]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    shares = dict.fromkeys(defects.DAMAGES, 0.05)
    result = run_pairs({"source": "json", "path": tmp_path / "pool.json"}, {"shares": shares})
    assert result.counts["planted"] == dict.fromkeys(defects.DAMAGES, 30)


@pytest.mark.parametrize(("bound", "ends"), [(0.01, True), (0.05, False), (0.04, True)])
def test_more_rows_that_cannot_be_read_than_allowed_end_the_run(
    run_pairs, write_jsonl, bound, ends
):
    lines = [*ROWS[:19], {"frage": "?", "antwort": "!"}]
    data = {"source": "jsonl", "path": write_jsonl(*lines), "max_unreadable": bound}
    if ends:
        with pytest.raises(DataError, match=r"1 of 20 rows cannot be read.*frage, antwort"):
            run_pairs(data)
    else:
        assert run_pairs(data).counts["unreadable"] == 1


def test_empty_and_repeated_rows_do_not_end_a_run_and_are_in_the_last_lines(run_pairs, write_jsonl):
    turns = [{"role": r, "content": f"{r} {i}"} for i in range(2) for r in ("user", "assistant")]
    system = {"messages": [{"role": "system", "content": "Be kind."}, *turns]}
    lines = [*ROWS[:3], ROWS[0], {"question": "q", "answer": ""}, system]
    data = {"source": "jsonl", "path": write_jsonl(*lines), "system": "drop"}
    assert lost(run_pairs(data).counts) == (
        "2 of 6 rows of the source are not in the pool: 1 duplicate, 1 empty_answer; of 1 "
        "conversations the first exchange is taken (data.turns); the system turns of 1 rows are "
        "left out (data.system=drop)."
    )
    assert lost({"read": 3, "quarantined": {}}) is None


def test_each_exchange_of_a_conversation_can_be_a_row(run_pairs, write_jsonl):
    turns = [{"role": r, "content": f"{r} {i}"} for i in range(3) for r in ("user", "assistant")]
    path = write_jsonl({"messages": turns})
    result = run_pairs({"source": "jsonl", "path": path, "turns": "each"})
    assert [p["answer"] for p in result.pairs] == ["assistant 0", "assistant 1", "assistant 2"]
    assert len({p["row_id"] for p in result.pairs}) == 3


def test_a_pool_of_another_bound_is_not_taken_for_that_of_the_usual_one():
    usual = DataConfig(name="a", source="jsonl")
    assert "max_unreadable" not in keyed(usual)
    assert keyed(replace(usual, max_unreadable=1.0)) != keyed(usual)


def test_names_of_fields_and_turns_enter_a_pools_key_only_where_they_are_set():
    usual = keyed(DataConfig(name="a", source="stdlib"))
    assert not {"fields", "turns", "max_unreadable"} & set(usual)
    named = Fields(question="frage", answer="antwort")
    assert keyed(DataConfig(name="a", source="stdlib", fields=named))["fields"]["question"]
    assert keyed(DataConfig(name="a", source="stdlib", turns="each")) == usual | {"turns": "each"}


def test_system_turns_have_a_column_and_make_rows_of_their_own(run_pairs, write_jsonl):
    pair = {"question": "q", "answer": "a"}
    lines = [pair | {"system": said} for said in ("Be kind.", "Be rude.", "Be kind.", None)]
    path = write_jsonl(*lines)
    result = run_pairs({"source": "jsonl", "path": path})
    table = pq.read_table(path.parent / "out" / "pairs.parquet")
    assert table["system"].to_pylist() == ["Be kind.", "Be rude.", None]
    assert [row["reason"] for row in result.quarantine] == ["duplicate"]
    assert (result.counts["system"], lost(result.counts).count("system")) == (2, 0)
    result = run_pairs({"source": "jsonl", "path": path, "system": "drop"})
    assert "system" not in pq.read_schema(path.parent / "out" / "pairs.parquet").names
    assert len(result.pairs) == 1  # without them they are one row
    assert result.counts["dropped"] == {"system": 1}


def test_a_pool_without_system_turns_has_the_columns_it_always_had(run_pairs, write_jsonl):
    path = write_jsonl(*ROWS[:3])
    counts = run_pairs({"source": "jsonl", "path": path}).counts
    assert pq.read_schema(path.parent / "out" / "pairs.parquet").names == PAIRS.names
    assert "system" not in counts


def test_a_system_turn_that_comes_late_adds_its_column_to_the_rows_before_it(
    run_pairs, write_jsonl, monkeypatch, tmp_path
):
    monkeypatch.setattr(stage, "GROUP_ROWS", 4)
    path = write_jsonl(*ROWS[:11], ROWS[11] | {"system": "Be kind."}, *ROWS[12:18])
    rows = run_pairs({"source": "jsonl", "path": path}).pairs
    assert [row["question"] for row in rows] == [row["instruction"] for row in ROWS[:18]]
    with pq.ParquetFile(tmp_path / "out" / "pairs.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        said = file.read(["system"])["system"].to_pylist()
    assert groups == [4, 4, 4, 4, 2]
    assert said == [None] * 11 + ["Be kind."] + [None] * 6
    assert not list((tmp_path / "scratch").iterdir())


def test_a_pool_is_not_held_while_it_is_read(run_pairs, write_jsonl, monkeypatch):
    held = []

    def read(config):
        yield from sources.read(config)
        held.append(sum(isinstance(one, Pair) for one in gc.get_objects()))

    monkeypatch.setattr(stage, "sources", SimpleNamespace(read=read, label=sources.label))
    data = {"source": "jsonl", "path": write_jsonl(*ROWS)}
    run_pairs(data)
    run_pairs(data, NOISE)
    before, with_noise = held
    assert with_noise - before > len(ROWS) - 3  # damage needs donors from the whole pool


def test_packaged_pools_and_pools_that_drop_system_turns_keep_their_keys():
    for source in ("stdlib", "coders", "synthetic"):
        assert "system" not in keyed(DataConfig(name="a", source=source))
    dropped = keyed(DataConfig(name="a", source="jsonl", system="drop"))
    assert "system" not in dropped
    assert keyed(DataConfig(name="a", source="jsonl")) == dropped | {"system": "prompt"}
    named = {"question": "q", "answer": "a"}
    assert keyed(Fields(**named)) == named | {"input": None}


@pytest.mark.parametrize("part", ["input", "system"])
def test_a_named_field_in_which_no_row_has_a_text_ends_the_run(run_pairs, write_jsonl, part):
    path = write_jsonl({"q": "x", "a": "y", "input": "i"}, {"q": "v", "a": "w", "system": "s"})
    fields = {"question": "q", "answer": "a"}
    with pytest.raises(DataError, match=f"data.fields names {part}=typo, where no row has a text"):
        run_pairs({"source": "jsonl", "path": path, "fields": fields | {part: "typo"}})
    result = run_pairs({"source": "jsonl", "path": path, "fields": fields | {part: part}})
    assert len(result.pairs) == 2


HALF = "\ud83d"  # of an emoji, as a string cut by its bytes leaves it


@pytest.mark.parametrize(
    "record",
    [
        {HALF: "x", "text": "y"},
        {"messages": [{"role": HALF, "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": HALF}]}]},
        {"messages": [{HALF: "user"}]},
        {"question": HALF, "answer": "y"},
    ],
)
def test_half_an_emoji_anywhere_in_a_record_is_a_refused_row(run_pairs, write_jsonl, record):
    path = write_jsonl(*ROWS, record)
    result = run_pairs({"source": "jsonl", "path": path, "max_unreadable": 0.1})
    (refused,) = result.quarantine
    assert (refused["position"], json.loads(refused["raw"])) == (len(ROWS) + 1, record)
    assert result.counts["read"] == len(ROWS) + 1
