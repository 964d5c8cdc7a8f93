"""What is asked of the models that write a pool, and what is kept of it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.evaluation.generation.generate import Completion
from qaq.synthesis.writing import assign, keep


def completion(text, finish="end"):
    return Completion("q", 0, "sha", text, 3, finish)


def test_a_question_is_asked_once_whatever_its_spaces_and_case():
    texts = ["Add two\nnumbers.", " add  two numbers. ", "B"]
    kept = keep([completion(text) for text in texts])
    assert kept.questions == {0: "Add two\nnumbers.", 2: "B"}
    assert kept.left_out == {"question_repeated": 1}


def test_unfinished_and_empty_questions_are_counted_and_left_out():
    kept = keep([completion("Write a", "length"), completion(" \n"), completion("Sort a list.")])
    assert kept.questions == {2: "Sort a list."}
    assert kept.left_out == {"question_unfinished": 1, "question_empty": 1}


@given(st.integers(0, 5), st.integers(1, 40), st.integers(1, 40))
def test_who_answers_depends_on_the_seed_and_the_number_alone(seed, few, more):
    weights = {"strong": 2.0, "weak": 1.0}
    some, all_ = assign(range(few), weights, seed), assign(range(few + more), weights, seed)
    assert some == {n: all_[n] for n in range(few)}


def test_answers_are_shared_out_by_weight():
    shares = Counter(assign(range(3000), {"a": 3.0, "b": 1.0}, 0).values())
    assert shares["b"] / 3000 == pytest.approx(0.25, abs=0.03)  # four standard errors
