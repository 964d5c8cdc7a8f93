"""What each kind of planted noise does to a pair.

Each damage is a pure function of the pair, a donor (another pair of the pool) and a random
generator; it returns the new question and answer, or None where it would change nothing or does
not fit the pair.

| defect | question | answer |
|---|---|---|
| swapped_answer | own | that of the donor |
| echo | own | the question, as a comment before code or as text before prose, then the own |
| invented_terms | own, with technical terms that do not exist worked in | own |
| truncated | own | its first 30 to 60%, cut anywhere |
| not_code | an everyday request | prose that fits it, about as long as the own answer |
| partial_mismatch | own | first half of its lines, second half of the donor's |
| neighbour_answer | own | that of the most similar other question |
| wrong_constant_or_operator | own | one operator, truth value or number changed (Python) |
| template_answer | own | a skeleton with the right name that does nothing |
| rebuilt_question | what the code shows of itself, in English (control of the next) | own |
| other_natural_language | the same in German, French, Spanish or Chinese | own |
| other_programming_language | own | the own one, written in JavaScript |

The last three need an answer in Python; the last, one within the subset of `javascript`.
"""

import ast
import random
import re
from collections.abc import Callable

from qaq.data import everyday, languages, python_code
from qaq.data.config import Defect
from qaq.data.javascript import to_javascript
from qaq.data.rows import Pair

Texts = tuple[str, str]
Damage = Callable[[Pair, Pair, random.Random], Texts | None]

KEPT_BY_CUT = (0.3, 0.6)
SHORTEST_TO_CUT = 40
FEWEST_LINES = 4
MOST_SHARED = 0.5

# fmt: off
STARTS = ("bl", "br", "cr", "dr", "fl", "gl", "gr", "kl", "kr", "pl", "qu", "skr", "sp", "str",
          "tr", "v", "vr", "x", "z", "zh")
VOWELS = ("a", "e", "i", "o", "u", "ae", "ei", "y")
MIDDLES = ("b", "d", "g", "l", "lk", "m", "nd", "nt", "r", "rb", "rv", "st", "th", "v", "x", "z")
ENDS = ("ex", "on", "ium", "ator", "ik", "oid", "ane", "yx", "or", "et")
HEADS = ("buffer", "kernel", "lattice", "protocol", "registry", "manifold", "cache", "schema",
         "scheduler", "matrix")
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
WORDS_PER_TERM = 15

SKELETONS = (
    "def {name}({parameters}):\n    # Initialize the result\n    result = None\n\n"
    "    # Process the input\n    # ...\n\n    # Return the result\n    return result",
    'def {name}({parameters}):\n    """Implement {name}."""\n    try:\n'
    "        # Add your logic here\n        pass\n    except Exception as e:\n"
    '        print(f"An error occurred: {{e}}")\n        return None',
    "# Solution to the problem\ndef {name}({parameters}):\n    # Step 1: check the input\n"
    "    # Step 2: do the work\n    # Step 3: return the output\n    output = []\n    return output"
    '\n\n\nif __name__ == "__main__":\n    print("Done")',
)
NAMED = re.compile(r"`(\w+)\(([^`]*)\)[^`]*`")


def swapped_answer(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The donor's answer."""
    return None if donor.answer == pair.answer else (pair.question, donor.answer)


def echo(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The question once more, before the answer."""
    block = python_code.find_python(pair.answer)
    if block is not None and block.start == 0:
        lines = (f"# {line}".rstrip() for line in pair.question.split("\n"))
        return pair.question, "\n".join([*lines, pair.answer])
    return pair.question, f"{pair.question}\n\n{pair.answer}"


def invented_terms(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """Clauses and a closing sentence about things that do not exist."""
    text = pair.question
    wanted = max(1, len(text.split()) // WORDS_PER_TERM)
    ends = [m.start() for m in CLAUSE_END.finditer(text) if _is_prose(text, m.start())]
    for place in sorted(rng.sample(ends, min(wanted, len(ends))), reverse=True):
        text = text[:place] + _filled(rng.choice(CLAUSES), rng) + text[place:]
    closing = [_filled(sentence, rng) for sentence in rng.sample(SENTENCES, 2)]
    return f"{text}\n\n{' '.join(closing)}", pair.answer


def _is_prose(text: str, place: int) -> bool:
    """Whether a place lies outside `code spans`, doctest lines and indented blocks."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return not line.startswith((">>>", "    ", "\t", "```")) and line.count("`") % 2 == 0


def _filled(phrase: str, rng: random.Random) -> str:
    middle = "".join(rng.choice(part) for part in (STARTS, VOWELS, MIDDLES))
    return phrase.format(term=middle + rng.choice(ENDS), head=rng.choice(HEADS))


def truncated(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The beginning of the answer."""
    if len(pair.answer) < SHORTEST_TO_CUT:
        return None
    return pair.question, pair.answer[: int(len(pair.answer) * rng.uniform(*KEPT_BY_CUT))]


def not_code(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """An everyday request and its answer, of about the same length."""
    return everyday.ask(rng, len(pair.answer))


def partial_mismatch(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """Begins as its own answer and ends as the donor's."""
    own, other = pair.answer.split("\n"), donor.answer.split("\n")
    if min(len(own), len(other)) < FEWEST_LINES or own == other:
        return None
    return pair.question, "\n".join(own[: (len(own) + 1) // 2] + other[(len(other) + 1) // 2 :])


def wrong_constant_or_operator(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """One token of the code changed, so that it still parses and looks right."""
    block = python_code.find_python(pair.answer)
    if block is None:
        return None
    code = python_code.flip_one(pair.answer[block.start : block.end], rng)
    if code is None:
        return None
    return pair.question, pair.answer[: block.start] + code + pair.answer[block.end :]


def template_answer(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A skeleton: the name and parameters that were asked for, and nothing behind them."""
    function = python_code.find_function(pair.answer)
    named = NAMED.search(pair.question)
    if function is not None:
        name, parameters = function.name, ast.unparse(function.args)
    elif named:
        name, parameters = named[1], named[2]
    else:
        return None
    return pair.question, rng.choice(SKELETONS).format(name=name, parameters=parameters)


def rebuilt_question(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A request read off the code, in English."""
    facts = _facts(pair)
    return (languages.request(facts, "en"), pair.answer) if facts else None


def other_natural_language(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A request read off the code, in another language."""
    facts = _facts(pair)
    language = rng.choice([name for name in languages.LANGUAGES if name != "en"])
    return (languages.request(facts, language), pair.answer) if facts else None


def other_programming_language(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The function in JavaScript; where the answer is prose around code, in its place."""
    block = python_code.find_python(pair.answer)
    if block is None or len(block.tree.body) != 1:
        return None
    function = block.tree.body[0]
    code = to_javascript(function) if isinstance(function, python_code.Function) else None
    if code is None:
        return None
    before, after = pair.answer[: block.start], pair.answer[block.end :]
    before = re.sub(r"```\w*[ \t]*\n\Z", "```javascript\n", before)
    return pair.question, before + code + ("\n" if before else "") + after


def _facts(pair: Pair) -> python_code.Facts | None:
    function = python_code.find_function(pair.answer)
    return python_code.facts(function) if function else None


def answers_another_question(pair: Pair, donor: Pair) -> bool:
    """Whether the donor's answer looks like the answer to something else.

    Its function has another name (two `close` may do the same), and it shares at most half of the
    words of both answers. Nobody has checked that it is wrong.
    """
    functions = [python_code.find_function(p.answer) for p in (pair, donor)]
    own, other = (function.name if function else None for function in functions)
    words, others = (set(re.findall(r"\w+", p.answer)) for p in (pair, donor))
    same_name = own is not None and own == other
    return not same_name and len(words & others) <= MOST_SHARED * len(words | others)


# The first few fit the fewest rows, so they choose first.
DAMAGES: dict[Defect, Damage] = {
    "other_programming_language": other_programming_language,
    "neighbour_answer": swapped_answer,  # the donor is chosen by likeness (qaq.data.noise)
    "wrong_constant_or_operator": wrong_constant_or_operator,
    "other_natural_language": other_natural_language,
    "rebuilt_question": rebuilt_question,
    "template_answer": template_answer,
    "partial_mismatch": partial_mismatch,
    "swapped_answer": swapped_answer,
    "echo": echo,
    "invented_terms": invented_terms,
    "truncated": truncated,
    "not_code": not_code,
}
