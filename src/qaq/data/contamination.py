"""Which rows of a pool touch a benchmark's problems: the same text, a shared run, the same name.

| kind | a row touches a problem when |
|---|---|
| exact | its question is the problem's prompt or description, or its answer the solution |
| prompt_run | it shares a run of 10 words with the problem's prompt (examples included) |
| solution_run | it shares a run of 10 words with the canonical solution |
| entry_point | it defines a function of the problem's name, or its question calls one |

Words are `\\w+`, lower case; punctuation and layout do not count. Question and answer are read as
one text. A run of numbers or a common idiom of code is a run as well, and a name like `add` is
anybody's: each finding carries its evidence, and what to leave out is the reader's choice.

A row of w words is looked up w / 6 times, not w times: of any 10 words in a row, exactly one group
of 5 starts at a multiple of 6, and only rows that share such a group are searched word by word.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import pyarrow as pa

from qaq.store.tables import OVERLAPS

Kind = Literal["exact", "prompt_run", "solution_run", "entry_point"]
Words = tuple[str, ...]

TEXTS = ("row_id", "question", "answer")
AT_ONCE = 10_000  # overlaps, which are then put into a table

RUN = 10
FEWEST_WORDS = 5  # of a text whose equality means something

WORD = re.compile(r"\w+")
DEFINED = re.compile(r"\bdef\s+(\w+)\s*\(")
CALLED = re.compile(r"\b(\w+)\(")
QUOTED = re.compile(r'("""|\'\'\')(.*?)(\1|\Z)', re.S)
EXAMPLES = re.compile(r"^\s*(assert\b|>>>)", re.M)
FENCE = re.compile(r"^```\w*[ \t]*\n(.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Problem:
    """What of a benchmark's problem could leak."""

    benchmark: str
    task_id: str
    prompt: str
    solution: str
    entry_point: str


@dataclass(frozen=True)
class Overlap:
    """One row touches one problem in one way; `evidence` is the shared text."""

    row_id: str
    benchmark: str
    task_id: str
    kind: Kind
    evidence: str


def overlaps(
    rows: Iterable[tuple[str, str, str]], problems: Sequence[Problem], run: int = RUN
) -> Iterator[Overlap]:
    """Every way in which each row touches a problem, row by row.

    `rows` gives row id, question and answer; `run` is the length in words of a shared run.
    """
    index = Index(problems, run)
    for row_id, question, answer in rows:
        found: dict[tuple[int, Kind], str] = {}
        for number, kind, evidence in index.touches(question, answer):
            found.setdefault((number, kind), evidence)
        for (number, kind), evidence in sorted(found.items()):
            touched = problems[number]
            yield Overlap(row_id, touched.benchmark, touched.task_id, kind, evidence)


def overlap_table(
    pairs: Iterable[pa.RecordBatch], problems: Sequence[Problem], run: int = RUN
) -> pa.Table:
    """The overlaps of batches of pairs, as a table of the schema `OVERLAPS`."""
    rows = (
        row
        for batch in pairs
        for row in zip(*(batch[name].to_pylist() for name in TEXTS), strict=True)
    )
    found, tables = overlaps(rows, problems, run), [OVERLAPS.empty_table()]
    while some := [vars(overlap) for overlap in islice(found, AT_ONCE)]:
        tables.append(pa.Table.from_pylist(some, schema=OVERLAPS))
    return pa.concat_tables(tables).combine_chunks()


class Index:
    """The problems' texts, runs and names, turned around for looking up."""

    def __init__(self, problems: Sequence[Problem], run: int = RUN):
        self.run = run
        self.group = (run + 1) // 2
        self.stride = run - self.group + 1
        self.questions: dict[Words, set[int]] = defaultdict(set)
        self.answers: dict[Words, set[int]] = defaultdict(set)
        self.names: dict[str, set[int]] = defaultdict(set)
        self.runs: dict[Words, set[tuple[int, Kind]]] = defaultdict(set)
        for number, one in enumerate(problems):
            self._add(number, one)
        self.name_words = {name.lower() for name in self.names}
        self.groups = {
            words[at : at + self.group] for words in self.runs for at in range(self.stride)
        }

    def _add(self, number: int, one: Problem) -> None:
        prompt, solution = _words(one.prompt), _words(one.solution)
        if one.entry_point:  # a whole program has no name
            self.names[one.entry_point].add(number)
        for words in (prompt, _words(_description(one.prompt))):
            if len(words) >= FEWEST_WORDS:
                self.questions[words].add(number)
        for words in (solution, prompt + solution):
            if len(words) >= FEWEST_WORDS:
                self.answers[words].add(number)
        kinds: tuple[tuple[Words, Kind], ...]
        kinds = (prompt, "prompt_run"), (solution, "solution_run")
        for words, kind in kinds:
            for at in range(len(words) - self.run + 1):
                self.runs[words[at : at + self.run]].add((number, kind))

    def touches(self, question: str, answer: str) -> Iterator[tuple[int, Kind, str]]:
        """Number of the problem, kind and evidence, for one row; a pair may come repeatedly."""
        asked, answered = _words(question), _words(answer)
        for number in self.questions.get(asked, ()):
            yield number, "exact", " ".join(asked)
        blocks = FENCE.findall(answer) if "```" in answer else []
        for words in (answered, *map(_words, blocks)):
            for number in self.answers.get(words, ()):
                yield number, "exact", " ".join(words)
        words = asked + answered
        if not self.name_words.isdisjoint(words):
            for name in self._names(question, answer):
                for number in self.names[name]:
                    yield number, "entry_point", name
        yield from self._shared_runs(words)

    def _names(self, question: str, answer: str) -> list[str]:
        found = {*DEFINED.findall(question), *DEFINED.findall(answer), *CALLED.findall(question)}
        return sorted(found & self.names.keys())

    def _shared_runs(self, words: Words) -> Iterator[tuple[int, Kind, str]]:
        groups = zip(*(words[at :: self.stride] for at in range(self.group)), strict=False)
        if self.groups.isdisjoint(groups):
            return
        for at in range(len(words) - self.run + 1):
            shared = words[at : at + self.run]
            for number, kind in self.runs.get(shared, ()):
                yield number, kind, " ".join(shared)


def _words(text: str) -> Words:
    return tuple(WORD.findall(text.lower()))


def _description(prompt: str) -> str:
    """The words of a prompt that say what to do: its docstring, up to the first example."""
    quoted = QUOTED.search(prompt)
    text = quoted[2] if quoted else prompt
    example = EXAMPLES.search(text)
    return text[: example.start()] if example else text
