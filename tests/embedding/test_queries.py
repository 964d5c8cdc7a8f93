"""RDS+ must never be aimed at what is evaluated."""

import json

import pytest

from qaq.embedding.queries import MBPP_TEST, file_queries, mbpp_plus_ids, mbpp_queries
from qaq.host.errors import DataError
from qaq.store.tables import read_jsonl


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_ids_of_mbpp_plus_are_those_of_the_evaluated_file(shared_data):
    tasks = read_jsonl(shared_data / "evalplus" / "MbppPlus.jsonl")
    assert mbpp_plus_ids() == {int(task["task_id"].split("/")[1]) for task in tasks}


def test_no_query_of_the_real_mbpp_is_evaluated(shared_data):
    queries = mbpp_queries(shared_data / "mbpp" / "mbpp.jsonl")
    ids = {int(query.name.split("/")[1]) for query in queries}
    assert len(queries) == 320
    assert not ids & mbpp_plus_ids()
    assert not ids & set(MBPP_TEST)


def test_there_are_378_evaluated_ids_and_154_lie_outside_the_test_split():
    ids = mbpp_plus_ids()
    assert (len(ids), len(ids - set(MBPP_TEST))) == (378, 154)
    assert len([i for i in ids if i > 600]) == 108


def test_a_train_problem_that_mbpp_plus_took_is_left_out(tmp_path):
    problems = [
        {"task_id": i, "text": f"problem {i}", "code": "pass"} for i in (1, 2, 11, 601, 602)
    ]
    found = mbpp_queries(write(tmp_path / "mbpp.jsonl", problems))
    assert [query.name for query in found] == ["mbpp/1", "mbpp/601"]


def test_a_file_that_is_not_mbpp_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected MBPP's fields .* found \['question'\]"):
        mbpp_queries(write(tmp_path / "other.jsonl", [{"question": "?"}]))
    with pytest.raises(DataError, match="no such file"):
        mbpp_queries(tmp_path / "missing.jsonl")


PROBLEM = "Write a function to find the shared elements from the given two lists, in order."


def test_own_queries_are_read_with_and_without_answers(tmp_path):
    path = write(
        tmp_path / "own.jsonl", [{"question": "Sort it."}, {"question": "b", "answer": "c"}]
    )
    found = file_queries(path, [PROBLEM])
    assert [(q.name, q.question, q.answer) for q in found] == [
        ("own/1", "Sort it.", ""),
        ("own/2", "b", "c"),
    ]


def test_an_own_query_that_repeats_a_problem_is_refused(tmp_path):
    repeated = "Please write a function to find the SHARED elements from the given two lists - fast"
    path = write(tmp_path / "own.jsonl", [{"question": "Sort it."}, {"question": repeated}])
    with pytest.raises(DataError, match=r"1 of 2 queries repeat an evaluated problem.*own/2"):
        file_queries(path, [PROBLEM])


@pytest.mark.parametrize("line", [{"question": ""}, {"text": "?"}, {"question": "a", "answer": 1}])
def test_a_line_without_a_question_is_named(tmp_path, line):
    with pytest.raises(DataError, match="line 2"):
        file_queries(write(tmp_path / "own.jsonl", [{"question": "a"}, line]), [])


def test_a_line_separator_within_a_question_ends_no_line(tmp_path):
    path = tmp_path / "own.jsonl"
    question = "Sort it.\u2028Then\x85print it."
    path.write_text(json.dumps({"question": question}, ensure_ascii=False), encoding="utf-8")
    assert [query.question for query in file_queries(path, [])] == [question]


@pytest.mark.parametrize(
    "content", ["", "[1]\n", "not json\n", "[" * 100_000, '{"n": ' + "1" * 5000 + "}"]
)
def test_a_file_without_queries_is_refused(tmp_path, content):
    path = tmp_path / "own.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"own\.jsonl"):
        file_queries(path, [])
