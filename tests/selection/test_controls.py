"""What is seen of a pair without a model, by hand."""

import numpy as np
import pytest

from qaq.selection import controls

PYTHON = "def add(a, b):\n    return a + b"


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Write `add(a, b)`.", PYTHON, 1.0),
        ("Write a function named add(a, b).", PYTHON, 1.0),
        ("Write `total(a, b)`.", PYTHON, 0.0),
        ("Write `add`.", "It is `add(1, 2)` that you want.", 0.0),
        ("Write `add`.", "const add = (a, b) => a + b;", 1.0),
        ("Write `add`.", "static int add(int a, int b) {\n  return a + b;\n}", 1.0),
        ("Write `add`.", "int main() {\n  return add(1, 2);\n}", 0.0),
        ("Write `Stack`.", "class Stack:\n    pass", 1.0),
        ("Sum two numbers.", PYTHON, np.nan),
    ],
)
def test_a_name_that_is_asked_for_is_defined_or_not(question, answer, expected):
    np.testing.assert_equal(controls.defines_asked(question, answer), expected)


def test_every_pair_has_a_value_for_every_control_and_names_only_where_they_are_asked_for():
    questions = ["Write `add(a, b)`.", "Why is the sky blue?"]
    found = controls.model_free(questions, [PYTHON, "Because of scattering."])
    assert found["parses"].tolist() == [1.0, 0.0]
    assert found["question's length"].tolist() == [len(q) for q in questions]
    assert found["answer's length"].tolist() == [len(PYTHON), 22.0]
    np.testing.assert_array_equal(found["asked name defined"], [1.0, np.nan])
    # of the words that only one pair holds, `a`, `b`, `add` are repeated, `write` is not
    assert found["words in common"].tolist() == [0.75, 0.0]
