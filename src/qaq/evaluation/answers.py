"""A chat answer: where it ends, and which part of it is the program.

An answer ends behind its first fenced block that defines the asked function; a plan, a shell line,
an import block or a doctest before it ends nothing. What stands in `<think>` is not the answer.
The program is that block and, of the blocks before it, the statements that bind a name which it
uses and does not bind. Where no block defines the function, all of the answer is handed to the
sanitiser, which looks for the longest part that parses. Where a whole program is asked for, the
block must read and print, and the longest block counts where none does.

Nothing here runs code; texts that the parser cannot take define nothing.
"""

import ast
import builtins
import re
import symtable
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from qaq.data.python_code import parse

THINK = re.compile(r"^[ \t]*<(think|thinking|reasoning)>", re.MULTILINE | re.IGNORECASE)
THOUGHT = re.compile(r"</(?:think|thinking|reasoning)>", re.IGNORECASE)
# Also behind words on the same line, where models put it, though CommonMark has no such fence
OPENING = re.compile(r"^([ \t]*+)[^`~\n]*?(`{3,}|~{3,})[^`~\n]*$", re.MULTILINE)
READS = re.compile(r"\binput\s*\(|\bstdin\b|\b(?:open|read)\s*\(\s*0\b|\bfileinput\b")
# Of a line: blank ones before it would take the square of their number
START = r"^[^\S\n]*+"

Bindings = (
    ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    | ast.Assign | ast.AnnAssign
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block; `end` is behind its closing fence, None while that is missing."""

    code: str
    end: int | None


def end(text: str, entry_point: str, thinking: bool = False) -> int | None:
    """Where an answer ends by itself: behind the closed block that defines the function, or None.

    `thinking` says that the prompt has opened a `<think>` part.
    """
    # Of the same length, so that places in it are places in the text
    shown = "".join(part if said else "\n" * len(part) for part, said in _parts(text, thinking))
    return next(
        (b.end for b in blocks(shown) if b.end is not None and defines(b.code, entry_point)), None
    )


def program(text: str, entry_point: str, thinking: bool = False) -> str:
    """What of an answer is sanitised and judged; arguments as for `end`."""
    shown = "".join(part for part, said in _parts(text, thinking) if said)
    earlier: list[str] = []
    for block in blocks(shown):
        if defines(block.code, entry_point):
            return _with_needed(block.code, earlier)
        earlier.append(block.code)
    return shown


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a text in order, each without its indentation; the last may be open."""
    at = 0
    while opening := OPENING.search(text, at):
        indent, fence = opening.groups()
        # A fence that is indented by more than three columns belongs to the code (CommonMark 4.5).
        closing = re.compile(
            rf"^[ \t]{{0,{len(indent) + 3}}}{fence[0]}{{{len(fence)},}}[ \t\r]*$", re.MULTILINE
        ).search(text, opening.end())
        code = text[opening.end() + 1 : closing.start() if closing else len(text)]
        yield Block(textwrap.dedent(code), closing.end() if closing else None)
        if not closing:
            return
        at = closing.end()


@lru_cache(maxsize=1024)  # asked for again with every few new tokens
def defines(code: str, name: str) -> bool:
    """Whether a block defines a function at its top level, with more than a docstring in it.

    Where no function is asked for (an empty name), whether it is a program that reads something
    and prints something: an example often only prints.
    """
    tree = parse(code)
    if not name:
        return tree is not None and READS.search(code) is not None and names_function(code, name)
    return tree is not None and any(
        name in _bound(s) and not isinstance(s, ast.Import | ast.ImportFrom) and not _is_stub(s)
        for s in tree.body
    )


def names_function(text: str, name: str) -> bool:
    """Whether there is a definition of the function in a program, which need not parse.

    An empty name asks for a program that prints something.
    """
    if not name:
        return re.search(r"\bprint\s*\(|\bstdout\b", text) is not None
    name = re.escape(name)
    return bool(
        re.search(
            rf"{START}(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*[:=]", text, re.MULTILINE
        )
        or re.search(rf"{START}(?:from\s.*\s)?import\s.*\b{name}\b", text, re.MULTILINE)
    )


def _parts(text: str, thinking: bool) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is part of the answer."""
    at = 0
    if thinking:
        closed = THOUGHT.search(text)
        at = closed.end() if closed else len(text)
        yield text[:at], False
    while opened := THINK.search(text, at):
        closed = THOUGHT.search(text, opened.end())
        yield text[at : opened.start()], True
        at = closed.end() if closed else len(text)
        yield text[opened.start() : at], False
    yield text[at:], True


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds at its own level."""
    match statement:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.partition(".")[0] for alias in names}
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            found = [node for target in targets for node in ast.walk(target)]
            return {n.id for n in found if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        case ast.AnnAssign(target=ast.Name(id=name), value=value) if value:
            return {name}
    return set()


def _is_stub(statement: ast.stmt) -> bool:
    """Whether a definition only repeats what was asked: no more than `...`, `pass` or a text."""
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Raise) and "NotImplementedError" in ast.dump(s))
        for s in statement.body
    )


def _free(code: str) -> set[str]:
    """Names that a program uses and does not bind; empty where Python refuses it."""
    try:
        top = symtable.symtable(code, "answer", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    used, tables = set(), [top]
    for table in tables:
        tables += table.get_children()
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    return used - {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}


def _with_needed(code: str, earlier: list[str]) -> str:
    """The block, and before it what it needs of earlier ones; the last binding of a name counts."""
    trees = [tree for block in earlier if (tree := parse(block))]
    statements = [s for tree in trees for s in tree.body if isinstance(s, Bindings)]
    missing, chosen = _free(code), dict[int, str]()
    while missing:
        found = None
        name = missing.pop()
        for place, statement in enumerate(statements):
            hides = isinstance(statement, ast.Assign | ast.AnnAssign) and hasattr(builtins, name)
            if name in _bound(statement) and not hides:
                found = place
        if found is None and not hasattr(builtins, name):
            stars = (i for i, s in enumerate(statements) if "*" in _bound(s))
            found = next(stars, None)
        if found is not None and found not in chosen:
            chosen[found] = ast.unparse(statements[found])
            missing |= _free(chosen[found])
    return "\n".join([*(chosen[place] for place in sorted(chosen)), code])
