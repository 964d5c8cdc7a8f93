import ast
import inspect
import json.decoder
import textwrap

import pytest

from qaq.data import stdlib
from qaq.data.rows import Entry
from qaq.host.errors import DataError

MODULE = '''
"""A module."""
import sys

class Jar:
    """Holds biscuits of every kind. More words."""

    @property
    def left(self):
        """Tell how many biscuits are left in the jar at this moment."""

        # counted, not remembered
        total = len(self.biscuits) + len(self.crumbs) // 10
        return total if total else self.ask_grandmother()

    if sys:
        async def fill(self, *kinds: str, to="the brim") -> int:
            """fill(kinds) -> int

            Fill the jar with biscuits of the given kinds, and return how many fit in.
            """
            for kind in kinds:
                self.biscuits.append(await bake(kind, "two lines"))
            return len(self.biscuits)
\f
def short(x):
    """Too short."""
    return [x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x]

def idle(x):
    """Do nothing at all, on purpose, for as long as the caller likes it."""
    raise NotImplementedError("this has to be done by whoever inherits from the class, surely")

def passing(x):
    """Do nothing but pass everything on to another function of the same kind."""
    return another_function_with_a_long_name(x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x)

def oneline(x): "Say what is there to be said about everything in just one line."; return x + 1

def pointing(x):
    """See the documentation of the other function, which has it all in detail."""
    return [x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x]

def plain(x):
    """Repeat the argument so often that nobody can say it was not there."""
    return [x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x]
'''


def mined_from(source):
    return {
        ast.parse(answer).body[0].name: (question, answer)
        for question, answer in stdlib.mine(source.encode(), "jars")
    }


def test_only_documented_functions_that_do_something_are_mined():
    assert set(mined_from(MODULE)) == {"left", "fill", "plain"}


def test_the_answer_is_the_source_without_its_docstring_with_comments_and_decorators():
    _, answer = mined_from(MODULE)["left"]
    assert answer == textwrap.dedent("""\
        @property
        def left(self):

            # counted, not remembered
            total = len(self.biscuits) + len(self.crumbs) // 10
            return total if total else self.ask_grandmother()""")


def test_the_question_names_the_signature_the_class_and_what_to_do():
    question, _ = mined_from(MODULE)["fill"]
    assert "asynchronous method `fill(self, *kinds: str, to='the brim') -> int`" in question
    assert "the Python class `Jar`" in question
    assert "`Jar`: Holds biscuits of every kind.\n" in question
    assert question.endswith(
        "\n\nFill the jar with biscuits of the given kinds, and return how many fit in."
    )
    assert "fill(kinds) -> int" not in question


@pytest.mark.parametrize("text", ["two\n                lines", "two\nlines"])
def test_a_function_whose_string_would_change_by_dedenting_is_left_out(text):
    inside = MODULE.replace('"two lines"', f'"""{text}"""')
    assert set(mined_from(inside)) == {"left", "plain"}


def test_windows_line_ends_change_nothing():
    assert mined_from(MODULE.replace("\n", "\r\n")) == mined_from(MODULE)


@pytest.mark.parametrize("source", [b"def f(:\n", b"x = '\xe9'", b"\0"])
def test_what_is_no_utf8_python_gives_nothing(source):
    assert list(stdlib.mine(source, "m")) == []


def test_this_python_gives_more_than_two_thousand_pairs_within_the_bounds(mined):
    assert len(mined) > 2000
    for pair in mined:
        assert stdlib.ANSWER_CHARS[0] <= len(pair.answer) <= stdlib.ANSWER_CHARS[1]
        assert len(pair.question) < 1400
        assert pair.source.startswith("stdlib/")


def test_every_answer_is_one_function_without_a_docstring(mined):
    for pair in mined:
        (function,) = ast.parse(pair.answer).body
        assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        assert ast.get_docstring(function) is None
        assert f"`{function.name}(" in pair.question


def test_a_known_function_is_there_as_its_authors_wrote_it(mined):
    function = json.decoder.JSONDecoder.raw_decode
    (pair,) = (p for p in mined if "`raw_decode(" in p.question)
    assert inspect.getdoc(function) in pair.question
    code = textwrap.dedent(inspect.getsource(function))
    body = code[code.index('"""', code.index('"""') + 3) + 3 :]
    assert pair.answer == "def raw_decode(self, s, idx=0):" + body.rstrip()
    assert pair.source == "stdlib/json"


def test_no_module_gives_a_tenth_of_the_pool_and_tests_give_nothing(mined):
    sources = [pair.source for pair in mined]
    assert max(map(sources.count, set(sources))) < len(mined) / 10
    assert not {"stdlib/test", "stdlib/idlelib", "stdlib/site-packages"} & set(sources)


def test_the_records_come_in_the_order_of_files_and_lines():
    first, second = stdlib.read(), stdlib.read()
    assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]
    assert isinstance(next(first), Entry)
    roots = [path.relative_to(stdlib.library()).parts for path in stdlib.files()]
    assert roots == sorted(roots)


def test_a_python_without_sources_is_an_error_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(stdlib, "library", lambda: tmp_path)
    with pytest.raises(DataError, match="data=jsonl"):
        stdlib.files.__wrapped__()
