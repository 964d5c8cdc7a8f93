"""The most similar other questions, by the rarer words that two questions share.

Similarity is the cosine of inverse-document-frequency weights over sets of words, counted over
words that at most `COMMON` questions hold: a word of many questions says little and costs most.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

WORD = re.compile(r"\w+")
COMMON = 200


class Neighbours:
    """An inverted index over questions; positions are those of the sequence given."""

    def __init__(self, questions: Sequence[str]):
        self.questions = questions
        self.postings: dict[str, list[int]] = defaultdict(list)
        for position, question in enumerate(questions):
            for word in _words(question):
                self.postings[word].append(position)
        self.weight = {
            word: math.log(len(questions) / len(found))
            for word, found in self.postings.items()
            if len(found) <= COMMON
        }
        self.norm = [self._norm(question) for question in questions]

    def _norm(self, question: str) -> float:
        # summed in sorted order: a sum of floats must not depend on a set's order
        return math.sqrt(sum(self.weight.get(w, 0.0) ** 2 for w in sorted(_words(question))))

    def ranked(self, position: int) -> list[tuple[int, float]]:
        """Other questions that share a rarer word and are not of the same words, and the cosine.

        Most similar first; ties in the order of the questions.
        """
        own = _words(self.questions[position])
        scores: dict[int, float] = defaultdict(float)
        for word in sorted(own & self.weight.keys()):
            for other in self.postings[word]:
                scores[other] += self.weight[word] ** 2
        found = [
            (other, score / (self.norm[position] * self.norm[other]))
            for other, score in scores.items()
            if score > 0 and other != position
        ]
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return [pair for pair in found if _words(self.questions[pair[0]]) != own]


def _words(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.lower()))
