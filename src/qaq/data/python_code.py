"""Finding the Python in an answer, and what a function says about itself.

Answers are bare code or prose with fenced code; the noise that edits code must know which.
"""

import ast
import io
import random
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^```(?:python3?|py)?[ \t]*\n(.*?)^```[ \t]*$", re.M | re.S | re.I)
Function = ast.FunctionDef | ast.AsyncFunctionDef
CODE = (
    Function
    | ast.ClassDef
    | ast.Import
    | ast.ImportFrom
    | ast.Assign
    | ast.AugAssign
    | ast.For
    | ast.While
    | ast.If
    | ast.With
    | ast.Try
)

FLIPS = {
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "and": "or",
    "or": "and",
    "True": "False",
    "False": "True",
    "min": "max",
    "max": "min",
}
SIGNS = {"+": "-", "-": "+"}


@dataclass(frozen=True)
class Block:
    """The Python of an answer: `answer[start:end]` is code that parses."""

    start: int
    end: int
    tree: ast.Module


def find_python(answer: str) -> Block | None:
    """The first fenced Python block that parses, or the whole answer where it is bare code."""
    tree = _code(answer)
    if tree is not None:
        return Block(0, len(answer), tree)
    for fence in FENCE.finditer(answer):
        tree = _code(fence[1])
        if tree is not None:
            return Block(fence.start(1), fence.end(1), tree)
    return None


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None where the text is no Python; without the compiler's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _code(text: str) -> ast.Module | None:
    """The syntax tree, unless it holds expressions only (a word of prose is one)."""
    tree = parse(text)
    return tree if tree and any(isinstance(statement, CODE) for statement in tree.body) else None


@dataclass(frozen=True)
class Facts:
    """What the syntax tree of a function shows, for requests that are rebuilt from it."""

    name: str
    parameters: tuple[str, ...]
    returns: bool
    loops: bool
    raises: tuple[str, ...]
    calls: tuple[str, ...]


def find_function(answer: str) -> Function | None:
    """The first function of an answer's Python, at the top level before those inside classes."""
    block = find_python(answer)
    for node in ast.walk(block.tree) if block else ():
        if isinstance(node, Function):
            return node
    return None


def facts(function: Function) -> Facts:
    """Read the facts off a function; names in the order of their first use, each once."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, arguments.vararg]
    listed += [*arguments.kwonlyargs, arguments.kwarg]
    names = [a.arg for a in listed if a is not None and a.arg not in ("self", "cls")]
    nodes = list(_own_nodes(function.body))
    raised = [node.exc for node in nodes if isinstance(node, ast.Raise)]
    errors = [e.func if isinstance(e, ast.Call) else e for e in raised]
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    return Facts(
        name=function.name,
        parameters=tuple(names),
        returns=any(
            isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and node.value is not None
            for node in nodes
        ),
        loops=any(isinstance(node, ast.For | ast.While | ast.AsyncFor) for node in nodes),
        raises=_distinct(e.id for e in errors if isinstance(e, ast.Name)),
        calls=_distinct(f.attr for f in called if isinstance(f, ast.Attribute)),
    )


def _own_nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes and what they hold, in order, but not the insides of inner functions."""
    for node in nodes:
        yield node
        if not isinstance(node, Function | ast.Lambda):
            yield from _own_nodes(ast.iter_child_nodes(node))


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def flip_one(code: str, rng: random.Random) -> str | None:
    """The code with one comparison, connective, truth value, sign or whole number changed.

    It still parses and its tree differs. None where there is nothing to change. Signs are flipped
    only beside a number: `a - b` of lists would not be a plausible mistake but a crash.
    """
    edits = _possible_edits(code)
    rng.shuffle(edits)
    lines = code.split("\n")
    before = parse(code)
    for (row, column), old, new in edits if before else ():
        line = lines[row - 1]
        edited = line[:column] + new + line[column + len(old) :]
        candidate = "\n".join([*lines[: row - 1], edited, *lines[row:]])
        after = parse(candidate)
        if before and after and ast.dump(after) != ast.dump(before):
            return candidate
    return None


def _possible_edits(code: str) -> list[tuple[tuple[int, int], str, str]]:
    """(row from 1, column), the token, what it may become."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    edits = []
    inside = 0  # of f-strings, which Python 3.11 gives as one token: every version skips them
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        text = token.string
        kind = tokenize.tok_name[token.type]
        inside += kind.endswith("STRING_START") - kind.endswith("STRING_END")
        if inside:
            continue
        if token.type == tokenize.NUMBER and text.isdecimal():
            edits.append((token.start, text, str(int(text) + 1)))
        elif token.type in (tokenize.OP, tokenize.NAME) and text in FLIPS:
            edits.append((token.start, text, FLIPS[text]))
        elif text in SIGNS and tokenize.NUMBER in (before.type, after.type):
            edits.append((token.start, text, SIGNS[text]))
    return edits
