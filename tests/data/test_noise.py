import ast
import random
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaq.data import defects, languages, python_code, terms
from qaq.data.config import Defect
from qaq.data.defects import DAMAGES
from qaq.data.neighbours import Neighbours
from qaq.data.noise import plant
from qaq.data.rows import Pair, canonical
from qaq.host.errors import DataError

KINDS = get_args(Defect)


@pytest.fixture(scope="module")
def pool(mined):
    return random.Random(0).sample(mined, 600)


@pytest.fixture(scope="module")
def planted(pool):
    return plant(pool, dict.fromkeys(KINDS, 0.03), seed=5)


def rows_of(planted, kind):
    return [row for row in planted[1] if row.pair.defect == kind]


def test_every_kind_of_the_schema_has_its_damage():
    assert set(DAMAGES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_hits_exactly_its_share(planted, kind):
    assert len(rows_of(planted, kind)) == 18


def test_the_other_rows_and_the_order_stay_as_they_are(pool, planted):
    noisy, damaged = planted
    places = {row.position for row in damaged}
    assert len(places) == len(damaged) == 18 * len(KINDS)
    for position, (before, after) in enumerate(zip(pool, noisy, strict=True)):
        assert (before == after) == (position not in places)
        assert (after.defect is None) == (position not in places)
        assert after.source == before.source


def test_the_record_of_the_planting_says_which_row_was_which(pool, planted):
    noisy, damaged = planted
    assert [row.position for row in damaged] == sorted(row.position for row in damaged)
    for row in damaged:
        assert noisy[row.position] == row.pair
        assert row.original_row_id == pool[row.position].row_id != row.pair.row_id


def test_damaged_rows_are_canonical_unique_and_not_empty(planted):
    noisy, _ = planted
    assert len({pair.row_id for pair in noisy}) == len(noisy)
    for pair in noisy:
        assert pair.question and pair.answer
        assert canonical(pair.question) == pair.question
        assert canonical(pair.answer) == pair.answer


def test_the_same_seed_plants_the_same_and_another_seed_elsewhere(pool, planted):
    again = plant(pool, dict.fromkeys(KINDS, 0.03), seed=5)
    assert again == planted
    other = plant(pool, dict.fromkeys(KINDS, 0.03), seed=6)
    assert {r.position for r in other[1]} != {r.position for r in planted[1]}


def test_which_rows_are_hit_and_how_does_not_depend_on_the_order_of_the_pool(pool):
    shares = {"echo": 0.1, "truncated": 0.1, "swapped_answer": 0.1, "invented_terms": 0.1}
    noisy, _ = plant(pool, shares, seed=1)
    shuffled = random.Random(3).sample(pool, len(pool))
    assert set(plant(shuffled, shares, seed=1)[0]) == set(noisy)


def test_no_shares_change_nothing(pool):
    assert plant(pool, {}, seed=0) == (pool, [])
    assert plant(pool, {"echo": 0.0}, seed=0) == (pool, [])


def test_an_input_part_is_known_after_the_damage_as_long_as_it_stands_at_the_end(pool):
    apart = [
        Pair(f"{p.question}\n\n[{i}]", p.answer, "s", input_start=len(p.question) + 2)
        for i, p in enumerate(pool)
    ]
    shares = {"swapped_answer": 0.1, "invented_terms": 0.1, "rebuilt_question": 0.05}
    damaged, planted = plant(apart, shares, seed=0)
    known = {kind: set() for kind in shares}
    for row in planted:
        pair, text = row.pair, f"\n\n[{row.position}]"
        known[pair.defect].add(pair.input_start is not None)
        if pair.input_start is None:
            assert not pair.question.endswith(text)
        else:
            assert pair.question[pair.input_start - 2 :] == text
    assert known["swapped_answer"] == {True}
    assert known["rebuilt_question"] == {False}
    assert all(pair.input_start for pair in damaged if pair.defect is None)


def test_asking_for_more_than_can_be_damaged_says_how_many_can():
    prose = [Pair(f"Why {i}?", f"Because of {i}.", "s") for i in range(10)]
    with pytest.raises(
        DataError, match=r"wrong_constant_or_operator=0\.5 asks for 5 of 10.*only 0"
    ):
        plant(prose, {"wrong_constant_or_operator": 0.5}, seed=0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.text("ab \n", min_size=1), st.text("xy \n", min_size=1)), max_size=30),
    st.integers(0, 5),
)
def test_tiny_pools_of_like_rows_are_damaged_or_refused_never_corrupted(texts, seed):
    pairs = {(canonical(q), canonical(a)) for q, a in texts}
    pool = [Pair(q, a, "s") for q, a in sorted(pairs) if q and a]
    try:
        noisy, damaged = plant(pool, {"swapped_answer": 0.4, "echo": 0.3}, seed)
    except DataError:
        return
    assert len(damaged) == round(0.4 * len(pool)) + round(0.3 * len(pool))
    assert len({pair.row_id for pair in noisy}) == len(pool)


LONG = {
    "sum": "def f(a):\n    return " + " + ".join(["a"] * 700),
    "elif": "def f(a):\n    if a == 0:\n        return 0\n"
    + "".join(f"    elif a == {i}:\n        return {i}\n" for i in range(1, 400)),
    "calls": "def f(a):\n    return " + "f(" * 90 + "a" + ")" * 90,
    "attributes": "def f(a):\n    return a" + ".b" * 900,
}


@pytest.mark.parametrize("long", LONG)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_too_deep_for_a_damage_is_left_as_it_is(kind, long):
    short = "def f(a):\n    # add\n    if a < 1:\n        return 2\n    return a + 1"
    pool = [Pair(f"Please add {i} to it.", short.replace("f", f"f{i}"), "s") for i in range(20)]
    pool.append(Pair("Please add it up.", LONG[long], "s"))
    for share in (0.05, 0.99):  # one row, and as many as there are
        try:
            noisy, planted = plant(pool, {kind: share}, 0)
        except DataError as error:
            assert "can be damaged in this way" in str(error)
        else:
            assert len(planted) == round(share * len(pool))
            assert all(pair.question and pair.answer for pair in noisy)


LINES = "def f(a, b):\n    # Some.\n    c = 1\n    return abs(a - b) < 3 and a - 1"
RETURNS = {
    "bare": LINES.replace("\n", "\r", 2),
    "fenced": "Look:\n\n```python\n" + LINES.replace("\n    ", "\n    \r    ", 1) + "\n```\nSo.",
    "in a text": LINES.replace("Some.", "Some.\r    'b'"),
}


@pytest.mark.parametrize("form", RETURNS)
@pytest.mark.parametrize("kind", KINDS)
def test_lines_that_end_in_a_carriage_return_alone_are_not_miscounted(kind, form):
    pair = Pair("Write\ra function `f(a, b)` about a function.", RETURNS[form], "s")
    donor = Pair("Another.", "x\ry\nz\nu\nv\nw", "s")
    found = DAMAGES[kind](pair, donor, random.Random(0))
    edits_lines = "wrong_code", "equivalent_code", "wrong_constant_or_operator", "placeholder"
    assert (found is None) if kind in edits_lines else (found is None or all(found))
    if found and kind in ("echo", "described_code") and form != "fenced":
        ast.parse(found[1])


def test_a_swapped_answer_is_that_of_another_row_and_none_is_given_away_twice(pool, planted):
    rows = rows_of(planted, "swapped_answer")
    answers = {pair.answer for pair in pool}
    for row in rows:
        before = pool[row.position]
        assert row.pair.question == before.question
        assert row.pair.answer != before.answer
        assert row.pair.answer in answers
    assert len({row.pair.answer for row in rows}) == len(rows)


def test_an_echo_holds_the_whole_question_before_the_answer_and_still_parses(pool, planted):
    for row in rows_of(planted, "echo"):
        before = pool[row.position]
        assert row.pair.question == before.question
        assert row.pair.answer.endswith("\n" + before.answer)
        lead = row.pair.answer.removesuffix(before.answer).splitlines()
        assert (
            "\n".join(line.removeprefix("#").removeprefix(" ") for line in lead) == before.question
        )
        ast.parse(row.pair.answer)


def test_an_echo_before_prose_is_prose():
    pair = Pair("Why is it so?", "It is so because it is.", "s")
    _, answer = defects.echo(pair, pair, random.Random(0))
    assert answer == "Why is it so?\n\nIt is so because it is."


def test_invented_terms_are_in_no_other_row_and_the_question_is_still_in_there(pool, planted):
    known = set(re.findall(r"\w+", " ".join(p.question + p.answer for p in pool).lower()))
    fixed = " ".join([*terms.CLAUSES, *terms.SENTENCES, *terms.HEADS])
    for row in rows_of(planted, "invented_terms"):
        before = pool[row.position]
        assert row.pair.answer == before.answer
        words = re.findall(r"\w+", row.pair.question)
        new = {w.lower() for w in words} - known - set(re.findall(r"\w+", fixed.lower()))
        assert new, row.pair.question
        rest = iter(words)
        assert all(word in rest for word in re.findall(r"\w+", before.question))


def test_code_spans_and_examples_get_no_invented_terms(planted, pool):
    for row in rows_of(planted, "invented_terms"):
        before = pool[row.position].question
        for code in re.findall(r"`[^`\n]+`", before) + re.findall(r"^>>>.*$", before, re.M):
            assert code in row.pair.question


def test_a_truncated_answer_is_the_first_30_to_60_percent(pool, planted):
    for row in rows_of(planted, "truncated"):
        before = pool[row.position]
        assert row.pair.question == before.question
        assert before.answer.startswith(row.pair.answer)
        # whitespace at the cut goes as well, so a little less can be left
        assert 0.2 < len(row.pair.answer) / len(before.answer) <= 0.6


def test_a_short_answer_is_not_truncated():
    pair = Pair("q", "x" * (defects.SHORTEST_TO_CUT - 1), "s")
    assert defects.truncated(pair, pair, random.Random(0)) is None


def test_not_code_is_prose_of_comparable_length_and_every_one_is_different(pool, planted):
    rows = rows_of(planted, "not_code")
    for row in rows:
        before = pool[row.position]
        assert python_code.find_python(row.pair.answer) is None
        assert not re.search(r"[{}_=]|def |\breturn\b", row.pair.question + row.pair.answer)
        assert len(row.pair.answer) > 60
        assert abs(len(row.pair.answer) - len(before.answer)) < max(150, 0.4 * len(before.answer))
    assert len({row.pair.question for row in rows}) == len(rows)
    assert len({row.pair.answer for row in rows}) == len(rows)


def test_a_partial_mismatch_begins_as_its_own_answer_and_ends_as_another(pool, planted):
    for row in rows_of(planted, "partial_mismatch"):
        own = pool[row.position].answer.split("\n")
        half = (len(own) + 1) // 2
        lines = row.pair.answer.split("\n")
        assert lines[: half - 1] == own[: half - 1]
        tail = "\n".join(lines[half:])
        assert any(pair.answer.endswith(tail) for pair in pool if pair is not pool[row.position])


def test_a_neighbours_answer_answers_a_question_that_shares_words_but_not_the_same_one(
    pool, planted
):
    owner = {pair.answer: pair for pair in pool}
    for row in rows_of(planted, "neighbour_answer"):
        before, donor = pool[row.position], owner[row.pair.answer]
        assert donor.question != before.question
        own, other = (ast.parse(p.answer).body[0].name for p in (before, donor))
        assert own != other


def test_one_token_of_the_code_is_wrong_and_it_still_parses(pool, planted):
    for row in rows_of(planted, "wrong_constant_or_operator"):
        before = pool[row.position]
        assert row.pair.question == before.question
        assert ast.dump(ast.parse(row.pair.answer)) != ast.dump(ast.parse(before.answer))
        pairs = zip(before.answer.split("\n"), row.pair.answer.split("\n"), strict=True)
        changed = [(a, b) for a, b in pairs if a != b]
        assert len(changed) == 1
        tokens = [re.findall(r"\w+|[<>=!]=|[^\w\s]", line) for line in changed[0]]
        assert sum(a != b for a, b in zip(*tokens, strict=True)) == 1


def test_a_template_has_the_right_name_and_does_nothing(pool, planted):
    for row in rows_of(planted, "template_answer"):
        function = python_code.find_function(row.pair.answer)
        assert function.name == python_code.find_function(pool[row.position].answer).name
        calls = [n for n in ast.walk(function) if isinstance(n, ast.Call)]
        body = {n.func.id for s in function.body for n in ast.walk(s) if isinstance(n, ast.Call)}
        assert body <= {"print"}, calls


def test_a_template_needs_no_code_where_the_question_names_the_function():
    pair = Pair("Write `twice(x, n=2)` for me.", "It is x + x.", "s")
    _, answer = defects.template_answer(pair, pair, random.Random(0))
    assert "def twice(x, n=2):" in answer
    unnamed = Pair("Why?", "So.", "s")
    assert defects.template_answer(unnamed, unnamed, random.Random(0)) is None


def test_a_placeholder_keeps_signature_and_docstring_and_nothing_of_the_work():
    before = (
        "Sure:\n\n```python\nimport re\n\nclass Box:\n\tsize = 1\n\n\tdef grow(self, by=2):\n"
        '\t\t"""Make it larger."""'
    )
    between = "\n\n\n@cache\nasync def f(é, *,\n        b):"
    after = "\n\nprint(f(1, b=2))\ndef one(x): return x\n```\nThat is all."
    work = "\n\n    # how\n    @wraps\n    def g():\n        return b\n    return g"
    answer = before + "\n\t\t# twice\n\t\tself.size *= by" + between + work + after
    pair = Pair("Write it.", answer, "s")
    assert defects.placeholder(pair, pair, random.Random(0)) == (
        "Write it.",
        before
        + "\n\t\t# Your code here\n\t\tpass"
        + between
        + "\n    # Your code here\n    pass"
        + after,
    )


NO_WORK = [
    "No code.",
    "x = 1",
    "def f(): return 1",
    'def f():\n    """Nothing yet."""',
    "def f():\n    ...",
    "def f(:\n    1",
]


@pytest.mark.parametrize("answer", NO_WORK)
def test_what_has_no_work_to_leave_out_gets_no_placeholder(answer):
    pair = Pair("Write it.", answer, "s")
    assert defects.placeholder(pair, pair, random.Random(0)) is None


def test_an_answer_that_was_left_to_do_is_not_damaged_again():
    pair = Pair("Write it.", "def f(x):\n    return x", "s")
    left = defects.placeholder(pair, pair, random.Random(0))
    assert defects.placeholder(Pair(*left, "s"), pair, random.Random(0)) is None


def test_placeholders_still_parse_and_define_the_same_names(pool, planted):
    for row in rows_of(planted, "placeholder"):
        before = ast.parse(pool[row.position].answer)
        after = ast.parse(row.pair.answer)
        assert [type(n) for n in before.body] == [type(n) for n in after.body]
        assert "# Your code here" in row.pair.answer
        for function in after.body:
            if isinstance(function, ast.FunctionDef):
                assert all(isinstance(n, ast.Pass | ast.Expr) for n in function.body)


def test_a_question_in_another_language_says_what_the_english_control_says(pool, planted):
    for kind in ("other_natural_language", "rebuilt_question"):
        for row in rows_of(planted, kind):
            facts = python_code.facts(python_code.find_function(row.pair.answer))
            spoken = {languages.request(facts, name): name for name in languages.LANGUAGES}
            assert (spoken[row.pair.question] == "en") == (kind == "rebuilt_question")
            assert row.pair.answer == pool[row.position].answer
            assert f"`{facts.name}`" in row.pair.question


def test_every_language_states_the_same_facts_in_its_own_words():
    facts = python_code.Facts("f", ("x",), True, True, ("KeyError",), ("get", "pop"))
    texts = {name: languages.request(facts, name) for name in languages.LANGUAGES}
    for text in texts.values():
        assert re.findall(r"`(\w+)`", text) == ["f", "x", "get", "pop", "KeyError"]
    assert len(set(texts.values())) == len(texts) == 5


def test_facts_are_read_off_the_function_alone_not_off_functions_inside_it():
    code = """
    def outer(self, a, /, b=1, *c, d, **e):
        def inner():
            for x in y:
                return z.inside()
        if not a:
            raise ValueError(a.text())
        raise KeyError
    """
    import textwrap

    facts = python_code.facts(python_code.find_function(textwrap.dedent(code)))
    assert facts == python_code.Facts(
        name="outer",
        parameters=("a", "b", "c", "d", "e"),
        returns=False,
        loops=False,
        raises=("ValueError", "KeyError"),
        calls=("text",),
    )


def test_code_is_found_in_fences_and_bare_and_not_in_prose():
    bare = "x = 1\nprint(x)"
    fenced = f"Look:\n\n```python\n{bare}\n```\nDone."
    block = python_code.find_python(fenced)
    assert fenced[block.start : block.end].strip() == bare
    assert python_code.find_python(bare).start == 0
    for text in ("Yes", "no code", "```js\nlet x = 1;\n```", "```python\nx = (\n```", ""):
        assert python_code.find_python(text) is None, text


def test_a_fenced_answer_keeps_its_prose_when_its_code_is_damaged():
    pair = Pair("q", "Look:\n```python\ndef f(a):\n    return a < 3\n```\nDone.", "s")
    for damage in (defects.wrong_constant_or_operator, defects.other_programming_language):
        _, answer = damage(pair, pair, random.Random(0))
        assert answer.startswith("Look:\n```")
        assert answer.endswith("\n```\nDone.")
        assert answer != pair.answer
    assert "```javascript\nfunction f(a) {\n    return a < 3;\n}\n```" in answer


def test_only_the_functions_are_made_wrong_not_the_example_below_them():
    code = "def f(a):\n    return a < b\n\nprint(f(1), f(2), f(3), f(4), f(5))\n"
    for seed in range(20):
        assert python_code.flip_one(code, random.Random(seed)) == code.replace("<", "<=")


def test_signs_of_unknown_operands_and_strings_are_left_alone():
    assert (
        python_code.flip_one(
            "def f(a, b):\n    return a + b + 'x < 1' + f'{a < 1}'\n", random.Random(0)
        )
        is None
    )


def test_the_nearest_question_is_found_as_by_comparing_all_with_all(pool):
    import math

    questions = [pair.question for pair in pool[:150]]
    words = [set(re.findall(r"\w+", q.lower())) for q in questions]
    count = {w: sum(w in other for other in words) for w in set().union(*words)}
    weight = {w: math.log(len(questions) / n) for w, n in count.items()}

    def cosine(a, b):
        norms = (math.sqrt(sum(weight[w] ** 2 for w in s)) for s in (a, b))
        return sum(weight[w] ** 2 for w in a & b) / math.prod(norms)

    index = Neighbours(questions)
    for position in range(0, 150, 10):
        expected = sorted(
            (cosine(words[position], words[other]) for other in range(150) if other != position),
            reverse=True,
        )
        found = list(index.ranked(position))
        assert [likeness for _, likeness in found[:5]] == pytest.approx(expected[:5])
        assert found[0][1] == pytest.approx(cosine(words[position], words[found[0][0]]))
