"""Damage without a cue, and the harmless changes that damage is held against."""

import ast
import io
import random
import re
import tokenize
from pathlib import Path

import numpy as np
import pytest
import yaml

from qaq.data import python_code, rewording, terms
from qaq.data.config import CONTROLS, NoiseConfig
from qaq.data.defects import DAMAGES
from qaq.data.noise import plant
from qaq.data.rows import Pair
from qaq.evidence.ranking import area
from qaq.selection.rules.compression import saving
from qaq.selection.rules.word_overlap import overlaps

CONF = Path(__file__).parents[2] / "conf"
BLIND = 0.15  # a control that finds no more than this beyond chance gives no cue


def composition(name):
    tree = yaml.safe_load((CONF / "noise" / f"{name}.yaml").read_text())
    return NoiseConfig(**tree)


def cues(pairs):
    """What can be seen of pairs without a model."""
    questions, answers = [p.question for p in pairs], [p.answer for p in pairs]
    return {
        "words in common": overlaps(questions, answers),
        "compression": np.array([saving(q, a) for q, a in zip(questions, answers, strict=True)]),
        "parses": np.array([float(python_code.find_python(a) is not None) for a in answers]),
        "question's length": np.array([float(len(q)) for q in questions]),
        "answer's length": np.array([float(len(a)) for a in answers]),
    }


def found(pairs, kind, control=None):
    """AUROC of each cue for a kind against clean rows or its control."""
    defect = np.array([p.defect for p in pairs], dtype=object)
    against = defect == control
    return {name: area(s, defect == kind, against).value for name, s in cues(pairs).items()}


@pytest.fixture(scope="module")
def pool(mined):
    return random.Random(1).sample(mined, 1500)


def test_subtle_noise_damages_three_rows_in_ten_and_no_model_free_score_finds_it(pool):
    config = composition("subtle")
    assert sum(config.shares.values()) == pytest.approx(0.3)
    noisy, planted = plant(pool, config.shares, config.seed)
    assert len(planted) == 450
    for kind in config.shares:
        for cue, value in found(noisy, kind).items():
            assert abs(value - 0.5) < BLIND, (kind, cue, value)


def test_the_same_scores_find_the_noise_that_gives_itself_away(pool):
    noisy, _ = plant(pool, {"echo": 0.1, "truncated": 0.1, "invented_terms": 0.1}, 0)
    for kind in ("echo", "truncated", "invented_terms"):
        assert max(abs(v - 0.5) for v in found(noisy, kind).values()) > BLIND, kind


def test_lengths_and_parsing_do_not_tell_damage_from_its_control(pool):
    config = composition("controlled")
    noisy, _ = plant(pool, config.shares, config.seed)
    for kind in set(CONTROLS) & set(config.shares):
        values = found(noisy, kind, CONTROLS[kind])
        for cue in ("parses", "question's length", "answer's length"):
            assert abs(values[cue] - 0.5) < BLIND, (kind, cue, values[cue])


def test_every_control_is_a_kind_of_its_own_and_has_no_control():
    assert set(CONTROLS) | set(CONTROLS.values()) <= set(DAMAGES)
    assert not set(CONTROLS) & set(CONTROLS.values())


@pytest.mark.parametrize("kind", ["hallucinated", "renamed_term"])
def test_a_term_is_another_on_both_sides_and_nothing_else_changes(pool, kind):
    _, planted = plant(pool, {kind: 0.05}, 3)
    for row in planted:
        before, after = pool[row.position], row.pair
        texts = [(before.question, after.question), (before.answer, after.answer)]
        changed = []
        for old, new in texts:
            words = zip(terms.LETTERS.findall(old), terms.LETTERS.findall(new), strict=True)
            assert terms.LETTERS.sub("", old) == terms.LETTERS.sub("", new)
            changed.append({(a.lower(), b.lower()) for a, b in words if a != b})
        assert len(changed[0]) == 1
        assert changed[0] == changed[1]
        ((old, new),) = changed[0]
        assert (new in terms.KNOWN_NOUNS) == (kind == "renamed_term")
        defined = re.findall(r"(?:def|class) +(\w+)", before.answer)
        assert renamed(before.answer, after.answer) <= set(defined)


def renamed(before, after):
    """The names in code, but not in its strings and comments, that are others afterwards."""
    sides = (tokenize.generate_tokens(io.StringIO(text).readline) for text in (before, after))
    both = zip(*sides, strict=True)
    return {a.string for a, b in both if a.type == tokenize.NAME and a.string != b.string}


@pytest.mark.parametrize("kind", ["hallucinated", "renamed_term"])
def test_names_from_elsewhere_stay_what_they_are(kind):
    question = "Shuffle and split the words, sort them by their length in random order, then close."
    code = (
        "from random import shuffle\nimport collections.abc as words\n\n"
        "class Close:\n    def __close__(self, text, order=split):\n"
        "        self.length = sorted(text.split(), sort=1)\n"
    )
    for answer in (code, f"So:\n```python\n{code}```"):
        pair = Pair(question, answer, "s")
        drawn = {DAMAGES[kind](pair, pair, random.Random(seed)) for seed in range(30)}
        assert drawn == {None}, drawn
    pair = Pair(question, code.replace("__close__", "close_them"), "s")
    for seed in range(30):
        asked, answered = DAMAGES[kind](pair, pair, random.Random(seed))
        assert "then close" not in asked
        assert renamed(pair.answer, answered) == {"Close", "close_them"}


def test_a_pair_without_a_word_in_common_has_no_term_to_replace():
    pair = Pair("Why is it so?", "x = 1", "s")
    assert DAMAGES["hallucinated"](pair, pair, random.Random(0)) is None


def test_known_terms_are_the_clauses_of_the_invented_ones_with_words_of_the_field(pool):
    pair = pool[0]
    text, answer = DAMAGES["known_terms"](pair, pair, random.Random(0))
    assert answer == pair.answer
    new = re.findall(r"\w+", text)
    assert any(word in terms.KNOWN for word in new)
    assert text.startswith(pair.question[:20])


def test_a_paraphrase_says_the_request_in_other_words_without_its_code():
    text = rewording.reworded(
        "Write a function `add(a, b)` that returns the sum of two numbers.\n\n>>> add(1, 2)\n3"
    )
    assert text == "Develop one routine it which hands back the total of a pair of figures."


def test_a_paraphrase_stands_before_the_answer_and_code_still_parses(pool):
    _, planted = plant(pool, {"paraphrase_echo": 0.03, "described_code": 0.03}, 0)
    for row in planted:
        before = pool[row.position]
        assert row.pair.question == before.question
        assert row.pair.answer.endswith("\n" + before.answer)
        assert ast.dump(ast.parse(row.pair.answer)) == ast.dump(ast.parse(before.answer))


def test_described_code_says_what_the_statements_do_and_is_about_as_long_as_asked():
    code = "def f(a):\n    b = a + 1\n    for i in b:\n        print(i)\n    return b"
    function = ast.parse(code).body[0]
    assert rewording.described(function, 100) == (
        "`b` is set to `a + 1`. The loop goes over `b`, one `i` at a time. "
        "Then `print(i)` is called."
    )
    assert rewording.described(function, 1000) is None
