"""Guesses at what a sequence says next, from what it has said before.

Text that repeats itself (a loop that greedy decoding does not leave, a signature, a table) is
guessed from its earlier occurrence. The model reads the guesses in one pass and keeps those that it
would have chosen itself, so the answer is the same and only comes faster.
"""

from collections.abc import Sequence

NGRAM = 3  # tokens that must be equal for an occurrence to count
LONGEST = 32  # tokens guessed at once


class Lookup:
    """Follows one sequence. `match` tokens up to its end agree with those up to `source`."""

    def __init__(self, tokens: Sequence[int]):
        self.tokens: list[int] = []
        self.places: dict[tuple[int, ...], int] = {}
        self.source = self.match = 0
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Go on by one token."""
        said = self.tokens
        agrees = self.match > 0 and said[self.source] == token
        said.append(token)
        last = tuple(said[-NGRAM:])
        if agrees:
            self.source, self.match = self.source + 1, self.match + 1
        else:
            self.source = self.places.get(last, 0)
            self.match = NGRAM if self.source else 0
        if len(last) == NGRAM:
            self.places[last] = len(said)

    def guess(self, most: int) -> list[int]:
        """The tokens that come next if the sequence goes on repeating itself, at most `most`.

        As many are guessed as have agreed before.
        """
        count = min(self.match, LONGEST, most)
        period = len(self.tokens) - self.source
        return [self.tokens[self.source + i % period] for i in range(count)]
