"""Functions whose work is left to the reader, as exercises and hurried answers leave it."""

import ast

from qaq.data import python_code

PLACEHOLDER = ("# Your code here", "pass")


def left_to_do(code: str) -> list[str]:
    """The code with a placeholder in each of its functions; nothing where it has no work to leave.

    Signature and docstring stay; the rest goes, with inner functions and the comments above it.
    The code must parse; what comes back parses.
    """
    tree = python_code.parse(code)
    lines = code.split("\n")
    for function in reversed(_outermost(tree) if tree else []):
        work = _work(function, lines)
        if work is not None:
            body = function.body[0]
            indent = lines[body.lineno - 1][: body.col_offset]
            lines[work] = [indent + line for line in PLACEHOLDER]
    edited = "\n".join(lines)
    return [] if edited == code or python_code.parse(edited) is None else [edited]


def _work(function: python_code.Function, lines: list[str]) -> slice | None:
    """The lines behind signature and docstring; None where they do nothing or share a line."""
    docstring = ast.get_docstring(function, clean=False) is not None
    rest = function.body[docstring:]
    if all(map(_does_nothing, rest)) or rest[0].lineno == function.lineno:
        return None
    begin = min([rest[0].lineno, *(d.lineno for d in getattr(rest[0], "decorator_list", ()))]) - 1
    least = function.body[0].end_lineno or 0 if docstring else function.lineno
    while begin > least and lines[begin - 1].lstrip()[:1] in ("", "#"):
        begin -= 1
    return slice(begin, function.end_lineno)


def _does_nothing(statement: ast.stmt) -> bool:
    """Whether it is `pass`, `...` or a text."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _outermost(tree: ast.AST) -> list[python_code.Function]:
    """Functions and methods in the order of the text, without those inside another."""
    found: list[python_code.Function] = []
    for node in ast.iter_child_nodes(tree):
        found += [node] if isinstance(node, python_code.Function) else _outermost(node)
    return found
