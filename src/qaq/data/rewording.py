"""A question said in other words, and code said in words: without a model, by fixed rules.

`reworded` turns a request into a statement of the task: other words for the usual ones, the last
sentence first. `described` says what the statements of a function do, in their order, about as
long as asked: a comment that belongs to the code and repeats nothing of the question but names.
"""

import ast
import re
from collections.abc import Iterator

from qaq.data.python_code import Function

# fmt: off
OTHER_WORDS = {
    "write": "develop", "create": "build", "implement": "provide", "develop": "produce",
    "generate": "produce", "make": "prepare", "build": "construct", "design": "devise",
    "function": "routine", "method": "operation", "program": "script", "class": "type",
    "script": "program", "code": "implementation", "algorithm": "procedure",
    "return": "hand back", "returns": "hands back", "returning": "handing back",
    "print": "display", "prints": "displays", "output": "result", "outputs": "results",
    "input": "argument", "inputs": "arguments", "parameter": "argument",
    "parameters": "arguments", "argument": "parameter", "arguments": "parameters",
    "takes": "accepts", "take": "accept", "takes in": "accepts", "receives": "is given",
    "accepts": "takes", "given": "supplied", "calculate": "work out", "calculates": "works out",
    "compute": "determine", "computes": "determines", "find": "locate", "finds": "locates",
    "check": "test", "checks": "tests", "convert": "turn", "converts": "turns",
    "remove": "delete", "removes": "deletes", "sort": "order", "sorts": "orders",
    "list": "sequence", "lists": "sequences", "array": "series", "string": "text",
    "strings": "texts", "number": "figure", "numbers": "figures", "integer": "whole number",
    "integers": "whole numbers", "dictionary": "mapping", "dict": "mapping",
    "element": "item", "elements": "items", "item": "entry", "items": "entries",
    "value": "quantity", "values": "quantities", "file": "document", "files": "documents",
    "sum": "total", "largest": "greatest", "smallest": "least", "maximum": "highest",
    "minimum": "lowest", "all": "every one of the", "each": "every", "every": "each",
    "should": "has to", "must": "needs to", "using": "by means of", "use": "employ",
    "uses": "employs", "used": "employed", "following": "listed", "contains": "holds",
    "contain": "hold", "containing": "holding", "whether": "if", "if": "in case",
    "when": "whenever", "otherwise": "or else", "specified": "stated", "provided": "supplied",
    "example": "instance", "user": "person", "two": "a pair of", "first": "initial",
    "last": "final", "new": "fresh", "default": "standard", "error": "failure",
    "raise": "signal", "raises": "signals", "object": "instance", "name": "label",
    "call": "invoke", "calls": "invokes", "called": "invoked", "set": "assign",
    "read": "load", "reads": "loads", "add": "append", "adds": "appends", "get": "fetch",
    "and": "as well as", "that": "which", "which": "that", "this": "the present", "a": "one",
    "an": "one", "with": "having", "from": "out of", "into": "to", "is": "stands as",
}
# fmt: on
WORDS = re.compile(r"(?<![\w.'])[A-Za-z]+(?![\w(\[='])(?!\.\w)")  # and no part of code
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`])|\n+")
SPANS = re.compile(r"`[^`\n]*`")
# A fenced block, an example of a session with what it prints, an indented line.
CODE = re.compile(r"```(?s:.*?)(?:```|\Z)|^>>>.*(?:\n.*\S.*)*|^(?: {4}|\t).*$", re.M)
SHORT_CODE = 40  # characters of an expression that a sentence quotes
LEAST_SHARE = 0.6  # of the length that is asked for


def reworded(question: str) -> str:
    """The same request in other words: no code, and a pronoun for each `code span`."""
    parts = SENTENCE_END.split(CODE.sub("", question))
    stripped = (part.strip() for part in parts if part.strip())
    sentences = [WORDS.sub(_other_word, SPANS.sub("it", sentence)) for sentence in stripped]
    return " ".join([*sentences[1:], *sentences[:1]])


def _other_word(found: re.Match[str]) -> str:
    other = OTHER_WORDS.get(found[0].lower(), found[0])
    return other[0].upper() + other[1:] if found[0][0].isupper() else other


def described(function: Function, length: int) -> str | None:
    """What the function does, statement by statement, in about `length` characters.

    None where its statements give less than `LEAST_SHARE` of that.
    """
    text = ""
    for sentence in _sentences(function.body):
        longer = f"{text} {sentence}".strip()
        if abs(len(longer) - length) > abs(len(text) - length):
            break
        text = longer
    return text if len(text) >= LEAST_SHARE * length else None


def _sentences(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.Assign(targets=[target, *_], value=value):
                yield f"{_code(target)} is set to {_code(value)}."
            case ast.AugAssign(target=target, value=value):
                yield f"{_code(target)} is updated with {_code(value)}."
            case ast.For(target=target, iter=items, body=inner):
                yield f"The loop goes over {_code(items)}, one {_code(target)} at a time."
                yield from _sentences(inner)
            case ast.While(test=test, body=inner):
                yield f"The loop runs as long as {_code(test)}."
                yield from _sentences(inner)
            case ast.If(test=test, body=inner, orelse=other):
                yield f"The branch depends on {_code(test)}."
                yield from _sentences([*inner, *other])
            case ast.Try(body=inner, handlers=handlers):
                yield "What follows may fail."
                yield from _sentences(inner)
                for handler in handlers:
                    yield from _sentences(handler.body)
            case ast.With(items=[item, *_], body=inner):
                yield f"Inside {_code(item.context_expr)} the work is done."
                yield from _sentences(inner)
            case ast.Return(value=value) if value is not None:
                yield f"The result is {_code(value)}."
            case ast.Raise(exc=error) if error is not None:
                yield f"It stops with {_code(error)}."
            case ast.Expr(value=ast.Call() as call):
                yield f"Then {_code(call)} is called."


def _code(node: ast.AST) -> str:
    text = ast.unparse(node).replace("\n", " ")
    return f"`{text if len(text) <= SHORT_CODE else text[: SHORT_CODE - 4] + ' ...'}`"
