"""A real pool without a download: the documented functions of the running Python's library.

Every module of the standard library is parsed; each documented function or method becomes a pair.
The question is an instruction made of its signature and its docstring, the answer is its source
without the docstring, dedented, comments and decorators kept. Nothing is generated: people wrote
both halves, and they belong together.

What is left out, and why:
- folders of tests, vendored or tabulated code, and what differs from build to build;
- functions that do nothing of their own: an empty body, a constant, only `raise`, only a call of
  another function (most of `tkinter`);
- docstrings that say too little to write the function from, or only point elsewhere;
- sizes beyond the bounds below, which give pairs of about 50 to 400 tokens.

Python's own licence (PSF) covers these texts.
"""

import ast
import hashlib
import os
import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from qaq.data.python_code import Function, parse
from qaq.data.rows import Entry
from qaq.host.errors import DataError

SKIPPED = frozenset({"__pycache__", "dist-packages", "site-packages", "ensurepip", "lib2to3"})
SKIPPED |= {"test", "tests", "idle_test", "idlelib", "turtledemo", "encodings", "pydoc_data"}
BUILD_SPECIFIC = ("config-", "_sysconfigdata")

DOC_CHARS = (40, 700)
DOC_WORDS = 8
ANSWER_CHARS = (80, 1100)
POINTER = re.compile(r"(see|deprecated|internal|overrid\w*|undocumented|same as|alias)\b", re.I)

SIGNATURE = re.compile(r"(\w+)\([^\n]*\)( *->[^\n]*)?\n+")

SPANNING = re.compile(r'"""|\'\'\'|\\$', re.M)  # what a text of several lines needs

WORDINGS = (
    "Write {what}.",
    "Implement {what}, which does the following.",
    "I need {what}. This is what it should do:",
    "Complete {what} as it is described here.",
)


@lru_cache(maxsize=1)
def files() -> tuple[Path, ...]:
    """The library's source files that are considered, in the order of their paths.

    Raises:
        DataError: this Python ships no sources.
    """
    root = library()
    found: list[Path] = []
    for folder, subfolders, names in os.walk(root):  # Path.walk came with Python 3.12
        subfolders[:] = filter(_considered, subfolders)
        found += [Path(folder) / name for name in filter(_considered, names) if name[-3:] == ".py"]
    found.sort(key=lambda path: path.relative_to(root).parts)
    if not found:
        raise DataError(
            f"no source files of the standard library under {root}: data=stdlib needs a Python "
            "that ships them; install one, or use data=jsonl data.path=FILE"
        )
    return tuple(found)


def _considered(name: str) -> bool:
    return name not in SKIPPED and not name.startswith(BUILD_SPECIFIC)


def library() -> Path:
    """The folder of the standard library (of the base Python, inside a virtual environment)."""
    return Path(sysconfig.get_path("stdlib"))


@lru_cache(maxsize=1)
def library_sha256() -> str:
    """SHA-256 over the paths and contents of the files considered, in order."""
    digest = hashlib.sha256()
    root = library()
    for path in files():
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read() -> Iterator[Entry]:
    """The pairs as records (instruction, response, source), by file and line."""
    position = 0
    root = library()
    for path in files():
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for instruction, response in mine(path.read_bytes(), module.removesuffix(".__init__")):
            position += 1
            record = {
                "instruction": instruction,
                "response": response,
                "source": f"stdlib/{module.partition('.')[0]}",
            }
            yield Entry(position, record)


def mine(source: bytes, module: str) -> Iterator[tuple[str, str]]:
    """The (instruction, function) pairs of one module, in the order of its lines."""
    try:
        text = source.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:  # an old module in another encoding
        return
    tree = parse(text)
    if tree is None:
        return
    lines = text.split("\n")  # not splitlines: form feeds do not end a line of Python
    for owner, function in _functions(tree, None):
        doc = _description(function)
        if not _says_enough(doc) or _is_trivial(function):
            continue
        answer = without_docstring(lines, function)
        if answer is not None:
            yield _instruction(function, owner, doc, module), answer


def _functions(
    node: ast.AST, owner: ast.ClassDef | None
) -> Iterator[tuple[ast.ClassDef | None, Function]]:
    """Functions of a module and methods of its classes, also under `if` and `try`.

    Functions inside functions are not taken: they lean on names of the outer one.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield owner, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, child)
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _functions(child, owner)


def _description(function: Function) -> str:
    """The docstring, less a first line that only repeats the signature (`f(x) -> value`)."""
    doc = ast.get_docstring(function) or ""
    repeated = SIGNATURE.match(doc)
    return doc[repeated.end() :] if repeated and repeated[1] == function.name else doc


def _says_enough(doc: str) -> bool:
    low, high = DOC_CHARS
    return low <= len(doc) <= high and len(doc.split()) >= DOC_WORDS and not POINTER.match(doc)


def _is_trivial(function: Function) -> bool:
    """Whether the body, less the docstring, computes nothing, or only passes a call on."""
    body = function.body[1:]
    if all(isinstance(statement, ast.Pass | ast.Raise | ast.Global) for statement in body):
        return True
    if len(body) > 1:
        return False
    only = body[0]
    value = only.value if isinstance(only, ast.Expr | ast.Return) else only
    return value is None or isinstance(value, ast.Constant | ast.Name | ast.Attribute | ast.Call)


def without_docstring(lines: list[str], function: Function) -> str | None:
    """The source of the documented `function`, dedented, without its docstring.

    None if its size is out of bounds, or the docstring cannot be cut out cleanly.
    """
    doc, following = function.body[0], function.body[1]
    start = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    if doc.lineno == function.lineno or following.lineno == doc.end_lineno:
        return None  # `def f(): "doc"; return 1`
    kept = lines[start - 1 : doc.lineno - 1] + lines[doc.end_lineno : function.end_lineno]
    indent = " " * function.col_offset
    if any(line.strip() and not line.startswith(indent) for line in kept):
        return None
    answer = "\n".join(line[len(indent) :].rstrip() for line in kept)
    if not ANSWER_CHARS[0] <= len(answer) <= ANSWER_CHARS[1]:
        return None
    if SPANNING.search(answer) and not _same_code(answer, function.body[1:]):
        return None
    return answer


def _same_code(answer: str, body: list[ast.stmt]) -> bool:
    """Whether the cut text still parses to a function of that body: no string lost its spaces."""
    again = parse(answer)
    if again is None or len(again.body) != 1 or not isinstance(again.body[0], Function):
        return False
    return list(map(ast.dump, again.body[0].body)) == list(map(ast.dump, body))


def _instruction(function: Function, owner: ast.ClassDef | None, doc: str, module: str) -> str:
    """The docstring as a request, with the signature and, for a method, what its class is."""
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    signature = f"`{function.name}({ast.unparse(function.args)}){returns}`"
    asynchronous = "asynchronous " if isinstance(function, ast.AsyncFunctionDef) else ""
    if owner is None:
        what = f"the {asynchronous}Python function {signature}"
    else:
        what = f"the {asynchronous}{_kind(function)} {signature} of the Python class `{owner.name}`"
    name = f"{module}.{owner.name if owner else ''}.{function.name}"
    pick = hashlib.sha256(name.encode()).digest()[0] % len(WORDINGS)
    return f"{WORDINGS[pick].format(what=what)}{_about(owner)}\n\n{doc}"


def _kind(function: Function) -> str:
    names = {d.id for d in function.decorator_list if isinstance(d, ast.Name)}
    kinds = {"property": "property", "classmethod": "class method", "staticmethod": "static method"}
    return next((kind for name, kind in kinds.items() if name in names), "method")


def _about(owner: ast.ClassDef | None) -> str:
    """The first sentence of the class's docstring, which says what its methods work on."""
    doc = ast.get_docstring(owner) if owner else None
    if not owner or not doc:
        return ""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0]
    return f"\n\n`{owner.name}`: {sentence}" if 20 <= len(sentence) <= 200 else ""
