"""How many of the question's words the answer repeats, rare words counting more: no model at all.

A control: what a rule with a model finds beyond this, the model has found. Rarity is the inverse
document frequency of Spärck Jones (1972).
"""

import re
from collections import Counter
from collections.abc import Sequence
from math import log
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import FloatArray

WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class WordOverlap:
    """The answers that repeat most of the question's words, each weighted by its rarity."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["word_overlap"] = "word_overlap"


@rule(WordOverlap)
def word_overlap(config: WordOverlap, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the highest overlaps; a question without a word that is rare at all has none."""
    texts = given(pool.texts, "texts").table()
    score = overlaps(texts["question"].to_pylist(), texts["answer"].to_pylist())
    return keep_highest(config, pool, size, score)


def overlaps(questions: Sequence[str], answers: Sequence[str]) -> FloatArray:
    """For each pair the share of the question's weight whose words the answer has too.

    A word is a run of letters and digits, case ignored; its weight log(n / rows that hold it).
    """
    pairs = [(_words(q), _words(a)) for q, a in zip(questions, answers, strict=True)]
    rows = Counter(word for q, a in pairs for word in q | a)
    weight = {word: log(len(pairs) / count) for word, count in rows.items()}
    score = np.full(len(pairs), np.nan)
    for row, (q, a) in enumerate(pairs):
        whole = sum(weight[word] for word in sorted(q))
        if whole > 0:
            score[row] = sum(weight[word] for word in sorted(q & a)) / whole
    return score


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.casefold()))
