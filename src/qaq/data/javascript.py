"""A Python function written in JavaScript, node by node, for the subset that both have.

It gives the noise "right idea, wrong programming language" without a model: the shape, the names
and the control flow stay, the syntax and the commonest built-ins become JavaScript's. The text is
valid JavaScript, but nobody promises that it runs: calls of other Python modules stay calls of the
same names. Whatever has no plain counterpart (`with`, decorators, slices with a step, keyword-only
parameters, ...) makes the function unsuitable; it is never half translated. Comments are lost.
"""

import ast
import json
import math
from collections.abc import Sequence

from qaq.data.python_code import Function

RESERVED = frozenset({"arguments", "case", "catch", "const", "debugger", "default", "delete", "do"})
RESERVED |= {"enum", "eval", "export", "extends", "function", "implements", "instanceof", "let"}
RESERVED |= {"interface", "new", "null", "package", "private", "protected", "public", "static"}
RESERVED |= {"super", "switch", "this", "throw", "typeof", "undefined", "var", "void", "true"}
RESERVED |= {"false", "class", "import", "in", "if", "else", "for", "while", "with", "yield"}

BINARY = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>",
}  # fmt: skip
COMPARE = {
    ast.Eq: "===", ast.NotEq: "!==", ast.Is: "===", ast.IsNot: "!==",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
UNARY = {ast.USub: "-", ast.UAdd: "+", ast.Not: "!", ast.Invert: "~"}
METHODS = {
    "append": "push", "strip": "trim", "lstrip": "trimStart", "rstrip": "trimEnd",
    "lower": "toLowerCase", "upper": "toUpperCase", "startswith": "startsWith",
    "endswith": "endsWith", "find": "indexOf", "rfind": "lastIndexOf",
}  # fmt: skip
FUNCTIONS = {"print": "console.log", "str": "String", "bool": "Boolean", "abs": "Math.abs"}
FUNCTIONS |= {"min": "Math.min", "max": "Math.max", "list": "Array.from", "float": "Number"}


class Unsuitable(Exception):
    """The function uses something that has no plain counterpart; caught in this module."""


def to_javascript(function: Function) -> str | None:
    """The function in JavaScript, or None where it leaves the subset."""
    try:
        return "\n".join(_function(function))
    except Unsuitable:
        return None


def _function(node: Function) -> list[str]:
    if node.decorator_list:
        raise Unsuitable("decorator")
    parameters = _parameters(node.args)
    prefix = "async function" if isinstance(node, ast.AsyncFunctionDef) else "function"
    if any(isinstance(n, ast.Yield | ast.YieldFrom) for s in node.body for n in ast.walk(s)):
        prefix += "*"
    return [f"{prefix} {_name(node.name)}({parameters}) {{", *_body(node), "}"]


def _body(node: Function) -> list[str]:
    """The statements, each local variable declared once: where it is first set, or on top."""
    undeclared = _assigned(node.body)
    if "self" in undeclared:
        raise Unsuitable("self is set")
    undeclared -= {a.arg for a in (*node.args.args, node.args.vararg) if a is not None}
    lines: list[str] = []
    hoisted: set[str] = set()
    for statement in node.body:
        written = _block([statement])
        bound = _assigned([statement]) & undeclared
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) if name in undeclared:
                written[0] = written[0].replace("    ", "    let ", 1)
            case _:
                hoisted |= bound
        undeclared -= bound
        lines += written
    top = [f"    let {', '.join(map(_name, sorted(hoisted)))};"] if hoisted else []
    return top + lines


def _parameters(arguments: ast.arguments) -> str:
    if arguments.kwonlyargs or arguments.kwarg:
        raise Unsuitable("keyword-only parameters")
    names = [*arguments.posonlyargs, *arguments.args]
    names = names[1:] if names and names[0].arg == "self" else names
    first = len(names) - len(arguments.defaults)
    parts = []
    for place, argument in enumerate(names):
        default = f" = {_value(arguments.defaults[place - first])}" if place >= first else ""
        parts.append(f"{_name(argument.arg)}{default}")
    if arguments.vararg:
        parts.append(f"...{_name(arguments.vararg.arg)}")
    return ", ".join(parts)


def _assigned(body: Sequence[ast.stmt]) -> set[str]:
    """Names that the statements bind with `=` or `for`, so that they can be declared once."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    if any(isinstance(n, ast.Global | ast.Nonlocal | Function | ast.ClassDef) for n in nodes):
        raise Unsuitable("scopes")
    inner = {
        name.id
        for node in nodes
        if isinstance(node, ast.comprehension)
        for name in ast.walk(node.target)
        if isinstance(name, ast.Name)
    }
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored - inner


def _block(body: Sequence[ast.stmt]) -> list[str]:
    return ["    " + line for statement in body for line in _statement(statement)]


def _statement(node: ast.stmt) -> list[str]:  # noqa: PLR0911, PLR0912 - a table of nodes
    match node:
        case ast.Return(value=value):
            return [f"return {_value(value)};" if value else "return;"]
        case ast.Expr(value=ast.Constant()):
            return []
        case ast.Expr(value=value):
            return [f"{_value(value)};"]
        case ast.Assign(targets=targets, value=value):
            return [f"{' = '.join(_value(t) for t in targets)} = {_value(value)};"]
        case ast.AugAssign(target=target, op=op, value=value) if type(op) in BINARY:
            return [f"{_value(target)} {BINARY[type(op)]}= {_value(value)};"]
        case ast.If(test=test, body=body, orelse=orelse):
            return _branches(test, body, orelse)
        case ast.While(test=test, body=body, orelse=[]):
            return [f"while ({_value(test)}) {{", *_block(body), "}"]
        case ast.For(body=body, orelse=[]):
            return [f"for ({_loop(node)}) {{", *_block(body), "}"]
        case ast.Raise(exc=ast.Call(func=func, args=args, keywords=[])):
            return [f"throw new {_value(func)}({_values(args)});"]
        case ast.Raise(exc=ast.Name(id=name)):
            return [f"throw new {_name(name)}();"]
        case ast.Try(body=body, handlers=[handler], orelse=[], finalbody=last):
            caught = f"}} catch ({_name(handler.name or 'error')}) {{"
            finish = ["} finally {", *_block(last)] if last else []
            return ["try {", *_block(body), caught, *_block(handler.body), *finish, "}"]
        case ast.Delete(targets=[ast.Subscript() | ast.Attribute() as target]):
            return [f"delete {_value(target)};"]
        case ast.Break():
            return ["break;"]
        case ast.Continue():
            return ["continue;"]
        case ast.Pass():
            return []
    raise Unsuitable(type(node).__name__)


def _branches(test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> list[str]:
    lines = [f"if ({_value(test)}) {{", *_block(body)]
    if len(orelse) == 1 and isinstance(orelse[0], ast.If):
        first, *rest = _statement(orelse[0])
        return [*lines, f"}} else {first}", *rest]
    return [*lines, "} else {", *_block(orelse), "}"] if orelse else [*lines, "}"]


def _loop(node: ast.For) -> str:
    """The head of a loop: a counter for `range(n)` and `range(a, b)`, else `for ... of`."""
    target = _value(node.target)
    match node.iter:
        case ast.Call(func=ast.Name(id="range"), args=[stop], keywords=[]):
            return f"{target} = 0; {target} < {_operand(stop)}; {target}++"
        case ast.Call(func=ast.Name(id="range"), args=[start, stop], keywords=[]):
            return f"{target} = {_value(start)}; {target} < {_operand(stop)}; {target}++"
    return f"{target} of {_value(node.iter)}"


def _values(nodes: Sequence[ast.expr]) -> str:
    return ", ".join(map(_value, nodes))


def _operand(node: ast.expr) -> str:
    """An expression inside a larger one: in parentheses where the two precedences could differ."""
    compound = ast.BinOp | ast.BoolOp | ast.Compare | ast.IfExp | ast.Lambda | ast.UnaryOp
    compound |= ast.Await | ast.Yield | ast.NamedExpr | ast.Dict
    return f"({_value(node)})" if isinstance(node, compound) else _value(node)


def _value(node: ast.expr) -> str:  # noqa: PLR0911, PLR0912 - a table of nodes
    match node:
        case ast.Name(id="self"):
            return "this"
        case ast.Name(id=name):
            return _name(name)
        case ast.Constant(value=value):
            return _constant(value)
        case ast.Attribute(value=value, attr=attr):
            return f"{_operand(value)}.{attr}"
        case ast.Subscript(value=value, slice=index):
            return f"{_operand(value)}{_index(index)}"
        case ast.Call():
            return _call(node)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return f"[{_values(items)}]"
        case ast.Dict(keys=keys, values=values) if all(keys):
            pairs = zip(keys, values, strict=True)
            return "{" + ", ".join(f"[{_value(k)}]: {_value(v)}" for k, v in pairs if k) + "}"
        case ast.Starred(value=value):
            return f"...{_operand(value)}"
        case ast.Await(value=value):
            return f"await {_operand(value)}"
        case ast.Yield(value=value) if value:
            return f"yield {_value(value)}"
        case ast.Lambda(args=arguments, body=body):
            return f"({_parameters(arguments)}) => {_operand(body)}"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"{_operand(test)} ? {_operand(body)} : {_operand(orelse)}"
        case (
            ast.ListComp(elt=element, generators=[only])
            | ast.GeneratorExp(elt=element, generators=[only])
        ):
            return _comprehension(element, only)
    return _operation(node)


def _operation(node: ast.expr) -> str:
    match node:
        case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod()):
            raise Unsuitable("% formatting")
        case ast.BinOp(left=ast.UnaryOp(), op=ast.Pow()):
            raise Unsuitable("sign before **")
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return f"Math.floor({_operand(left)} / {_operand(right)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return f"{_operand(left)} {BINARY[type(op)]} {_operand(right)}"
        case ast.BoolOp(op=op, values=values):
            return (" && " if isinstance(op, ast.And) else " || ").join(map(_operand, values))
        case ast.UnaryOp(op=op, operand=operand):
            return f"{UNARY[type(op)]}{_operand(operand)}"
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [left, *others]
            pairs = zip(sides, ops, others, strict=False)
            return " && ".join(_comparison(*pair) for pair in pairs)
    raise Unsuitable(type(node).__name__)


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> str:
    if isinstance(op, ast.In | ast.NotIn):
        sign = "!" if isinstance(op, ast.NotIn) else ""
        return f"{sign}{_operand(right)}.includes({_value(left)})"
    return f"{_operand(left)} {COMPARE[type(op)]} {_operand(right)}"


def _call(node: ast.Call) -> str:  # noqa: PLR0911 - a table of nodes
    arguments = [_value(a) for a in node.args]
    if any(k.arg is None for k in node.keywords):
        raise Unsuitable("** in a call")
    if node.keywords:
        options = ", ".join(f"{k.arg}: {_value(k.value)}" for k in node.keywords)
        arguments.append(f"{{ {options} }}")
    listed = ", ".join(arguments)
    match node.func:
        case ast.Name(id="len") if len(arguments) == 1:
            return f"{_operand(node.args[0])}.length"
        case ast.Name(id="isinstance"):
            if isinstance(node.args[1], ast.Tuple):
                raise Unsuitable("several classes")
            return f"({_operand(node.args[0])} instanceof {_operand(node.args[1])})"
        case ast.Name(id="int") if len(arguments) == 1:
            return f"Math.trunc(Number({listed}))"
        case ast.Name(id=name):
            return f"{FUNCTIONS.get(name) or _name(name)}({listed})"
        case ast.Attribute(value=ast.Constant(value=str()) as glue, attr="join"):
            return f"{_operand(node.args[0])}.join({_value(glue)})"
        case ast.Attribute(value=value, attr="items" | "keys" | "values" as attr) if not listed:
            view = "entries" if attr == "items" else attr
            return f"Object.{view}({_value(value)})"
        case ast.Attribute(value=value, attr=attr):
            return f"{_operand(value)}.{METHODS.get(attr, attr)}({listed})"
    raise Unsuitable("call of an expression")


def _comprehension(element: ast.expr, loop: ast.comprehension) -> str:
    if loop.is_async:
        raise Unsuitable("async comprehension")
    target = _value(loop.target)
    kept = "".join(f".filter(({target}) => {_operand(test)})" for test in loop.ifs)
    return f"{_operand(loop.iter)}{kept}.map(({target}) => {_operand(element)})"


def _index(node: ast.expr) -> str:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(number))):
            return f".at(-{number})"
        case ast.Slice(lower=lower, upper=upper, step=None):
            start = _value(lower) if lower else "0"
            return f".slice({start}{', ' + _value(upper) if upper else ''})"
        case ast.Slice() | ast.Tuple():
            raise Unsuitable("slice")
    return f"[{_value(node)}]"


def _constant(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise Unsuitable(type(value).__name__)


def _name(name: str) -> str:
    if name in RESERVED:
        raise Unsuitable(name)
    return name
