"""Where a chat answer ends and what of it is judged, against EvalPlus's sanitiser on the whole.

Every shape below is an answer to "add two numbers" whose function is right unless it says so. The
reference is `evalplus.sanitize.sanitize` on the whole text, and Python itself on the result.
"""

import time

import pytest
from evalplus.sanitize import sanitize

from qaq.evaluation import answers
from qaq.evaluation.prompts import END_MARKERS, Stops

RIGHT = "def add(x: int, y: int):\n    return x + y\n"
WRONG = "def add(x: int, y: int):\n    return x - y\n"
TYPED = "def add(x: List[int], y: int = 0):\n    return x + y\n"
LONG = "".join(f"print({i})\n" for i in range(12))
STOPS = Stops(END_MARKERS, fenced=True)


def fenced(code: str, language: str = "python") -> str:
    return f"```{language}\n{code}```\n"


def indented(text: str, by: str) -> str:
    return "".join(by + line + "\n" for line in text.splitlines())


BLOCK = fenced(RIGHT)

# The same outcome as the whole text has through the sanitiser.
ALIKE = {
    "bare": RIGHT,
    "bare_and_wrong": WRONG,
    "one_block": BLOCK,
    "one_block_wrong": fenced(WRONG),
    "words_before": "Here it is:\n\n" + BLOCK,
    "words_after": BLOCK + "\nIt adds two numbers.\n",
    "no_language": fenced(RIGHT, ""),
    "py": fenced(RIGHT, "py"),
    "capital_language": fenced(RIGHT, "Python"),
    "language_with_attributes": fenced(RIGHT, 'python title="add.py"'),
    "tildes": f"~~~python\n{RIGHT}~~~\n",
    "four_backticks": f"````python\n{RIGHT}````\n",
    "never_closed": f"```python\n{RIGHT}",
    "fence_behind_words": f"Sure! ```python\n{RIGHT}```\n",
    "bash_first": "Install nothing:\n" + fenced("pip install numpy\n", "bash") + "\n" + BLOCK,
    "two_shell_lines_first": fenced("cd src\npython -m add\n", "sh") + BLOCK,
    "plan_first": fenced("1. read x\n2. read y\n3. add\n", "text") + BLOCK,
    "print_before_solution": fenced("print('start')\n" + RIGHT),
    "main_before_solution": fenced("def main():\n    return add(1, 2)\n\n" + RIGHT),
    "guard_behind_solution": fenced(RIGHT + "\nif __name__ == '__main__':\n    print(add(1, 2))\n"),
    "guard_before_solution": fenced("if __name__ == 'x':\n    pass\n" + RIGHT),
    "asserts_in_the_block": fenced(RIGHT + "\nassert add(1, 2) == 3\n"),
    "doctest_first": fenced(">>> add(1, 2)\n3\n>>> add(2, 2)\n4\n") + BLOCK,
    "usage_first": fenced("print(add(1, 2))\n") + BLOCK,
    "usage_behind": BLOCK + "Use it:\n" + fenced("print(add(1, 2))\n"),
    "output_behind": BLOCK + "Output:\n" + fenced("3\n", ""),
    "imports_in_the_block": fenced("from typing import List\n\n" + TYPED),
    "helper_in_the_block": fenced(
        "def plus(a, b):\n    return a + b\n"
        "\ndef add(x, y):\n    return plus(x, y)\n"
    ),
    "constant_in_the_block": fenced("ZERO = 0\n\ndef add(x, y):\n    return x + y + ZERO\n"),
    "lambda": fenced("import math\nadd = lambda x, y: x + y\n"),
    "class_that_is_callable": fenced(
        "class add(int):\n    def __new__(cls, x, y):\n"
        "        return x + y\n"
    ),
    "method_of_a_class": fenced(
        "class Solution:\n    def add(self, x, y):\n"
        "        return x + y\n"
    ),
    "decorated": fenced("import functools\n\n@functools.cache\n" + RIGHT),
    "another_name": fenced("def plus(x, y):\n    return x + y\n"),
    "body_only": fenced("    return x + y\n"),
    "stub_only": fenced("def add(x: int, y: int):\n    pass\n"),
    "syntax_error": fenced("def add(x, y)\n    return x + y\n"),
    "cut_off_in_the_body": "```python\ndef add(x, y):\n    return (x +\n",
    "python_2": fenced("def add(x, y):\n    print 'adding'\n    return x + y\n"),
    "empty": "",
    "words_only": "I cannot answer that.\n",
    "empty_block": fenced("") + BLOCK,
    "bare_with_usage": RIGHT + "\nprint(add(1, 2))\n",
    "bare_behind_words": "The function is as follows.\n\n" + RIGHT + "\nIt adds.\n",
    "inline_code_before": "Use `x + y`, as in ```x + y``` here.\n" + BLOCK,
    "fence_in_a_docstring": fenced(
        'def add(x, y):\n    """Adds.\n\n'
        '    ```\n    add(1, 2)\n    ```\n    """\n    return x + y\n'
    ),
    "generator_helper": fenced(
        "def both(x, y):\n    yield x\n    yield y\n"
        "\ndef add(x, y):\n    return sum([x, y])\n"
    ),
    "comment_first": fenced("# the solution\n" + RIGHT),
    "windows_line_ends": BLOCK.replace("\n", "\r\n"),
    "thinking_without_code": "<think>\nAdd them.\n</think>\n" + BLOCK,
    "thinking_on_one_line": "<think>add</think>" + BLOCK,
    "empty_thinking": "<think>\n\n</think>\n\n" + BLOCK,
    "json_first": fenced('{"x": 1}\n', "json") + BLOCK,
    "two_functions_second_asked": fenced("def sub(x, y):\n    return x - y\n\n" + RIGHT),
    "wrong_then_wrong": fenced(WRONG) + fenced(WRONG),
}  # fmt: skip

# A right answer that EvalPlus's sanitiser loses when it sees the whole, and why.
BETTER = {
    "imports_block_then_code": (
        fenced("from typing import List\n") + fenced(TYPED),
        "the longest part that parses is one block, without the imports of the other",
    ),
    "star_import_block": (fenced("from typing import *\n") + fenced(TYPED), "the same"),
    "import_under_another_name": (
        fenced("import operator as op\n") + fenced("def add(x, y):\n    return op.add(x, y)\n"),
        "the same",
    ),
    "helper_block_then_code": (
        fenced("def plus(a, b):\n    return a + b\n")
        + fenced("def add(x, y):\n    z = plus(x, y)\n    return z\n"),
        "the same, for a helper",
    ),
    "helper_that_needs_an_import": (
        fenced("import operator\n")
        + fenced("def plus(a, b):\n    return operator.add(a, b)\n")
        + fenced("def add(x, y):\n    z = plus(x, y)\n    return z\n"),
        "the same, twice",
    ),
    "long_usage_first": (fenced(LONG) + BLOCK, "the longest part that parses is the usage"),
    "long_usage_behind": (BLOCK + fenced(LONG), "the same"),
    "long_plan_of_comments": (fenced("# step\n" * 9) + BLOCK, "the longest part is the plan"),
    "stub_repeated_first": (
        fenced(
            'def add(x: int, y: int):\n    """Add two numbers.\n'
            '\n    >>> add(1, 2)\n    3\n    """\n'
        )
        + BLOCK,
        "the longest part is the repeated question",
    ),
    "draft_in_thinking": (
        "<think>\nMaybe:\n" + fenced(WRONG + "\n# no\n# that is wrong\n") + "</think>\n" + BLOCK,
        "the longest part is a draft in the thinking",
    ),
    "another_function_first": (
        fenced("def sub(x, y):\n    return x - y\n") + BLOCK, "the first of equally long parts"),
    "in_a_list": ("1. Solution:\n" + indented(BLOCK, "   "), "an indented block does not parse"),
    "right_then_wrong_and_longer": (
        BLOCK + "Or, wrongly:\n" + fenced("# wrong\n" + WRONG),
        "the answer had ended, and the longest part is another",
    ),
}  # fmt: skip

# Where the whole text has a right program and the answer, which ends behind the first, has not.
ENDED = {
    "wrong_then_right_and_longer": (
        fenced(WRONG) + "No, that subtracts:\n" + fenced("# right\n" + RIGHT),
        "an answer is its first solution, as EvalPlus has it in its own chat mode",
    ),
}


def passes(code: str) -> bool:
    space: dict[str, object] = {}
    try:
        exec(code, space)
        return space["add"](1, 2) == 3 and space["add"](-5, 2) == -3  # type: ignore[operator]
    except Exception:
        return False


def judged(text: str) -> bool:
    """Our outcome of an answer."""
    text = text[: STOPS.cut(text, "add")]
    return passes(sanitize(answers.program(text, "add"), "add"))


def test_there_are_at_least_sixty_shapes():
    assert len(ALIKE) + len(BETTER) + len(ENDED) >= 60


@pytest.mark.parametrize("name", ALIKE)
def test_an_answer_has_the_outcome_that_the_sanitiser_gives_the_whole_text(name):
    assert judged(ALIKE[name]) == passes(sanitize(ALIKE[name], "add"))


@pytest.mark.parametrize("name", BETTER)
def test_a_right_answer_that_the_sanitiser_loses_in_the_whole_text_passes(name):
    text, why = BETTER[name]
    assert judged(text) and not passes(sanitize(text, "add")), why


@pytest.mark.parametrize("name", ENDED)
def test_an_answer_ends_behind_its_first_solution_even_if_a_better_one_follows(name):
    text, why = ENDED[name]
    assert not judged(text) and passes(sanitize(text, "add")), why


def test_both_outcomes_occur_among_the_shapes_that_are_alike():
    assert {passes(sanitize(text, "add")) for text in ALIKE.values()} == {True, False}


ALL = [*ALIKE.values(), *(text for text, _ in [*BETTER.values(), *ENDED.values()])]


@pytest.mark.parametrize("text", ALL)
def test_reading_token_by_token_ends_where_reading_the_whole_does(text):
    """The generator looks at the text so far; no later text may move the end that it found."""
    found = next((c for n in range(len(text) + 1) if (c := STOPS.cut(text[:n], "add"))), None)
    whole = STOPS.cut(text, "add")
    if whole is None:
        assert found is None
    else:
        assert found is not None and text[:found].rstrip("\r") == text[:whole].rstrip("\r")


def test_every_end_is_announced_by_a_signal_in_the_last_characters():
    """The generator decodes and looks again only where a signal newly appears."""
    for text in ALIKE.values():
        cut = STOPS.cut(text, "add")
        if cut is not None:
            assert any(signal in text[cut - 5 : cut] for signal in STOPS.signals)


def test_a_block_of_another_function_ends_nothing():
    text = fenced("def sub(x, y):\n    return x - y\n")
    assert STOPS.cut(text, "add") is None and STOPS.cut(text, "sub") == len(text) - 1


def test_within_a_thought_that_the_prompt_opened_nothing_ends():
    stops = Stops(END_MARKERS, fenced=True, thinking=True)
    assert stops.cut(BLOCK, "add") is None
    text = BLOCK + "</think>\n" + BLOCK
    assert stops.cut(text, "add") == len(text) - 1
    assert answers.program(text, "add", thinking=True) == RIGHT
    assert answers.program(BLOCK, "add", thinking=True) == ""


def test_an_unfinished_thought_is_no_answer():
    text = "<think>\n" + BLOCK
    assert STOPS.cut(text, "add") is None and "def" not in answers.program(text, "add")


def test_a_tag_inside_code_is_no_thought():
    code = "def add(x, y):\n    s = '<think>' + '</think>'\n    return x + y\n"
    assert answers.program(fenced(code), "add") == code


def test_where_a_program_is_asked_for_the_answer_ends_behind_the_block_that_prints():
    code = "n = int(input())\nprint(n + 1)\n"
    text = fenced("pip install numpy\n", "bash") + fenced("import sys\n") + fenced(code)
    assert STOPS.cut(text + fenced("print(5)\n"), "") == len(text) - 1
    assert answers.program(text, "") == code
    assert answers.names_function(code, "") and not answers.names_function("import sys\n", "")


def test_an_example_that_prints_and_reads_nothing_does_not_end_an_answer_with_a_program():
    code = "import sys\nn = int(sys.stdin.readline())\nprint(n + 1)\n"
    text = "For example\n" + fenced("print(3 + 1)\n") + "prints 4. So:\n" + fenced(code)
    assert STOPS.cut(text, "") == len(text) - 1
    assert answers.program(text, "") == code
    for reads in ("input()", "open(0).read()", "next(fileinput.input())", "open('/dev/stdin')"):
        assert answers.defines(f"print({reads})\n", "")
    assert not answers.defines("inputs = 3\nprint(reopen(0))\n", "")


def test_nothing_is_taken_over_from_earlier_blocks_that_the_solution_does_not_use():
    """A package that is not there, and an example that runs the function, would fail it."""
    before = fenced("import absent_package\nresult = add(1, 2)\nx = add(3, 4)\n")
    body = "def add(x, y):\n    result = x + y\n    return result\n"
    assert answers.program(before + fenced(body), "add") == body


def test_of_several_bindings_in_earlier_blocks_the_last_counts_and_builtins_stay():
    before = fenced("def plus(a, b):\n    return 0\nsum = 5\n") + fenced(
        "def plus(a, b):\n    return a + b\n"
    )
    body = "def add(x, y):\n    return plus(sum([x]), y)\n"
    assert passes(answers.program(before + fenced(body), "add"))


@pytest.mark.parametrize("hostile", ["(" * 50_000, "-" * 50_000 + "1", "1+" * 20_000 + "1", "\0"])
def test_text_that_the_parser_cannot_take_defines_nothing(hostile):
    text = fenced("def add(x, y): return x\n" + hostile + "\n")
    assert STOPS.cut(text, "add") is None


@pytest.mark.parametrize(
    ("program", "found"),
    [
        (RIGHT, True),
        ("add = max\n", True),
        ("from operator import add\n", True),
        ("async def add(x):\n    return x\n", True),
        ("def added(x):\n    return add(x)\n", False),
        ("print(add(1, 2))", False),
        ("", False),
    ],
)
def test_whether_a_program_names_the_asked_function(program, found):
    assert answers.names_function(program, "add") == found


@pytest.mark.parametrize("blank", ["\n", " ", " \n", "\t"])
def test_blank_text_takes_no_longer_than_its_length(blank):
    started = time.monotonic()
    assert not answers.names_function(blank * 50_000, "add")
    assert answers.names_function(blank * 50_000 + "\n \f def add(x):\n", "add")
    assert STOPS.cut(blank * 50_000, "add") is None
    assert time.monotonic() - started < 1
