"""Every mistake of some functions is run: it must show on some input, and its control on none."""

import ast
import copy
import re
import textwrap
from itertools import product

import pytest

from qaq.data.wrong_code import mistakes, turned
from qaq.data.wrong_operator import wrong_operators

NUMBERS = (-3, -1, 0, 1, 2, 3, 7)
LISTS = ([], [1], [3, 1], [1, 2, 2, 5], [5, 4, 0, -2, 9])
# One function each, and what its parameters are tried with.
PROGRAMS = (
    ("def f(a, b):\n    return a - b if a > b else b", (NUMBERS, NUMBERS)),
    (
        """
def f(n):
    total = 0
    while n > 0:
        total += n
        n -= 1
    return total
""",
        (range(6),),
    ),
    ("def f(items, n):\n    return items[n:] + items[-1:]", (LISTS, (0, 1, 2))),
    ("def f(a, n):\n    return [pow(i, n) for i in a if i == n or i >= 2]", (LISTS, (2, 3))),
    (
        """
def f(a, b):
    def g(x, y):
        return 2 * x + y
    return g(a, b) // 3
""",
        (NUMBERS, NUMBERS),
    ),
    (
        """
def f(items):
    best, i = items[0], 1
    while i < len(items):
        if best < items[i]:
            best = items[i]
        i += 1
    return best, max(best, 1)
""",
        (LISTS,),
    ),
    (
        """
def f(a, b):
    c = a // 2 * 2, (a + b) * 2, (a or b) == 1, 3 * (a if b else 3), a + 1 == b
    return c, abs(a - b), abs((a - b) / 2 - 1), (a - b) ** 2, pow(2 * -(a - b), 4)
""",
        (NUMBERS, NUMBERS),
    ),
    ("def f(text, n):\n    return text.replace('a', 'b')[: n - 1] * 2", (("abcab", "xa"), (2, 4))),
)


def results(code, inputs):
    """What `f` gives for every combination of inputs; an error or a long loop is a result too."""
    space = {}
    exec(bounded(code), space)
    found = []
    for arguments in product(*inputs):
        space["steps"][0] = 0
        try:
            found.append(repr(space["f"](*copy.deepcopy(arguments))))
        except Exception as error:
            found.append(type(error).__name__)
    return found


def bounded(code):
    """The code with a counter in every loop, so that a wrong one ends."""
    tree = ast.parse(code)
    tick = ast.parse("steps[0] += 1\nif steps[0] > 1000:\n    raise OverflowError").body
    for node in ast.walk(tree):
        if isinstance(node, ast.While | ast.For):
            node.body = [*tick, *node.body]
    return "steps = [0]\n" + ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize(("code", "inputs"), PROGRAMS)
def test_every_mistake_keeps_the_words_parses_and_shows_on_some_input(code, inputs):
    right, found = results(code, inputs), mistakes(code)
    assert found
    for wrong in found:
        assert sorted(re.findall(r"\w+", wrong)) == sorted(re.findall(r"\w+", code))
        assert results(wrong, inputs) != right, wrong


@pytest.mark.parametrize(("code", "inputs"), PROGRAMS)
def test_what_is_turned_round_is_another_text_that_does_the_same(code, inputs):
    right = results(code, inputs)
    for other in turned(code):
        assert ast.dump(ast.parse(other)) != ast.dump(ast.parse(code))
        assert results(other, inputs) == right, other


@pytest.mark.parametrize(
    ("code", "others"),
    [
        ("x = (a + b) * 2", []),
        ("x = a // 2 * 2", []),
        ("x = (a or b) == c", []),
        ("x = (lambda: 1) + 2", []),
        ("x = (a + b) * 2 > 1", ["x = 1 < (a + b) * 2"]),
        ("x = 2 * a + 1 >= b", ["x = b <= 2 * a + 1", "x = 1 + 2 * a >= b", "x = a * 2 + 1 >= b"]),
        ("x = f(*a, b=(c, d), e=1)", ["x = f(*a, e=1, b=(c, d))"]),
    ],
)
def test_what_would_bind_otherwise_is_not_turned(code, others):
    assert sorted(turned(code)) == sorted(others)


def test_the_mistakes_are_those_of_operators_bounds_and_arguments():
    code = "def f(a, b, c):\n    c(c < len(b))\n    return g(a, b)[c:] if a <= b else a - 1\n"
    assert set(mistakes(code)) == {
        code.replace("<=", ">="),
        code.replace("< len", "<= len"),
        code.replace("< len", "> len"),
        code.replace("- 1", "+ 1"),
        code.replace("a - 1", "1 - a"),
        code.replace("(a, b)[", "(b, a)["),
        code.replace("[c:]", "[:c]"),
        code.replace("g(a, b)[c:] if a <= b else a - 1", "a - 1 if a <= b else g(a, b)[c:]"),
    }


def test_texts_checks_annotations_and_symmetric_calls_are_left_alone():
    code = textwrap.dedent('''
        @memo(1, 2)
        def f(a: Dict[K, V], b=g(1, 2)):
            """1 - 2 < 3"""
            assert a < b, "a < b"
            if isinstance(a, b):
                raise Bad(a, b)
            print(a, b)  # a < b
            return max(a, b), f"{a < b}"

        f(1, 2)
    ''')
    assert mistakes(code) == []


def test_places_are_counted_in_bytes_where_letters_take_several():
    code = 'def f(ä):\n    x = "größer"; return ä < 3\n'
    assert mistakes(code) == [code.replace("<", ">")]


def test_without_a_function_all_of_the_code_can_be_wrong_and_what_is_no_python_not():
    assert mistakes("x = a - b\n") == ["x = b - a\n"]
    assert mistakes("let x = a - b;") == []


def test_in_other_languages_an_operator_between_spaces_is_wrong_and_no_text_or_comment():
    code = 'for (let i = 0; i < n - 1; i++) { // i < n\n    s = "a == b" + x; y -> z == 2; }\n'
    assert wrong_operators(code) == [
        code.replace("; i < n", "; i > n"),
        code.replace("n - 1", "n + 1"),
        code.replace("z == 2", "z != 2"),
    ]
    assert wrong_operators("Is it true that 3 < 5 and 2 == 2? So they say.") == []
