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
| placeholder | own | the own one, `# Your code here` in the place of its functions' work |
| rebuilt_question | what the code shows of itself, in English (control of the next) | own |
| other_natural_language | the same in German, French, Spanish or Chinese | own |
| other_programming_language | own | the own one, written in JavaScript |
| wrong_code | own | an operator, a bound or two arguments wrong, every word kept |
| equivalent_code | own | a comparison turned round (control of the last) |
| hallucinated | an invented term for a word that the answer has too | the same term there |
| renamed_term | the same with a known term (control of the last) | the same term there |
| known_terms | clauses about known terms (control of invented_terms) | own |
| paraphrase_echo | own | the question in other words, then the own |
| described_code | own | what its code does, then the own (control of both echoes) |

`placeholder` to `other_programming_language` and `described_code` need an answer in Python;
JavaScript, one within the subset of `javascript`. Which kind is held against which control says
`qaq.data.config.CONTROLS`.
"""

import ast
import random
import re
from collections.abc import Callable

from qaq.data import everyday, languages, python_code, terms
from qaq.data.config import Defect
from qaq.data.javascript import to_javascript
from qaq.data.placeholders import left_to_do
from qaq.data.rewording import described, reworded
from qaq.data.rows import Pair
from qaq.data.wrong_code import mistakes, turned
from qaq.data.wrong_operator import wrong_operators

Texts = tuple[str, str]
Damage = Callable[[Pair, Pair, random.Random], Texts | None]

KEPT_BY_CUT = (0.3, 0.6)
SHORTEST_TO_CUT = 40
FEWEST_LINES = 4
MOST_SHARED = 0.5

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
    return pair.question, _before(pair.answer, pair.question)


def paraphrase_echo(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The question in other words, before the answer."""
    text = reworded(pair.question)
    return (pair.question, _before(pair.answer, text)) if text else None


def described_code(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """What the code does, about as long as the question, before the answer."""
    function = python_code.find_function(pair.answer)
    text = described(function, len(pair.question)) if function else None
    return (pair.question, _before(pair.answer, text)) if text else None


def _before(answer: str, text: str) -> str:
    """A text before an answer: as a comment before bare code, as text before prose."""
    block = python_code.find_python(answer)
    if block is not None and block.start == 0:
        return "\n".join([*(f"# {line}".rstrip() for line in re.split("[\r\n]", text)), answer])
    return f"{text}\n\n{answer}"


def invented_terms(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """Clauses and a closing sentence about things that do not exist."""
    return terms.worked_in(pair.question, terms.invented, rng), pair.answer


def known_terms(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The same clauses about things that do."""
    return terms.worked_in(pair.question, terms.known, rng), pair.answer


def hallucinated(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A thing that does not exist in the place of one that both sides name."""
    return _renamed(pair, terms.invented, rng)


def renamed_term(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A thing that exists in that place."""
    return _renamed(pair, terms.known_noun, rng)


def _renamed(pair: Pair, term: terms.Term, rng: random.Random) -> Texts | None:
    block = python_code.find_python(pair.answer)
    kept = python_code.fixed_names(block.tree) if block else frozenset()
    return terms.replaced(pair.question, pair.answer, kept, term, rng)


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

    def flipped(code: str) -> list[str]:
        found = python_code.flip_one(code, rng)
        return [found] if found else []

    return _edited(pair, flipped, rng)


def wrong_code(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A mistake that keeps every word of the code."""
    if python_code.find_python(pair.answer) is not None:
        return _edited(pair, mistakes, rng)
    found = wrong_operators(pair.answer)
    return (pair.question, rng.choice(found)) if found else None


def equivalent_code(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """A comparison turned round, so that the code does the same."""
    return _edited(pair, turned, rng)


def _edited(pair: Pair, edits: Callable[[str], list[str]], rng: random.Random) -> Texts | None:
    """One of the edits of the answer's code, drawn."""
    block = python_code.find_python(pair.answer)
    code = pair.answer[block.start : block.end] if block else ""
    # Python ends a line at a lone carriage return too, an editor of lines does not
    found = edits(code) if "\r" not in code else []
    if block is None or not found:
        return None
    before, after = pair.answer[: block.start], pair.answer[block.end :]
    return pair.question, before + rng.choice(found) + after


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


def placeholder(pair: Pair, donor: Pair, rng: random.Random) -> Texts | None:
    """The answer with its functions left to the reader, as in an exercise."""
    return _edited(pair, left_to_do, rng)


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
    "equivalent_code": equivalent_code,
    "wrong_code": wrong_code,
    "wrong_constant_or_operator": wrong_constant_or_operator,
    "described_code": described_code,
    "hallucinated": hallucinated,
    "renamed_term": renamed_term,
    "other_natural_language": other_natural_language,
    "rebuilt_question": rebuilt_question,
    "template_answer": template_answer,
    "placeholder": placeholder,
    "partial_mismatch": partial_mismatch,
    "swapped_answer": swapped_answer,
    "echo": echo,
    "paraphrase_echo": paraphrase_echo,
    "invented_terms": invented_terms,
    "known_terms": known_terms,
    "truncated": truncated,
    "not_code": not_code,
}
