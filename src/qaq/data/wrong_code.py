"""Mistakes in Python that keep every word: an operator, a bound off by one, two arguments swapped.

No rule that counts words, lengths or what parses can see them: the edited code parses, has the
same words as often, and nearly the same length. An edit replaces one or two stretches of the
source, found in the syntax tree, so that strings and comments are never touched. Its control is
something turned round, `a < b` to `b > a`: the same sort of edit, and the program does the same.

What is not edited, since the program would often do the same: `assert` and `raise`, annotations
and decorators, calls that are known to be symmetric, and calls that only write a message. Nobody
has run the result; `tests/data/test_wrong_code.py` runs all edits of some functions on inputs.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise

from qaq.data.python_code import Function, parse

Edit = tuple[tuple[int, int, bytes], ...]  # start, end and what stands there instead, in bytes

# A bound off by one shows beside a length; elsewhere it often changes nothing (`if x > best`).
BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
OPPOSITE = MIRRORED | {"==": "!=", "!=": "=="}
SIGN: dict[type[ast.operator], tuple[str, str]] = {ast.Add: ("+", "-"), ast.Sub: ("-", "+")}
COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
SIGNLESS = {"abs", "fabs", "hypot"}  # of a difference only its size counts there
DIRECTED = ast.Sub | ast.Div | ast.FloorDiv | ast.Pow | ast.LShift | ast.RShift
# Calls that mean the same, fail at once, or only say something when two arguments change places.
UNTOUCHED_NAMES = """
max min gcd lcm hypot isclose samefile isinstance issubclass getattr setattr hasattr delattr
print format debug info warning warn error exception critical log write
"""
UNTOUCHED = frozenset(UNTOUCHED_NAMES.split())
SKIPPED = (ast.Assert, ast.Raise, ast.JoinedStr, ast.Lambda)
WORD = re.compile(r"\w+")


def mistakes(code: str) -> list[str]:
    """The code with each mistake that can be made in its functions, or in all of it without any."""
    return _edited(code, _mistakes)


def turned(code: str) -> list[str]:
    """The code with each thing that can be turned round: it does the same.

    What changes places has no brackets of its own, so some edits bind otherwise than they read:
    only those remain whose tree is the code's but for the sides of the very same operations.
    """
    before = _sorted_sides(code)
    return [other for other in _edited(code, _turned) if _sorted_sides(other) == before]


def _sorted_sides(code: str) -> str:
    """The tree of code that parses, the sides of what can be turned round in one order."""
    return ast.dump(_Sorted().visit(ast.parse(code)))


class _Sorted(ast.NodeTransformer):
    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) == 1:
            sides = [node.left, *node.comparators]
            match node.ops[0]:
                case ast.Gt():
                    node.ops, sides = [ast.Lt()], sides[::-1]
                case ast.GtE():
                    node.ops, sides = [ast.LtE()], sides[::-1]
                case ast.Eq() | ast.NotEq():
                    sides.sort(key=ast.dump)
            node.left, node.comparators = sides[0], sides[1:]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        number = _is_number(node.left) or _is_number(node.right)
        if number and isinstance(node.op, ast.Add | ast.Mult):
            node.left, node.right = sorted((node.left, node.right), key=ast.dump)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords.sort(key=ast.dump)
        return node


def _edited(code: str, made: "Callable[[ast.AST, _Places], Iterator[Edit]]") -> list[str]:
    tree = parse(code)
    found = [_checked(code, tree, edit) for edit in _edits(code, tree, made)] if tree else []
    return [edited for edited in found if edited]


def _checked(code: str, tree: ast.Module, edit: Edit) -> str | None:
    """The edited code, if it parses to something else and has the same words."""
    source = code.encode()
    for start, end, new in sorted(edit, reverse=True):
        source = source[:start] + new + source[end:]
    wrong = source.decode()
    after = parse(wrong)
    if after is None or ast.dump(after) == ast.dump(tree):
        return None
    return wrong if sorted(WORD.findall(wrong)) == sorted(WORD.findall(code)) else None


def _edits(
    code: str, tree: ast.Module, made: "Callable[[ast.AST, _Places], Iterator[Edit]]"
) -> Iterator[Edit]:
    places = _Places(code, tree)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, Function)] or [tree.body]
    seen: set[int] = set()  # a function inside another is reached twice
    for node in chain.from_iterable(map(_nodes, bodies)):
        if id(node) not in seen:
            seen.add(id(node))
            yield from made(node, places)


def _nodes(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The statements and what they hold, less what is not to be edited."""
    for node in nodes:
        if isinstance(node, SKIPPED):
            continue
        yield node
        if isinstance(node, Function):
            yield from _nodes(node.body)
        elif isinstance(node, ast.AnnAssign):
            yield from _nodes([node.value] if node.value else [])
        else:
            yield from _nodes(ast.iter_child_nodes(node))


def _turned(node: ast.AST, places: "_Places") -> Iterator[Edit]:
    """A comparison, a sum or a product with a number, or two keywords turned round."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARED:
            old = COMPARED[type(op)]
            for (sign,) in places.operator(left, right, old, MIRRORED.get(old, old)):
                for one, other in places.swapped(left, right):
                    yield one, sign, other
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult(), right=right):
            if _is_number(left) or _is_number(right):
                yield from places.swapped(left, right)
        case ast.Call(keywords=keywords):
            for first, second in pairwise(keywords):
                if first.arg and second.arg:
                    yield from places.swapped(first, second)


def _mistakes(node: ast.AST, places: "_Places") -> Iterator[Edit]:
    """The mistakes that can be made at a node."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARED:
            old = COMPARED[type(op)]
            yield from places.operator(left, right, old, OPPOSITE[old])
            if old in BY_ONE and (_is_length(left) or _is_length(right)):
                yield from places.operator(left, right, old, BY_ONE[old])
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) in SIGN and (_is_number(left) or _is_number(right)):
                yield from places.operator(left, right, *SIGN[type(op)])
            if isinstance(op, DIRECTED) and id(node) not in places.signless:
                yield from places.swapped(left, right)
        case ast.AugAssign(target=target, op=op, value=value):
            if type(op) in SIGN and _is_number(value):
                old, new = SIGN[type(op)]
                yield from places.operator(target, value, f"{old}=", f"{new}=")
        case ast.IfExp(body=body, orelse=other):
            yield from places.swapped(body, other)
        case ast.Call(func=func, args=args) if _name(func) not in UNTOUCHED:
            for first, second in pairwise(args):
                if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
                    yield from places.swapped(first, second)
        case ast.Subscript(slice=ast.Slice(lower=lower, upper=upper, step=None)):
            yield from places.other_side(lower, upper)


def _signless(tree: ast.AST) -> Iterator[ast.AST]:
    """Differences that do the same turned round: `abs(a - b)`, `(a - b) ** 2`, also as a factor."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=args) if _name(func) in SIGNLESS:
                yield from chain.from_iterable(map(_differences, args))
            case (
                ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int(power)))
                | ast.Call(func=ast.Name(id="pow"), args=[base, ast.Constant(value=int(power))])
            ) if power % 2 == 0:
                yield from _differences(base)


def _differences(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.BinOp(op=ast.Sub()):
            yield node
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div(), right=right):
            yield from chain(_differences(left), _differences(right))
        case ast.UnaryOp(operand=operand):
            yield from _differences(operand)


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_length(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) == "len"


def _name(func: ast.expr) -> str:
    if isinstance(func, ast.Attribute):
        return func.attr
    return func.id if isinstance(func, ast.Name) else ""


class _Places:
    """Where nodes lie in the source, in bytes, and the edits made of that."""

    def __init__(self, code: str, tree: ast.Module):
        self.signless = set(map(id, _signless(tree)))
        self.source = code.encode()
        self.starts = [0]
        for line in code.split("\n"):
            self.starts.append(self.starts[-1] + len(line.encode()) + 1)

    def span(self, node: ast.expr | ast.keyword) -> tuple[int, int]:
        end_row, end_column = node.end_lineno, node.end_col_offset
        if end_row is None or end_column is None:
            raise ValueError("a node without an end: the tree was not parsed from source")
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[end_row - 1] + end_column,
        )

    def operator(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[Edit]:
        """Another operator between two expressions, where nothing but brackets is beside it."""
        start, end = self.span(left)[1], self.span(right)[0]
        between = self.source[start:end].decode()
        if between.strip(" ()\n\t\\") == old:
            place = start + between.index(old)
            yield ((place, place + len(old), new.encode()),)

    def swapped(
        self, first: ast.expr | ast.keyword, second: ast.expr | ast.keyword
    ) -> Iterator[Edit]:
        """Two expressions change places; those of other rank get no brackets, and may not parse."""
        if ast.dump(first) == ast.dump(second):
            return
        (a, b), (c, d) = self.span(first), self.span(second)
        yield ((a, b, self.source[c:d]), (c, d, self.source[a:b]))

    def other_side(self, lower: ast.expr | None, upper: ast.expr | None) -> Iterator[Edit]:
        """`x[n:]` becomes `x[:n]` and the other way round."""
        bound = lower or upper
        if bound is None or (lower is not None and upper is not None):
            return
        start, end = self.span(bound)
        text = self.source[start:end]
        if lower is not None and self.source[end : end + 1] == b":":
            yield ((start, end + 1, b":" + text),)
        elif upper is not None and self.source[start - 1 : start] == b":":
            yield ((start - 1, end, text + b":"),)
