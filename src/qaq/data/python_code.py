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
    tree = None if FENCE.search(answer) else _code(answer)
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


def fixed_names(tree: ast.AST) -> frozenset[str]:
    """The names in code that are not those of the functions and classes that it defines.

    Under another name one thing of its own (a variable) is the same, and one from elsewhere (an
    import, an attribute, a keyword, a method that Python calls) another or none.
    """
    nodes = list(ast.walk(tree))
    defined = {n.name for n in nodes if isinstance(n, Function | ast.ClassDef)}
    found = {name for name in defined if name.startswith("__")}
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ctx) if name not in defined or type(ctx) is not ast.Load:
                found.add(name)
            case ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found |= {name, other or name}
            case ast.ImportFrom(module=str(name)):
                found.add(name)
    return frozenset(found)


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

    It still parses and its tree differs. None where there is nothing to change. Where the code has
    functions, only they are changed: another number in a call of them at the end would be another
    example, not a mistake. Signs are flipped only beside a number: `a - b` of lists would not be a
    plausible mistake but a crash.
    """
    tree = parse(code)
    if tree is None:
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    rows = {row for f in functions for row in range(f.lineno, (f.end_lineno or f.lineno) + 1)}
    edits = [edit for edit in _possible_edits(code) if not rows or edit.row in rows]
    rng.shuffle(edits)
    lines = code.split("\n")
    before = ast.dump(tree)
    for edit in edits:
        line = lines[edit.row - 1]
        edited = line[: edit.column] + edit.new + line[edit.column + len(edit.old) :]
        candidate = "\n".join([*lines[: edit.row - 1], edited, *lines[edit.row :]])
        after = parse(candidate)
        if after and ast.dump(after) != before:
            return candidate
    return None


@dataclass(frozen=True)
class Edit:
    """A token and what it may become; rows from 1, columns from 0, in characters."""

    row: int
    column: int
    old: str
    new: str


def _possible_edits(code: str) -> list[Edit]:
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
        new = None
        if token.type == tokenize.NUMBER and text.isdecimal():
            new = str(int(text) + 1)
        elif token.type in (tokenize.OP, tokenize.NAME) and text in FLIPS:
            new = FLIPS[text]
        elif text in SIGNS and tokenize.NUMBER in (before.type, after.type):
            new = SIGNS[text]
        if new and not inside:
            edits.append(Edit(*token.start, text, new))
    return edits
