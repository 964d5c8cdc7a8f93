"""One wrong operator in code that is no Python: the words stay, and what surrounds it too.

There is no parser here for every language, so only operators are changed that stand between spaces,
and neither in strings nor in comments, into one of the same place in the grammar: such code parses
as before.
"""

import re

BETWEEN_SPACES = re.compile(
    r"""
      "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | `[^`]*`      # strings
    | //[^\n]* | /\*.*?\*/ | (?<!\S)\#[^\n]* | (?<!\S)--[^\n]*  # comments
    | (?<=[\w)\]"'][ ])(?P<operator>[<>]=?|[=!]==?)(?=[ ][\w("'$-])
    | (?<=[\w)\]][ ])(?P<sign>[+-])(?=[ ]\d)
    """,
    re.X | re.S,
)
CODE = re.compile(r"[;{}]\s*$", re.M)  # a line that ends so is no prose
OTHER = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "!=", "!=": "==", "+": "-", "-": "+"}
OTHER |= {"===": "!==", "!==": "==="}


def wrong_operators(code: str) -> list[str]:
    """The code with each of its operators changed, one at a time; none of prose."""
    if not CODE.search(code):
        return []
    places = [m for m in BETWEEN_SPACES.finditer(code) if m["operator"] or m["sign"]]
    return [code[: m.start()] + OTHER[m[0]] + code[m.end() :] for m in places]
