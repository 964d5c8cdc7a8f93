import json
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.data.contamination import Problem, overlap_table, overlaps
from qaq.store.tables import OVERLAPS, PAIRS

SHARED = Problem(
    benchmark="mbpp",
    task_id="Mbpp/2",
    prompt='"""\nWrite a function to find the shared elements from the given two lists.\n'
    'assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))\n"""\n',
    solution="def similar_elements(test_tup1, test_tup2):\n"
    "  return tuple(set(test_tup1) & set(test_tup2))\n",
    entry_point="similar_elements",
)
CLOSE = Problem(
    benchmark="humaneval",
    task_id="HumanEval/0",
    prompt="def has_close_elements(numbers, threshold):\n"
    '    """ Check if in given list of numbers, are any two numbers closer to each other than\n'
    "    given threshold.\n    >>> has_close_elements([1.0, 2.0, 3.0], 0.5)\n"
    '    False\n    """\n',
    solution="    for i, a in enumerate(numbers):\n        if any(abs(a - b) < threshold for b in "
    "numbers[i + 1 :]):\n            return True\n    return False\n",
    entry_point="has_close_elements",
)
PROBLEMS = [SHARED, CLOSE]


def touched(question, answer, **settings):
    found = overlaps([("r", question, answer)], PROBLEMS, **settings)
    return [(o.task_id, o.kind) for o in found]


def test_the_description_in_other_letters_and_points_is_an_exact_match():
    question = "write a function: to find the shared elements from the given two lists"
    assert ("Mbpp/2", "exact") in touched(question, "no")
    longer = question + " of numbers"
    assert ("Mbpp/2", "exact") not in touched(longer, "no")
    assert ("Mbpp/2", "prompt_run") in touched(longer, "no")


def test_the_whole_prompt_is_an_exact_match():
    assert ("HumanEval/0", "exact") in touched(CLOSE.prompt, "no")


@pytest.mark.parametrize("wrap", ["{}", "Here it is:\n\n```python\n{}```\nDone."])
def test_the_solution_is_an_exact_match_bare_or_fenced_with_or_without_the_prompt(wrap):
    assert ("Mbpp/2", "exact") in touched("q", wrap.format(SHARED.solution))
    whole = CLOSE.prompt + CLOSE.solution
    assert ("HumanEval/0", "exact") in touched("q", wrap.format(whole))
    assert ("HumanEval/0", "solution_run") in touched("q", wrap.format(whole))


def test_nine_words_are_no_run_and_ten_are():
    ten = "in given list of numbers are any two numbers closer"
    assert touched(ten, "no") == [("HumanEval/0", "prompt_run")]
    assert touched(ten.rsplit(" ", 1)[0], "no") == []
    assert touched(ten.split(" ", 1)[1], "no") == []
    assert touched(ten.rsplit(" ", 1)[0], "no", run=9) == [("HumanEval/0", "prompt_run")]


def test_a_run_that_begins_in_the_question_and_ends_in_the_answer_counts():
    assert touched("In given list of numbers:", "are any two numbers closer?") == [
        ("HumanEval/0", "prompt_run")
    ]


def test_the_name_counts_where_it_is_defined_or_called_not_where_it_is_a_word():
    name = ("Mbpp/2", "entry_point")
    assert touched("q", "def similar_elements(x):\n    ...") == [name]
    assert touched("Write `similar_elements(a, b)`.", "no") == [name]
    assert touched("What does similar_elements mean?", "call similar_elements(1)") == []


def test_the_evidence_is_what_both_share():
    (found,) = overlaps([("r", "q", "def similar_elements(): ...")], PROBLEMS)
    assert (found.row_id, found.benchmark, found.evidence) == ("r", "mbpp", "similar_elements")
    ten = "in given list of numbers are any two numbers closer"
    (found,) = overlaps([("r", f"Find, {ten} together", "no")], PROBLEMS)
    assert found.evidence == ten


words = st.lists(st.sampled_from("abcd"), max_size=30)


@given(words, words, words, st.integers(2, 6))
def test_runs_are_those_found_by_comparing_every_place_with_every_place(asked, one, two, run):
    problems = [
        Problem("b", str(i), " ".join(text), "", "none") for i, text in enumerate((one, two))
    ]
    found = {
        o.task_id
        for o in overlaps([("r", " ".join(asked), "")], problems, run)
        if o.kind == "prompt_run"
    }

    def runs(text):
        return {tuple(text[i : i + run]) for i in range(len(text) - run + 1)}

    assert found == {str(i) for i, text in enumerate((one, two)) if runs(text) & runs(asked)}


def test_a_table_of_pairs_gives_a_table_of_overlaps():
    rows = [
        {"row_id": f"{i}", "question": q, "answer": a, "source": "s", "defect": None}
        for i, (q, a) in enumerate([("q", "a"), ("q", "def similar_elements(): ...")] * 800)
    ]
    batches = pa.Table.from_pylist(rows, schema=PAIRS).to_batches(300)
    table = overlap_table(batches, PROBLEMS)
    assert table.schema.equals(OVERLAPS)
    assert table.column("row_id").to_pylist() == [str(i) for i in range(1, 1600, 2)]
    assert set(table.column("kind").to_pylist()) == {"entry_point"}


def test_no_problems_and_no_rows_give_nothing():
    assert list(overlaps([("r", "q", "a")], [])) == []
    assert list(overlaps([], PROBLEMS)) == []


@pytest.fixture(scope="module")
def benchmarks(shared_data):
    files = {"humaneval": "HumanEvalPlus.jsonl", "mbpp": "MbppPlus.jsonl"}
    return [
        Problem(name, *(row[c] for c in ("task_id", "prompt", "canonical_solution", "entry_point")))
        for name, file in files.items()
        for row in map(json.loads, (shared_data / "evalplus" / file).open(encoding="utf-8"))
    ]


def test_52_rows_of_gpteacher_share_a_run_with_a_prompt_as_its_description_says(
    shared_data, benchmarks
):
    records = json.loads((shared_data / "instruct/gpteacher_codegen_instruct.json").read_text())
    rows = [
        (str(i), f"{r['instruction']}\n\n{r['input']}", r["response"])
        for i, r in enumerate(records)
    ]
    found = {o.row_id for o in overlaps(rows, benchmarks) if o.kind == "prompt_run"}
    assert len(found) == 52

    def runs(text):
        text = re.findall(r"\w+", text.lower())
        return {" ".join(text[i : i + 10]) for i in range(len(text) - 9)}

    prompts = set().union(*(runs(one.prompt) for one in benchmarks))
    assert found == {i for i, q, a in rows if runs(f"{q}\n{a}") & prompts}


def test_mbpp_plus_finds_its_own_problems_in_mbpp(shared_data, benchmarks):
    records = [json.loads(line) for line in (shared_data / "mbpp/mbpp.jsonl").open()]
    rows = [(f"Mbpp/{r['task_id']}", r["text"], r["code"]) for r in records]
    found = [o for o in overlaps(rows, benchmarks) if o.row_id == o.task_id]
    problems = {one.task_id for one in benchmarks if one.benchmark == "mbpp"}
    # EvalPlus reworded and renamed a few of the 378
    assert len({o.row_id for o in found}) > 0.97 * len(problems)
    assert {o.row_id for o in found} <= problems
