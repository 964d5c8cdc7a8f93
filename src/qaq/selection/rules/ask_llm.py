"""Ask-LLM: the rows that the strong model itself calls worth training on.

It costs one pass over the pool: the model reads each pair and one fixed question
(`qaq.scoring.framings.ask_llm`), and nothing is generated.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from qaq.scoring.metrics import Columns, column
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, finite


@dataclass(frozen=True, kw_only=True, config=FORBID)
class AskLlm:
    """The highest probability of "yes" to the question whether the pair is worth training on."""

    needs: ClassVar[tuple[str, ...]] = ("asked",)
    spans: ClassVar[tuple[str, ...]] = ("a_given_q",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["ask_llm"] = "ask_llm"


@rule(AskLlm)
def ask_llm(config: AskLlm, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the likeliest "yes" (Ask-LLM, arXiv 2402.09668)."""
    return keep_highest(config, pool, size, finite(probability_of_yes(pool.scores["asked"])))


def probability_of_yes(asked: Columns) -> FloatArray:
    """How likely the strong model answers "yes" when asked whether a pair is worth training on.

    Formula: exp(-sum NLL(yes)), over all tokens of the word.
    Unit: probability.
    Direction: higher, the model holds the pair for the better one; its source keeps the highest.
    Low tail: what the model calls uninformative, and what makes any reply unlikely.
    High tail: what it calls informative; a small model says so of nearly everything.
    Source: Ask-LLM, arXiv 2402.09668; of the table that the framing `ask_llm` makes.
    """
    return np.asarray(np.exp(-column(asked, "nll_a_given_q")))
