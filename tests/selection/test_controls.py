"""The controls without a model pass of their own, each against a slow one written from its card."""

import ast
import math
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from qaq.selection.rules import RULES, select
from qaq.selection.rules.compression import saving
from qaq.selection.rules.word_overlap import overlaps
from qaq.selection.texts import TEXTS

QUESTIONS = [
    "Write a function that adds two numbers.",
    "Reverse the string text.",
    "Reverse a LIST, please: values",
    "Explain recursion.",
    "...",
    "Write a function that sorts values.",
]
ANSWERS = [
    "def add(a, b):\n    return a + b",
    "def reverse(text):\n    return text[::-1]",
    "Use\n```python\nvalues.reverse()\nx = values\n```",
    "Recursion is when a function calls itself.",
    "def broken(:\n    pass",
    "```python\ndef order(values:\n```",
]


def rule(method, **fields):
    return RULES[method].config(**{"method": method} | fields)


@pytest.fixture
def pool(make):
    import pyarrow as pa

    table = pa.table({"question": QUESTIONS, "answer": ANSWERS}).cast(TEXTS)
    return replace(make.pool(len(QUESTIONS)), texts=make.texts(table))


def test_word_overlap_is_the_shared_part_of_the_question_s_rarity():
    rows = [
        [set(re.findall("[a-z0-9]+", text.lower())) for text in pair]
        for pair in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    for found, (q, a) in zip(overlaps(QUESTIONS, ANSWERS), rows, strict=True):
        rarity = {w: math.log(len(rows) / sum(w in x | y for x, y in rows)) for w in q}
        whole = sum(rarity.values())
        expected = sum(rarity[w] for w in q & a) / whole if whole else math.nan
        assert found == pytest.approx(expected, nan_ok=True)


def test_word_overlap_keeps_the_answers_that_repeat_the_question(make, pool):
    decision = select(rule("word_overlap"), pool, ratio=0.4)
    order = np.argsort(-np.nan_to_num(decision.score, nan=-1), kind="stable")
    assert make.kept(decision) == sorted(order[:2].tolist())
    assert decision.selectable == 5, "a question without words has no score"


def test_compression_keeps_the_answers_that_save_most_of_the_question(make, pool):
    def size(text):
        return len(zlib.compress(text.encode(), 9))

    expected = [
        1 - (size(a + "\n" + q) - size(a)) / size(q)
        for q, a in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    decision = select(rule("compression"), pool, ratio=0.5)
    assert decision.score.tolist() == expected
    assert make.kept(decision) == sorted(sorted(range(6), key=lambda i: -expected[i])[:3])
    long = "Sort the values of a table by their second column, smallest first."
    assert saving(long, long) > 0.8
    assert saving(long, "x = 1") < 0.3


def parses(answer):
    for code in re.findall(r"```python\n(.*?)```", answer, re.S) or [answer]:
        try:
            if not isinstance(ast.parse(code).body[0], ast.Expr) or "=" in code:
                return True
        except SyntaxError:
            continue
    return False


def test_a_draw_among_what_parses_is_the_uniform_draw_without_the_rest(make, pool):
    among = [i for i, answer in enumerate(ANSWERS) if parses(answer)]
    assert among == [0, 1, 2]
    for seed in range(5):
        decision = select(rule("random_parsing"), pool, ratio=0.67, seed=seed)
        draw = select(rule("random"), pool, ratio=1.0, seed=seed).score
        assert make.kept(decision) == sorted(sorted(among, key=lambda i: -draw[i])[:2])
        assert make.reasons(decision)[4] == "dropped: no Python that parses"


@pytest.mark.parametrize("like", [{"method": "longest"}, {"method": "rmi_band", "bins": 2}])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_matched_draw_has_the_other_rule_s_numbers_in_every_stratum(make, like, seed):
    rng = np.random.default_rng(7)
    n, bins = 50, 4
    lengths = rng.integers(1, 40, n).tolist()
    rmi = [None if i % 11 == 0 else float(rng.normal()) for i in range(n)]
    pool = make.pool(n, rmi=rmi, ppl_q=rng.uniform(1, 3, n).tolist(), tokens_a=lengths)
    other = select(rule(like["method"], **{k: v for k, v in like.items() if k != "method"}), pool,
                   ratio=0.3)  # fmt: skip
    decision = select(rule("random_matched", like=like, bins=bins), pool, ratio=0.3, seed=seed)
    known = [i for i in range(n) if rmi[i] is not None]
    draw = select(rule("random"), pool, ratio=1.0, seed=seed).score
    stratum = {i: sum(lengths[j] < lengths[i] for j in known) * bins // len(known) for i in known}
    expected = []
    for one in range(bins):
        here = sorted((i for i in known if stratum[i] == one), key=lambda i: -draw[i])
        expected += here[: sum(bool(other.kept[i]) for i in here)]
    assert make.kept(decision) == sorted(expected)


def test_forward_disagreement_is_the_difference_of_global_ranks_of_ifd(make):
    rng = np.random.default_rng(3)
    n = 40
    models = [
        {"rmi": [0.0] * n, "ppl_q": [1.0] * n, "ifd": rng.uniform(0.5, 1.2, n).tolist()}
        | {"ppl_a": rng.uniform(1, 2, n).tolist(), "tokens_a": [5] * n}
        for _ in range(2)
    ]
    pool = make.pool(n, weak=models[1], **models[0])
    ranks = [np.argsort(np.argsort(model["ifd"])) for model in models]
    expected = np.argsort(-(ranks[0] - ranks[1]), kind="stable")[:10]
    config = rule("diff_high", metric="ifd_loss_ratio", ranks="global")
    assert make.kept(select(config, pool, ratio=0.25)) == sorted(expected.tolist())
