"""Technical terms worked into a pair: invented ones (damage) and known ones (its control).

Two ways. Clauses and sentences about a term are added to a question. Or a word that question and
answer share is replaced on both sides, so that the pair still agrees with itself, has the same
length and the same words in common, and speaks of something that does not exist.
"""

import builtins
import keyword
import random
import re
from collections.abc import Callable, Iterable

# fmt: off
STARTS = ("bl", "br", "cr", "dr", "fl", "gl", "gr", "kl", "kr", "pl", "qu", "skr", "sp", "str",
          "tr", "v", "vr", "x", "z", "zh")
VOWELS = ("a", "e", "i", "o", "u", "ae", "ei", "y")
MIDDLES = ("b", "d", "g", "l", "lk", "m", "nd", "nt", "r", "rb", "rv", "st", "th", "v", "x", "z")
ENDS = ("ex", "on", "ium", "ator", "ik", "oid", "ane", "yx", "or", "et")
HEADS = ("buffer", "kernel", "lattice", "protocol", "registry", "manifold", "cache", "schema",
         "scheduler", "matrix")
KNOWN = ("atomic", "binary", "bitwise", "cyclic", "dynamic", "hashed", "indexed", "lexical",
         "linear", "modular", "native", "ordered", "parallel", "partial", "recursive", "sparse",
         "static", "strict", "thread", "unicode")
KNOWN_NOUNS = ("array", "branch", "buffer", "checksum", "closure", "cluster", "cursor", "digest",
               "fragment", "gateway", "header", "kernel", "ledger", "matrix", "packet", "parser",
               "payload", "pixel", "prefix", "process", "protocol", "quantile", "queue", "record",
               "registry", "schema", "segment", "session", "socket", "stack", "tensor", "thread",
               "token", "tree", "tuple", "vector", "vertex", "widget")
# fmt: on
CLAUSES = (
    " through the {term} {head}",
    " under {term} ordering",
    " (in {term} mode)",
    " with respect to the {term} {head}",
    " by means of {term} folding",
    " after the {term} pass",
)
SENTENCES = (
    "The {term} {head} must stay intact.",
    "Make sure that it is {term}-safe.",
    "Follow the {term} convention for the {head}.",
    "It should also support {term} fallback.",
)
CLAUSE_END = re.compile(r"(?<=[a-z])(?=[.,;:](?:\s|$))")
LETTERS = re.compile(r"[A-Za-z]+")
WORDS_PER_TERM = 15
SHORTEST_WORD = 4
TRIES = 40
USUAL_WORDS = """
about above after again also been before being below between both cannot case could does done each
either else ensure every example first following from function given have here into its just last
least like make method more most must name need none note once only optional other otherwise over
parameter parameters python return returned returns same should some specified such take takes
than that their them then there these they this those through under unless until used using value
values very want were what when where whether which while will with within without would write
your self args kwargs import
"""
USUAL = frozenset(USUAL_WORDS.split())
RESERVED = frozenset(
    name.lower() for name in (*keyword.kwlist, *keyword.softkwlist, *dir(builtins))
)

Term = Callable[[random.Random], str]


def invented(rng: random.Random) -> str:
    """A word that sounds technical and is none."""
    return "".join(rng.choice(part) for part in (STARTS, VOWELS, MIDDLES, ENDS))


def known(rng: random.Random) -> str:
    """A technical adjective."""
    return rng.choice(KNOWN)


def known_noun(rng: random.Random) -> str:
    """A technical noun."""
    return rng.choice(KNOWN_NOUNS)


def worked_in(question: str, term: Term, rng: random.Random) -> str:
    """The question with clauses and a closing sentence about terms."""
    text = question
    wanted = max(1, len(text.split()) // WORDS_PER_TERM)
    ends = [m.start() for m in CLAUSE_END.finditer(text) if _is_prose(text, m.start())]
    for place in sorted(rng.sample(ends, min(wanted, len(ends))), reverse=True):
        text = text[:place] + _filled(rng.choice(CLAUSES), term, rng) + text[place:]
    closing = [_filled(sentence, term, rng) for sentence in rng.sample(SENTENCES, 2)]
    return f"{text}\n\n{' '.join(closing)}"


def _is_prose(text: str, place: int) -> bool:
    """Whether a place lies outside `code spans`, doctest lines and indented blocks."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return not line.startswith((">>>", "    ", "\t", "```")) and line.count("`") % 2 == 0


def _filled(phrase: str, term: Term, rng: random.Random) -> str:
    word = term(rng)
    return phrase.format(term=word, head=rng.choice(HEADS))


def replaced(
    question: str, answer: str, kept: Iterable[str], term: Term, rng: random.Random
) -> tuple[str, str] | None:
    """A word of both sides replaced on both, wherever it stands, also inside identifiers.

    Of the words that can be replaced one is drawn; of several terms that of the likest length is
    taken. The names of the answer that are `kept` stay. None where the two sides share no other
    such word.
    """
    names = {word.lower() for name in kept for word in LETTERS.findall(name)}
    sides = [{word.lower() for word in LETTERS.findall(text)} for text in (question, answer)]
    shared = sorted(word for word in (sides[0] & sides[1]) - names if _replaceable(word))
    taken = sides[0] | sides[1]
    drawn = [word for word in (term(rng) for _ in range(TRIES)) if word not in taken]
    if not shared or not drawn:
        return None
    old = rng.choice(shared)
    new = min(drawn, key=lambda word: abs(len(word) - len(old)))

    def other(found: re.Match[str]) -> str:
        return _in_shape_of(found[0], new) if found[0].lower() == old else found[0]

    return LETTERS.sub(other, question), LETTERS.sub(other, answer)


def _replaceable(word: str) -> bool:
    return len(word) >= SHORTEST_WORD and word not in USUAL and word not in RESERVED


def _in_shape_of(word: str, new: str) -> str:
    if word.isupper():
        return new.upper()
    return new.capitalize() if word[0].isupper() else new
