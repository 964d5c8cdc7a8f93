"""How much shorter the question gets when it is compressed after its answer: no model at all.

A control for RMI, which asks the same of a language model. zlib finds what is repeated letter by
letter; compression distances go back to Cilibrasi and Vitányi (2005).
"""

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.host.hardware import cores
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.pool import Pool, given


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Compression:
    """The pairs whose answer saves most of the question's bytes under zlib."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["compression"] = "compression"


@rule(Compression)
def compression(config: Compression, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the highest savings."""
    texts = given(pool.texts, "texts").table()
    columns = texts["question"].to_pylist(), texts["answer"].to_pylist()
    with ThreadPoolExecutor(cores()) as threads:  # zlib releases the interpreter's lock
        score = np.array(list(threads.map(saving, *columns)), np.float64)
    return keep_highest(config, pool, size, score)


def saving(question: str, answer: str) -> float:
    """1 - (z(A, Q) - z(A)) / z(Q), z = bytes of the text under zlib at its highest level."""
    alone = _size(question)
    return 1 - (_size(f"{answer}\n{question}") - _size(answer)) / alone


def _size(text: str) -> int:
    return len(zlib.compress(text.encode(), 9))
