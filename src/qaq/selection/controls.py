"""What can be seen of a pair without a model: the controls beside every AUROC of a score.

A damage that these find as well as a score was not found by what the model knows.
"""

import re
from collections.abc import Sequence

import numpy as np

from qaq.data.python_code import find_python
from qaq.selection.ranks import FloatArray
from qaq.selection.rules.compression import saving
from qaq.selection.rules.word_overlap import overlaps

WORDS, COMPRESSION = "words in common", "compression"
PARSES, DEFINED = "parses", "asked name defined"
LENGTH_Q, LENGTH_A = "question's length", "answer's length"
# `name(...)` or `name` between backticks, or a name behind what it is to be.
ASKED = re.compile(r"`(\w+)(?:\([^`]*\))?`|\b(?:named|called|function|method|class)\s+(\w+)\(")
KEYWORDS = r"(?:def|class|function|func|fn|fun|sub|proc|struct|interface|const|let|var|val)"


def model_free(questions: Sequence[str], answers: Sequence[str]) -> dict[str, FloatArray]:
    """A value per pair for each control; NaN where it says nothing.

    Words in common are weighted by rarity in this pool; `compression` is what the question saves
    behind the answer under zlib; `parses` is 1 where the answer holds Python that parses; `asked
    name defined` is 1 where a name that the question asks for is defined in the answer, and NaN
    where it asks for none. Lengths are in characters.
    """
    pairs = list(zip(questions, answers, strict=True))
    return {
        WORDS: overlaps(questions, answers),
        COMPRESSION: np.array([saving(q, a) for q, a in pairs]),
        PARSES: np.array([float(find_python(a) is not None) for a in answers]),
        DEFINED: np.array([defines_asked(q, a) for q, a in pairs]),
        LENGTH_Q: np.array([float(len(q)) for q in questions]),
        LENGTH_A: np.array([float(len(a)) for a in answers]),
    }


def defines_asked(question: str, answer: str) -> float:
    """Whether a name that the question asks for is defined in the answer; NaN where none is."""
    asked = sorted({a or b for a, b in ASKED.findall(question)})
    if not asked:
        return float("nan")
    names = "|".join(map(re.escape, asked))
    forms = (
        rf"\b{KEYWORDS}\s+(?:{names})\b"  # def name, function name, let name
        rf"|^\s*(?:{names})\s*:?="  # name = ...
        rf"|^[^\n=(#/]*\b\w[\w<>\[\]]*[ &*]+(?:{names})\s*\([^;\n]*\)[^;\n]*\{{"  # int name(...) {{
    )
    return float(re.search(forms, answer, re.M) is not None)
