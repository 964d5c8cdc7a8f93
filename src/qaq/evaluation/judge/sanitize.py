"""Inside the sandbox: EvalPlus's sanitiser, from a model's text to a program.

It runs no program, but hostile text can make it slow or crash the parser, so it works in killable
workers inside the ring. The result is `evalplus.sanitize.sanitize`'s, character by character; only
its search for the longest part that parses is done without the spans that could not win, because
EvalPlus parses every one (a complete program of 100 lines: 5,000 times instead of 100).
"""

import itertools
import os
from collections.abc import Callable
from typing import Any

import evalplus.sanitize as sanitizer
from evalplus.syncheck import syntax_check

from qaq.evaluation.judge import pool as judge_pool
from qaq.evaluation.sandbox import ring

SANITIZE_SECONDS = 60.0


def run(order: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Sanitise each item's `raw` for its `entry_point`; null where the sanitiser fails."""
    sanitizer.code_extract = code_extract
    items = order["items"]
    libraries = ring.import_folders()

    def setup(kept: set[int]) -> None:
        ring.tighten(os.environ["TMPDIR"], libraries, keep=kept, most_abi=order["most_abi"])

    def work(number: int) -> dict[str, Any]:
        item = items[number]
        try:
            return {"solution": sanitizer.sanitize(item["raw"], item["entry_point"])}
        except Exception as error:  # not a program in any sense that the sanitiser knows
            return {"solution": None, "refused": type(error).__name__}

    judge_pool.run(
        range(len(items)), work, emit,
        workers=order["workers"], deadline=SANITIZE_SECONDS, setup=setup,
    )  # fmt: skip


def code_extract(text: str) -> str:
    """The span of lines that parses and has most lines that are not blank; the first of equals.

    The same as `evalplus.sanitize.code_extract`, which considers spans of at least two lines in
    order and takes one only if it has more such lines than the best so far. The comparison is made
    before the parse here.
    """
    lines = text.split("\n")
    filled = [0, *itertools.accumulate(bool(line.strip()) for line in lines)]
    best, longest = (0, 0), 0
    for i in range(len(lines)):
        if filled[-1] - filled[i] <= longest:
            break
        for j in range(i + 1, len(lines)):
            length = filled[j + 1] - filled[i]
            if length > longest and syntax_check("\n".join(lines[i : j + 1])):
                best, longest = (i, j), length
    return "\n".join(lines[best[0] : best[1] + 1])
