"""What a problem is, and the published file forms from which problems are read.

| format | judged by | form |
|---|---|---|
| humaneval, mbpp | `evalplus` | EvalPlus's release files: a function and its inputs |
| livecodebench | `stdio` | LiveCodeBench: public tests are the base set, private ones plus |
| apps | `stdio` | APPS: `input_output` is the base set |

Every reader turns one JSON object into a `Problem`; `FORMATS` is the registry.
"""

import base64
import gzip
import io
import pickle
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from qaq.host.errors import DataError
from qaq.store.tables import parse_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One task as the file has it.

    For functions, inputs are lists of argument lists and expected values come from the canonical
    solution. For programs (`entry_point` is empty), inputs are texts for standard input and
    `base_output`, `plus_output` the texts expected on standard output; `canonical_solution` may
    be empty.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[Any]
    plus_input: list[Any]
    contract: str = ""
    atol: float = 0
    base_output: list[str] = field(default_factory=list)
    plus_output: list[str] = field(default_factory=list)


Reader = Callable[[Row, str], Problem]

# Functions that EvalPlus 0.3.1 judges by other rules than equality, whoever asks for them: the
# expected value is only one of several, or a set, or whether there is one (`evalplus.eval`)
SPECIAL = {
    "humaneval": {"find_zero"},
    "mbpp": {
        "are_equivalent", "sum_div", "surface_Area", "digit_distance_nums",
        "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
        "larg_nnum", "intersection_array", "find_dissimilar", "Diff",
        "check_str", "text_match_three", "text_starta_endb",
    },
}  # fmt: skip
PACKED = b"\x1f\x8b"
OWN_NUMBERS = 1000  # from here on no number is one of MBPP's

EVALPLUS_FIELDS: dict[str, tuple[type, ...]] = {
    "task_id": (str,),
    "prompt": (str,),
    "entry_point": (str,),
    "canonical_solution": (str,),
    "base_input": (list,),
    "plus_input": (list,),
    "contract": (str,),
    "atol": (int, float),
}


@dataclass(frozen=True)
class Format:
    """A file form: how a row is read, who judges it, the instruction of chat prompts.

    `tests` names the field of the tests without which there is no verdict.
    """

    read: Reader
    judge: str
    prompt: str
    tests: str


def read_file(path: Path) -> bytes:
    """The content of a file, which may be packed (.gz).

    Raises:
        DataError: it cannot be read.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(PACKED) else content
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path}: a damaged .gz file; fetch or pack it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from None


def read_problems(path: Path, content: bytes, form: str) -> tuple[Problem, ...]:
    """All problems of a JSONL file.

    Raises:
        DataError: unknown form, not UTF-8, not JSONL, a row that is no problem, a doubled task
            (also of a name that a file of its own cannot tell from another).
    """
    if form not in FORMATS:
        raise DataError(f"there is no benchmark format {form!r}; known: {', '.join(FORMATS)}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 (byte {error.start}); expected a JSONL file in the form of {form}"
        ) from None
    problems: dict[str, Problem] = {}
    files: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        problem = FORMATS[form].read(_object(line, where), where)
        if problem.task_id in problems:
            raise DataError(f"{where}: task {problem.task_id} occurs twice; keep one of them")
        other = files.setdefault(problem.task_id.replace("/", "_"), problem.task_id)
        if other != problem.task_id:
            raise DataError(
                f"{where}: the tasks {other} and {problem.task_id} would have one file, in which "
                "/ becomes _; rename one of them"
            )
        problems[problem.task_id] = problem
    if not problems:
        raise DataError(f"{path}: no problems; expected a JSONL file in the form of {form}")
    return tuple(problems.values())


def _object(line: str, where: str) -> Row:
    try:
        row = parse_json(line)
    except ValueError as error:
        reason = getattr(error, "msg", error)
        raise DataError(f"{where}: not JSON ({reason}); restore the file") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, expected a JSON object")
    return row


def _check(row: Row, fields: Mapping[str, tuple[type, ...]], where: str, form: str) -> None:
    for name, kind in fields.items():
        if name not in row:
            raise DataError(f"{where}: field {name!r} is missing; {form}'s format needs it")
        if not isinstance(row[name], kind):
            raise DataError(
                f"{where}: field {name!r} is {type(row[name]).__name__}, "
                f"expected {' or '.join(k.__name__ for k in kind)}"
            )


def evalplus(row: Row, where: str) -> Problem:
    """A problem in the form of EvalPlus's files."""
    if row.get("plus_input") == {}:  # so written for Mbpp/793, which has no additional tests
        row["plus_input"] = []
    _check(row, EVALPLUS_FIELDS, where, "EvalPlus")
    return Problem(**{name: row[name] for name in EVALPLUS_FIELDS})


def humaneval(row: Row, where: str) -> Problem:
    """EvalPlus's form of HumanEval."""
    problem = evalplus(row, where)
    if not re.fullmatch(r"HumanEval/\d{1,3}", problem.task_id):
        _refuse_special(problem, "humaneval", where)
    return problem


def mbpp(row: Row, where: str) -> Problem:
    """EvalPlus's form of MBPP, whose checker reads the number in the task id.

    It makes tuples and sets of the inputs of some of MBPP's tasks, by these numbers.
    """
    problem = evalplus(row, where)
    number = problem.task_id.rpartition("/")[2]
    if not number.isdecimal():
        raise DataError(f"{where}: task_id {problem.task_id!r} must end in a number (Mbpp/123)")
    if not re.fullmatch(r"Mbpp/\d{1,3}", problem.task_id):
        _refuse_special(problem, "mbpp", where)
        if int(number) < OWN_NUMBERS:
            raise DataError(
                f"{where}: task {problem.task_id!r} has one of MBPP's numbers, by which EvalPlus "
                f"changes inputs; number your own tasks from {OWN_NUMBERS}, or call it "
                f"Mbpp/{number} if it is MBPP's"
            )
    return problem


def _refuse_special(problem: Problem, form: str, where: str) -> None:
    if problem.entry_point in SPECIAL[form]:
        raise DataError(
            f"{where}: task {problem.task_id!r} asks for {problem.entry_point}, which EvalPlus "
            f"judges by a rule made for one task of {form}; give your function another name"
        )


def livecodebench(row: Row, where: str) -> Problem:
    """A LiveCodeBench problem (huggingface.co/datasets/livecodebench/code_generation_lite)."""
    form = "LiveCodeBench"
    named = {"question_id": (str, int), "question_content": (str,)}
    _check(row, named | {"public_test_cases": (str, list)}, where, form)
    tests = []
    for name in ("public_test_cases", "private_test_cases"):
        found = _cases(row.get(name) or [], f"{where}, {name}")
        for case in found:
            _check(case, {"input": (str,), "output": (str,)}, f"{where}, {name}", form)
            if case.get("testtype", "stdin") != "stdin":
                raise DataError(
                    f"{where}: task {row['question_id']} is tested by calling a function "
                    f"(testtype {case['testtype']!r}); only programs that read standard input are "
                    "judged: keep the problems of testtype stdin in a file of their own"
                )
        tests.append(found)
    public, private = tests
    return Problem(
        task_id=str(row["question_id"]),
        prompt=row["question_content"],
        entry_point="",
        canonical_solution=str(row.get("canonical_solution") or ""),
        base_input=[case["input"] for case in public],
        plus_input=[case["input"] for case in private],
        base_output=[case["output"] for case in public],
        plus_output=[case["output"] for case in private],
    )


def apps(row: Row, where: str) -> Problem:
    """An APPS problem (huggingface.co/datasets/codeparrot/apps); the first solution is taken."""
    identifier = next((k for k in ("problem_id", "id") if k in row), "problem_id")
    _check(row, {identifier: (str, int), "question": (str,), "input_output": (str,)}, where, "APPS")
    none = '{"inputs": [], "outputs": []}'  # some have an empty text
    tests = _json(row["input_output"].strip() or none, f"{where}, input_output")
    solutions = _json(row.get("solutions") or "[]", f"{where}, solutions")
    if not isinstance(tests, dict) or not isinstance(solutions, list):
        raise DataError(f"{where}: input_output must hold an object and solutions a list, as JSON")
    if tests.get("fn_name"):
        raise DataError(
            f"{where}: problem {row[identifier]} is tested by calling a function "
            f"({tests['fn_name']}); only programs that read standard input are judged: leave it out"
        )
    pairs = {}
    for name in ("inputs", "outputs"):
        found = tests.get(name)
        if not isinstance(found, list):
            raise DataError(f"{where}: input_output has no list {name!r}")
        # some APPS files keep the lines of a text as a list
        pairs[name] = ["\n".join(map(str, t)) if isinstance(t, list) else t for t in found]
        if not all(isinstance(text, str) for text in pairs[name]):
            raise DataError(f"{where}: {name} of input_output must be texts or lists of lines")
    if len(pairs["inputs"]) != len(pairs["outputs"]):
        raise DataError(f"{where}: input_output has as many inputs as outputs in a sound file")
    return Problem(
        task_id=f"APPS/{row[identifier]}",
        prompt=row["question"],
        entry_point="",
        canonical_solution=str(solutions[0]) if solutions else "",
        base_input=pairs["inputs"],
        plus_input=[],
        base_output=pairs["outputs"],
    )


def _cases(given: Any, where: str) -> list[Row]:
    """Test cases: a list, JSON, or the base64 of a zlib-packed pickle of JSON (private ones)."""
    if not isinstance(given, str | list):
        raise DataError(f"{where}: found {type(given).__name__}, expected a list of tests, or text")
    text = "" if isinstance(given, list) else given
    if text and not text.lstrip().startswith("["):
        try:
            packed = zlib.decompress(base64.b64decode(text, validate=True))
            text = _OnlyText(io.BytesIO(packed)).load()
        except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
            raise DataError(
                f"{where}: neither JSON nor LiveCodeBench's packing ({error})"
            ) from None
    cases = _json(text, where) if text else given
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise DataError(f"{where}: expected a JSON list of objects")
    return cases


def _json(text: Any, where: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: not JSON ({error}); restore the file") from None


class _OnlyText(pickle.Unpickler):
    """A pickle is code; this one may hold a text and nothing else."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


FUNCTION = (
    "Write a Python function that solves the following problem. Answer with the complete function "
    "and the imports that it needs.\n\n```python\n{problem}\n```"
)
PROGRAM = (
    "Write a Python program that solves the following problem. It reads from standard input and "
    "writes to standard output. Answer with the complete program.\n\n{problem}"
)

FORMATS = {
    "humaneval": Format(humaneval, "evalplus", FUNCTION, "base_input"),
    "mbpp": Format(mbpp, "evalplus", FUNCTION, "base_input"),
    "livecodebench": Format(livecodebench, "stdio", PROGRAM, "public_test_cases"),
    "apps": Format(apps, "stdio", PROGRAM, "input_output"),
}
