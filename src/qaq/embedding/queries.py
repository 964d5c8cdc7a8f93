"""Target queries of RDS+: what the selected rows should resemble, and never what is evaluated.

MBPP's official splits hide a trap: EvalPlus's MBPP+ took 154 of its 378 tasks from outside the
test split, 108 of them from `train`. So a query must be neither in the test split nor in MBPP+,
which leaves 320 of the 974 problems. A query file of one's own is checked against the problems.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qaq.host.errors import DataError
from qaq.host.fetching import fetch
from qaq.host.paths import cache_dir
from qaq.store.manifest import file_sha256
from qaq.store.tables import appearing, parse_json

MBPP_TEST = range(11, 511)  # the official test split; 1-10 are prompts, 511-974 validation, train

# The 378 task ids of MBPP+ v0.2.0 (github evalplus/mbppplus_release, CC-BY-4.0).
MBPP_PLUS = """
2-4 6-9 11-12 14 16-20 56-59 61-72 74-75 77 79-80 82 84-106 108-109 111 113 116 118-120 123-133
135 137-142 145 160-162 165-168 170-172 222-224 226-227 230 232-235 237-240 242 244-245 247
250-253 255-257 259-262 264-274 276-287 290 292-294 296-297 299-301 305-306 308-312 388-392
394-395 397-398 404-406 409-410 412-415 418-422 424-430 432-433 435-437 439-441 445-448 450-451
453-460 462-463 465 468 470-479 554-560 562-569 572-573 576-581 583 585-594 596-600 602-608
610-612 614-616 618-620 622-624 626 628-633 635 637-639 641 643-644 720-726 728 730-737 739-745
748-755 757-760 762-767 769-773 775 777-778 780-782 784-788 790-794 796-801 803-809
"""
MBPP_SHA256 = "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f"
MBPP_URL = (
    "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl"
)
RUN_OF_WORDS = 10  # a query that shares this many words in a row with a problem counts as it


@dataclass(frozen=True)
class Query:
    """A question and, where known, its answer; rendered like a pair before it is embedded."""

    name: str
    question: str
    answer: str


def target_queries(path: Path | None, evaluated: Iterable[str]) -> list[Query]:
    """The queries of a file, or those of MBPP where none is given.

    A file of MBPP's own form (`task_id`, `text`, `code`) gives the problems that nothing evaluates.

    Raises:
        DataError: the file is missing, is not one, or repeats an evaluated problem.
    """
    if path is None:
        return mbpp_queries(mbpp_file())
    first = next(iter(_objects(path)), {})
    if {"task_id", "text", "code"} <= first.keys():
        return mbpp_queries(path)
    return file_queries(path, evaluated)


def identity(path: Path | None) -> dict[str, str]:
    """The content hash of the queries, for the artifact's key.

    Raises:
        DataError: there is no such file, or MBPP is neither here nor to be had.
    """
    if path is None:
        return {"queries_sha256": MBPP_SHA256}
    if not path.is_file():
        raise DataError(f"no such file: {path}; give a JSONL file of queries (selector.queries)")
    return {"queries_sha256": file_sha256(path)}


def mbpp_file() -> Path:
    """MBPP's 974 problems, fetched into the cache when they are not there.

    Raises:
        DataError: they cannot be fetched, or are not the known file.
    """
    file = cache_dir() / "mbpp.jsonl"
    if file.is_file() and file_sha256(file) == MBPP_SHA256:
        return file
    try:
        content = fetch(MBPP_URL)
    except OSError as error:
        raise DataError(
            f"RDS+ takes its queries from MBPP, which could not be fetched from {MBPP_URL} "
            f"({error}); download it elsewhere and set selector.queries=FILE"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != MBPP_SHA256:
        raise DataError(
            f"{MBPP_URL} gave a file with SHA-256 {found}; expected {MBPP_SHA256}. "
            "Set selector.queries=FILE to the copy that is meant"
        )
    with appearing(file) as temporary:
        temporary.write_bytes(content)
    return file


def mbpp_plus_ids() -> frozenset[int]:
    """The task ids that MBPP+ evaluates."""
    ends = [part.split("-") for part in MBPP_PLUS.split()]
    return frozenset(i for end in ends for i in range(int(end[0]), int(end[-1]) + 1))


def mbpp_queries(path: Path) -> list[Query]:
    """The problems of a copy of `mbpp.jsonl` that nothing evaluates, in the order of the file.

    Raises:
        DataError: the file is missing or is not MBPP.
    """
    evaluated = mbpp_plus_ids()
    found = []
    for problem in _objects(path):
        fields = [problem.get(name) for name in ("task_id", "text", "code")]
        if not isinstance(fields[0], int) or not all(isinstance(f, str) for f in fields[1:]):
            raise DataError(
                f"{path}: expected MBPP's fields task_id, text, code; found {sorted(problem)}"
            )
        if fields[0] not in MBPP_TEST and fields[0] not in evaluated:
            found.append(Query(f"mbpp/{fields[0]}", str(fields[1]), str(fields[2])))
    if not found:
        raise DataError(f"{path}: no MBPP problem outside the test split and MBPP+")
    return found


def file_queries(path: Path, evaluated: Iterable[str]) -> list[Query]:
    """Queries from a JSONL file with `question` and, if known, `answer`.

    Raises:
        DataError: a line lacks a question, or a query overlaps with an evaluated problem.
    """
    queries = []
    for number, line in enumerate(_objects(path), start=1):
        question, answer = line.get("question"), line.get("answer", "")
        if not isinstance(question, str) or not question.strip() or not isinstance(answer, str):
            raise DataError(f"{path}, line {number}: expected a text in question (and in answer)")
        queries.append(Query(f"{path.stem}/{number}", question, answer))
    if not queries:
        raise DataError(f"{path}: no queries; expected JSON lines with the field question")
    problems = {run for prompt in evaluated for run in _runs(prompt)}
    leaked = [q.name for q in queries if problems & _runs(q.question)]
    if leaked:
        raise DataError(
            f"{path}: {len(leaked)} of {len(queries)} queries repeat an evaluated problem "
            f"({RUN_OF_WORDS} words in a row), the first is {leaked[0]}; take them out"
        )
    return queries


def _runs(text: str) -> set[tuple[str, ...]]:
    """All runs of RUN_OF_WORDS words; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    last = max(len(words) - RUN_OF_WORDS, 0)
    return {tuple(words[i : i + RUN_OF_WORDS]) for i in range(last + 1)} if words else set()


def _objects(path: Path) -> list[dict[str, object]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # U+2028 does not end a line
        found = [parse_json(line) for line in lines if line.strip()]
    except FileNotFoundError:
        raise DataError(f"no such file: {path}; give a JSONL file of queries") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON lines in UTF-8: {error}") from None
    if not all(isinstance(line, dict) for line in found):
        raise DataError(f"{path}: every line must be a JSON object")
    return found
