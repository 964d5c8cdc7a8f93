import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.data.config import Fields
from qaq.data.refusals import READABLE
from qaq.data.rows import REASONS, Entry, Pair, Rejected, canonical, read_row, read_rows

QUESTION, ANSWER = "Add two numbers.", "def add(a, b):\n    return a + b"

FORMS = {
    "messages": {
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ANSWER},
        ]
    },
    "conversations": {
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
    },
    "instruction/response": {"instruction": QUESTION, "response": ANSWER},
    "instruction/output": {"instruction": QUESTION, "output": ANSWER},
    "prompt/completion": {"prompt": QUESTION, "completion": ANSWER},
    "question/answer": {"question": QUESTION, "answer": ANSWER},
    "query/response": {"query": QUESTION, "response": ANSWER, "original_question": "x"},
    "query/answer": {"query": QUESTION, "answer": ANSWER, "resource": "evol"},
    "problem/solution": {"lang": "python", "problem": QUESTION, "solution": ANSWER},
    "prompt/response": {"prompt": QUESTION, "response": ANSWER},
    "question/solution": {"question": QUESTION, "solution": ANSWER},
    "input/output": {"id": "1", "input": QUESTION, "output": ANSWER, "unit_tests": "[]"},
    "capital roles": {
        "messages": [
            {"role": "User", "content": QUESTION},
            {"role": "Assistant", "content": ANSWER},
        ]
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
        ]
    },
    "null keys beside the filled ones": {
        "conversations": [
            {"role": None, "content": None, "from": "human", "value": QUESTION},
            {"role": None, "content": None, "from": "gpt", "value": ANSWER},
        ]
    },
    "empty list beside the filled fields": {
        "messages": [],
        "instruction": QUESTION,
        "output": ANSWER,
    },
    "preference as turns": {
        "prompt": QUESTION,
        "chosen": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}],
        "rejected": [],
    },
    "preference as text": {"prompt": QUESTION, "chosen": ANSWER, "rejected": "x"},
    "prompt and completion as turns": {
        "prompt": [{"role": "user", "content": QUESTION}],
        "completion": [{"role": "assistant", "content": ANSWER}],
    },
    "text in Alpaca's layout": {
        "text": f"Below is …\n\n### Instruction:\n{QUESTION}\n\n### Response:\n{ANSWER}"
    },
    "text in Magicoder's layout": {
        "text": f"You are …\n\n@@ Instruction\n{QUESTION}\n\n@@ Response\n{ANSWER}\n"
    },
    "text in Llama's layout": {"text": f"<s>[INST] {QUESTION} [/INST] {ANSWER} </s>"},
    "an input that says there is none": {
        "instruction": QUESTION,
        "input": "<noinput>",
        "output": ANSWER,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pair(form):
    assert read_row(Entry(1, FORMS[form]), "here") == Pair(QUESTION, ANSWER, "here")


def test_a_system_turn_is_skipped_and_only_the_first_exchange_is_taken():
    turns = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "And now subtract."},
        {"role": "assistant", "content": "a - b"},
    ]
    found = read_row(Entry(1, {"messages": turns}), "s")
    assert found == Pair(QUESTION, ANSWER, "s", dropped=("turns",), system="You are kind.")


@pytest.mark.parametrize("answered", ["response", "output"])
def test_an_input_follows_the_instruction_after_a_blank_line(answered):
    row = read_row(Entry(1, {"instruction": "Sort.", "input": "3 1 2", answered: "1 2 3"}), "s")
    assert row == Pair("Sort.\n\n3 1 2", "1 2 3", "s", input_start=7)
    assert row.row_id == Pair("Sort.\n\n3 1 2", "1 2 3", "s").row_id


def test_an_input_without_an_instruction_is_the_whole_question():
    row = read_row(Entry(1, {"instruction": "", "input": "3 1 2", "output": "1 2 3"}), "s")
    assert row == Pair("3 1 2", "1 2 3", "s", input_start=0)


@pytest.mark.parametrize("nothing", [None, "", "  \n"])
def test_an_empty_input_adds_nothing(nothing):
    row = read_row(Entry(1, {"instruction": "Sort.", "input": nothing, "output": "x"}), "s")
    assert row == Pair("Sort.", "x", "s")


def test_null_columns_of_other_forms_do_not_hide_the_form_that_is_filled():
    record = {"messages": None, "instruction": None, "response": None, "prompt": "p"}
    row = read_row(Entry(1, record | {"completion": "c"}), "s")
    assert row == Pair("p", "c", "s")


def test_a_row_names_its_own_source_where_it_has_one():
    record = FORMS["question/answer"] | {"source": "flan"}
    assert read_row(Entry(1, record), "mixture").source == "flan"


REFUSED = [
    (["a", "list"], "not_an_object"),
    ("text", "not_an_object"),
    (None, "not_an_object"),
    ({"foo": 1, "bar": 2}, "unknown_form"),
    ({"instruction": "only"}, "unknown_form"),
    ({}, "unknown_form"),
    ({"prompt": " \n", "completion": "c"}, "empty_question"),
    ({"prompt": "p", "completion": "\t"}, "empty_answer"),
    ({"prompt": "p", "completion": None}, "not_text"),
    ({"prompt": 3, "completion": "c"}, "not_text"),
    ({"prompt": "p", "completion": ["c"]}, "not_text"),
    ({"prompt": "p\0", "completion": "c"}, "not_text"),
    ({"prompt": "p", "completion": "\ud800"}, "not_text"),
    ({"instruction": "i", "input": 3, "output": "o"}, "not_text"),
    ({"messages": "hello"}, "not_text"),
    ({"messages": None}, "not_text"),
    ({"messages": ["hello"]}, "not_text"),
    ({"messages": []}, "empty_question"),
    ({"messages": [{"role": "user", "content": "q"}]}, "empty_answer"),
    ({"messages": [{"role": "user", "content": "q"}] * 2}, "empty_answer"),
    ({"messages": [{"role": "poet", "content": "q"}]}, "unknown_form"),
    (
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "4"},
            ]
        },
        "tool_call",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not_text"),
    ({"question": "q", "answer": True}, "not_text"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "empty_question"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "not_text"),
    ({"prompt": "p", "completion": "c", "label": False}, "not_chosen"),
]


@pytest.mark.parametrize(("record", "reason"), REFUSED)
def test_a_record_without_a_pair_is_refused_with_its_reason_and_keeps_its_text(record, reason):
    row = read_row(Entry(7, record), "s")
    assert isinstance(row, Rejected)
    assert (row.position, row.reason) == (7, reason)
    assert json.loads(row.raw) == record
    assert row.raw.isascii()


def test_an_unknown_form_names_the_keys_that_were_found():
    row = read_row(Entry(1, {"frage": "?", "antwort": "!"}), "s")
    assert "frage, antwort" in row.detail
    assert "instruction" in row.detail


def test_the_reasons_tested_are_all_there_are_but_those_of_files_and_duplicates():
    tested = {reason for _, reason in REFUSED}
    assert set(REASONS) - tested == {"broken_json", "broken_csv", "not_utf8", "duplicate"}


def test_the_row_id_is_the_start_of_the_hash_of_question_nul_answer():
    expected = hashlib.sha256(QUESTION.encode() + b"\0" + ANSWER.encode()).hexdigest()[:16]
    assert Pair(QUESTION, ANSWER, "any source").row_id == expected


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\r\nb\r\n", "a\nb"),
        ("\n \n  a  b \n\n", "a  b"),
        (" Sure, here:\nx = 1", "Sure, here:\nx = 1"),
        ("    return 1\n", "return 1"),
        ("    x = 1\n    return x\n", "    x = 1\n    return x"),
        ("\n\n    if x:\n\n        y()\n", "    if x:\n\n        y()"),
        ("  x\ny", "x\ny"),
        ("a\rb", "a\rb"),
        ("", ""),
        (" \n\t\n", ""),
    ],
)
def test_the_canonical_text_loses_only_what_means_nothing(text, kept):
    assert canonical(text) == kept


@given(st.text())
def test_the_canonical_form_is_its_own_canonical_form_and_keeps_every_visible_character(text):
    once = canonical(text)
    assert canonical(once) == once
    assert "".join(once.split()) == "".join(text.split())


def test_one_indented_block_of_code_keeps_its_shape():
    block = "    for x in y:\n        z(x)\n    return 1"
    compile("def f(y, z):\n" + canonical(block), "f", "exec")


@given(st.text(), st.text())
def test_pairs_that_are_read_are_canonical_and_never_empty(question, answer):
    row = read_row(Entry(1, {"question": question, "answer": answer}), "s")
    if isinstance(row, Pair):
        assert row.question and row.answer
        assert canonical(row.question) == row.question
        assert canonical(row.answer) == row.answer
        assert len(row.row_id) == 16


def test_an_answer_that_is_a_number_is_read_as_it_is_written():
    assert read_row(Entry(1, {"question": "38 + 1?", "answer": 39}), "s").answer == "39"


@pytest.mark.parametrize(
    ("asked", "answered"), [("instruction", "response"), ("question", "answer")]
)
def test_a_context_in_a_column_of_its_own_is_part_of_the_question(asked, answered):
    record = {asked: "What is returned?", "context": "def f():\n    return 1", answered: "1"}
    row = read_row(Entry(1, record | {"category": "closed_qa"}), "s")
    assert row.question == "What is returned?\n\ndef f():\n    return 1"
    assert row.question[row.input_start :] == record["context"]


def test_the_input_of_a_text_with_headings_is_part_of_the_question():
    text = "### Instruction:\nSort.\n\n### Input:\n3 1 2\n\n### Response:\n1 2 3"
    row = read_row(Entry(1, {"text": text}), "s")
    assert (row.question, row.answer, row.input_start) == ("Sort.\n\n3 1 2", "1 2 3", 7)


def test_an_answer_in_two_turns_is_one_answer():
    turns = [
        {"from": "human", "value": QUESTION},
        {"from": "gpt", "value": "def add(a, b):"},
        {"from": "gpt", "value": "    return a + b"},
    ]
    row = read_row(Entry(1, {"conversations": turns}), "s")
    assert row == Pair(QUESTION, ANSWER, "s")


LONG = [
    {"role": "user", "content": "q1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "a2"},
]


def test_of_a_long_conversation_the_exchanges_that_are_asked_for_are_taken():
    def texts(turns):
        rows = read_rows(Entry(1, {"messages": LONG}), "s", turns=turns)
        return [(row.question, row.answer, row.dropped) for row in rows]

    whole = ("User: q1\n\nAssistant: a1\n\nUser: q2", "a2", ())
    assert texts("first") == [("q1", "a1", ("turns",))]
    assert texts("last") == [whole]
    assert texts("each") == [("q1", "a1", ()), whole]


def test_fields_that_the_user_names_are_read_and_no_others():
    record = {"frage": QUESTION, "antwort": ANSWER, "instruction": "x", "output": "y", "mehr": "z"}
    fields = Fields(question="frage", answer="antwort", input="mehr")
    (row,) = read_rows(Entry(1, record), "s", fields)
    assert (row.question, row.answer) == (f"{QUESTION}\n\nz", ANSWER)
    (row,) = read_rows(Entry(1, FORMS["messages"]), "s", fields)
    assert row.reason == "unknown_form" and "data.fields names frage" in row.detail


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        ({"messages": [{"role": "poet", "content": "q"}]}, "has the role 'poet'"),
        ({"messages": [{"role": "user", "content": "q"}]}, "no turn of an assistant follows"),
        ({"messages": []}, "messages is an empty list"),
        ({"frage": 1}, "data.fields.question"),
    ],
)
def test_the_reason_given_is_the_true_one(record, detail):
    assert detail in read_row(Entry(1, record), "s").detail


KIND = "You are kind."
SPOKEN = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
FIRST_TURN = {"role": "system", "content": KIND}
WITH_SYSTEM = {
    "a first turn": {"messages": [FIRST_TURN, *SPOKEN]},
    "a developer's turn": {"messages": [{"role": "developer", "content": KIND}, *SPOKEN]},
    "in parts": {"messages": [FIRST_TURN | {"content": [{"type": "text", "text": KIND}]}, *SPOKEN]},
    "between question and answer": {"messages": [SPOKEN[0], FIRST_TURN, SPOKEN[1]]},
    "beside a later one": {"messages": [FIRST_TURN, *SPOKEN, FIRST_TURN | {"content": "Later."}]},
    "a column": {"question": QUESTION, "answer": ANSWER, "system": KIND + "\r\n"},
    "another column": {"question": QUESTION, "answer": ANSWER, "system_prompt": KIND},
    "a column beside turns": {"conversations": SPOKEN, "system": KIND},
    "turns beside a column": {"conversations": [FIRST_TURN, *SPOKEN], "system": "Be rude."},
    "Llama 2's": {
        "text": f"<s>[INST] <<SYS>>\n{KIND}\n<</SYS>>\n\n{QUESTION} [/INST] {ANSWER} </s>"
    },
    "a heading": {
        "text": f"### System:\n{KIND}\n\n### User:\n{QUESTION}\n\n### Assistant:\n{ANSWER}"
    },
    "a heading of its own line": {
        "text": f"So.\n\n@@ System\n{KIND}\n\n@@ Instruction\n{QUESTION}\n@@ Response\n{ANSWER}"
    },
    "of a preference": {"prompt": [FIRST_TURN, SPOKEN[0]], "chosen": [SPOKEN[1]]},
}


@pytest.mark.parametrize("form", WITH_SYSTEM)
def test_the_system_turn_of_every_form_travels_with_the_pair_or_is_counted_as_left_out(form):
    entry = Entry(1, WITH_SYSTEM[form])
    assert read_row(entry, "s") == Pair(QUESTION, ANSWER, "s", system=KIND)
    (dropped,) = read_rows(entry, "s", system="drop")
    assert dropped == Pair(QUESTION, ANSWER, "s", dropped=("system",))


@pytest.mark.parametrize("empty", [None, "", " \n", []])
def test_an_empty_system_turn_is_none(empty):
    record = {"messages": [FIRST_TURN | {"content": empty}, *SPOKEN], "system": empty}
    assert read_row(Entry(1, record), "s") == Pair(QUESTION, ANSWER, "s")


def test_each_exchange_has_the_system_turns_that_stand_before_its_answer():
    more = [{"role": "user", "content": "And c?"}, {"role": "assistant", "content": "d"}]
    record = {"messages": [FIRST_TURN, *SPOKEN, FIRST_TURN | {"content": "Be brief."}, *more]}
    first, second = read_rows(Entry(1, record), "s", turns="each")
    assert (first.system, second.system) == (KIND, f"{KIND}\nBe brief.")


def test_a_system_turn_that_is_no_text_is_refused_and_one_in_a_named_field_is_read():
    image = FIRST_TURN | {"content": [{"type": "image_url", "image_url": "x"}]}
    refused = read_row(Entry(1, {"messages": [image, *SPOKEN]}), "s")
    assert isinstance(refused, Rejected)
    assert refused.reason == "not_text"
    named = Fields(question="f", answer="a", system="persona")
    record = {"f": QUESTION, "a": ANSWER, "persona": KIND, "system": "linux"}
    assert next(read_rows(Entry(1, record), "s", named)).system == KIND
    assert next(read_rows(Entry(1, record | {"persona": 3}), "s", named)).reason == "not_text"


def test_the_same_texts_under_another_system_turn_are_another_row():
    bare, kind = Pair(QUESTION, ANSWER, "s"), Pair(QUESTION, ANSWER, "s", system=KIND)
    assert bare.row_id == hashlib.sha256(f"{QUESTION}\0{ANSWER}".encode()).hexdigest()[:16]
    assert kind.row_id == hashlib.sha256(f"{QUESTION}\0{ANSWER}\0{KIND}".encode()).hexdigest()[:16]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_no_answer(value):
    found = read_row(Entry(1, {"question": QUESTION, "answer": value}), "s")
    assert isinstance(found, Rejected)
    assert found.reason == "not_text"


TALKS = {
    "a history": {"instruction": "q2", "input": "i2", "output": "a2", "history": [["q1", "a1"]]},
    "a history of turns": {
        "instruction": "q2",
        "input": "i2",
        "output": "a2",
        "history": LONG[:2],
    },
    "headings": {
        "text": "### User:\nq1\n\n### Assistant:\na1\n\n### User:\nq2\n\n### Input:\ni2\n\n"
        "### Assistant:\na2\n"
    },
    "Llama's marks": {
        "text": "<s>[INST] q1 [/INST] a1 </s><s>[INST] q2\n\ni2 [/INST] a2 </s>",
    },
    "a preference": {
        "conversations": [*LONG[:2], {"from": "human", "value": "q2\n\ni2"}],
        "chosen": {"from": "gpt", "value": "a2"},
        "rejected": {"from": "gpt", "value": "no"},
    },
}


@pytest.mark.parametrize("form", TALKS)
def test_every_form_of_several_exchanges_is_a_conversation(form):
    def texts(turns):
        rows = read_rows(Entry(1, TALKS[form]), "s", turns=turns)
        return [(row.question, row.answer, row.dropped) for row in rows]

    whole = ("User: q1\n\nAssistant: a1\n\nUser: q2\n\ni2", "a2", ())
    assert texts("first") == [("q1", "a1", ("turns",))]
    assert texts("last") == [whole]
    assert texts("each") == [("q1", "a1", ()), whole]


def test_the_input_behind_a_history_is_known_as_a_part_and_an_empty_history_is_none():
    (row,) = read_rows(Entry(1, TALKS["a history"]), "s", turns="last")
    assert row.question[row.input_start :] == "i2"
    row = read_row(Entry(1, {"instruction": QUESTION, "output": ANSWER, "history": []}), "s")
    assert row == Pair(QUESTION, ANSWER, "s")
    odd = {"instruction": QUESTION, "output": ANSWER, "history": [["alone"]]}
    assert read_row(Entry(1, odd), "s").detail == "turn 1 of history is a list, not an object"


REJECTED = {"from": "gpt", "value": "no"}
CHOSEN = {  # the forms of LLaMA-Factory's and TRL's preferences
    "a turn behind a conversation": {
        "conversations": [{"from": "human", "value": QUESTION}],
        "chosen": {"from": "gpt", "value": ANSWER},
        "rejected": REJECTED,
    },
    "a text behind a conversation": {
        "messages": [{"role": "user", "content": QUESTION}],
        "chosen": ANSWER,
        "rejected": "no",
    },
    "turns under other roles": {
        "prompt": QUESTION,
        "chosen": [{"from": "gpt", "value": ANSWER}],
        "rejected": [REJECTED],
    },
    "turns in capitals": {
        "prompt": [{"role": "User", "content": QUESTION}],
        "chosen": [{"role": "Assistant", "content": ANSWER}],
    },
    "one turn": {"prompt": QUESTION, "chosen": {"role": "assistant", "content": ANSWER}},
    "the whole conversation": {
        "conversations": [{"from": "human", "value": QUESTION}],
        "chosen": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}],
    },
    "a text to an instruction": {"instruction": QUESTION, "chosen": ANSWER, "rejected": "no"},
    "a text to a question": {"system": "", "question": QUESTION, "chosen": ANSWER},
    "unpaired": {"prompt": QUESTION, "completion": ANSWER, "label": True},
    "an answered conversation": {"messages": SPOKEN, "chosen": "no", "label": "x"},
}


@pytest.mark.parametrize("turns", ["first", "last", "each"])
@pytest.mark.parametrize("form", CHOSEN)
def test_of_a_preference_the_chosen_answer_is_read(form, turns):
    assert list(read_rows(Entry(1, CHOSEN[form]), "s", turns=turns)) == [
        Pair(QUESTION, ANSWER, "s")
    ]


@pytest.mark.parametrize("turn", [str, lambda text: [{"from": "gpt", "value": text}]])
def test_an_input_beside_a_chosen_answer_is_part_of_the_question(turn):
    row = read_row(Entry(1, {"instruction": "Sort.", "input": "3 1", "chosen": turn("1 3")}), "s")
    assert (row.question, row.answer, row.input_start) == ("Sort.\n\n3 1", "1 3", 7)


@pytest.mark.parametrize("answer", ["completion", "messages"])
@pytest.mark.parametrize(("name", "value"), [("label", False), ("kto_tag", "False")])
def test_an_unpaired_answer_that_was_not_chosen_is_no_pair_unless_its_fields_are_named(
    name, value, answer
):
    record = {"prompt": QUESTION, "completion": ANSWER}
    record = record if answer == "completion" else {"messages": SPOKEN}
    row = read_row(Entry(1, record | {name: value}), "s")
    assert (row.reason, row.reason in READABLE) == ("not_chosen", True)
    fields = Fields(question="prompt", answer="completion")
    if answer == "completion":
        assert next(read_rows(Entry(1, record | {name: value}), "s", fields)).answer == ANSWER


def test_a_heading_that_only_begins_with_the_word_system_is_none():
    text = "## System design\n\n### Instruction:\nq\n\n### Response:\na\n## System design\nb"
    row = read_row(Entry(1, {"text": text}), "s")
    assert row == Pair("q", "a\n## System design\nb", "s")


@pytest.mark.parametrize("turns", ["first", "last"])
def test_of_several_exchanges_in_a_text_each_has_the_system_turn(turns):
    text = f"### System:\n{KIND}\n\n### User:\nq\n\n### Assistant:\na\n\n### User:\nr"
    record = {"text": f"{text}\n\n### Assistant:\nb"}
    (row,) = read_rows(Entry(1, record), "s", turns=turns)
    assert (row.system, row.answer) == (KIND, "a" if turns == "first" else "b")
