"""The most similar other questions, by the rarer words that two questions share.

Similarity is the cosine of inverse-document-frequency weights over sets of words, counted over
words that at most `COMMON` questions hold: a word of many questions says little and costs most.
"""

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

WORD = re.compile(r"\w+")
COMMON = 200


class Neighbours:
    """An inverted index over questions; positions are those of the sequence given."""

    def __init__(self, questions: Sequence[str]):
        number: dict[str, int] = {}

        def numbered(question: str) -> "array[int]":  # quoted: not subscriptable before Python 3.12
            words = WORD.findall(question.lower())
            return array("I", sorted({number.setdefault(word, len(number)) for word in words}))

        self.words = [numbered(question) for question in questions]
        counts = Counter(chain.from_iterable(self.words))
        self.squared_weight = {
            word: math.log(len(questions) / count) ** 2
            for word, count in counts.items()
            if count <= COMMON
        }
        self.postings: dict[int, list[int]] = defaultdict(list)
        for position, words in enumerate(self.words):
            for word in words:
                if word in self.squared_weight:
                    self.postings[word].append(position)
        self.norm = [
            math.sqrt(sum(self.squared_weight.get(word, 0.0) for word in words))
            for words in self.words
        ]

    def ranked(self, position: int) -> Iterator[tuple[int, float]]:
        """Other questions that share a rarer word and are not of the same words, and the cosine.

        Most similar first; ties in the order of the questions.
        """
        own = self.words[position]
        scores: dict[int, float] = defaultdict(float)
        for word in own:
            for other in self.postings.get(word, ()):
                scores[other] += self.squared_weight[word]
        found = [
            (other, score / (self.norm[position] * self.norm[other]))
            for other, score in scores.items()
            if score > 0
        ]
        found.sort(key=lambda pair: (-pair[1], pair[0]))
        return (pair for pair in found if self.words[pair[0]] != own)
