"""Two controls of `coder_noisy`, added after its models were judged: the target's own answers.

`diff_high_ifd` keeps 150 rows, 135 of them answers of the target itself. `own_random` keeps as
many, drawn from the target's own answers alone, damaged or not; `own_likeliest` keeps those answers
that the target finds likeliest behind their question, with no second model.
"""

from typing import ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic.dataclasses import dataclass

from qaq.data.identity import CODERS
from qaq.scoring.metrics import mean_nll
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import cut_highest, keep_highest
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import finite, ranks_within
from qaq.selection.rules.random import draw


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OwnRandom:
    """Rows drawn from those that Qwen2.5-Coder 0.5B answered; the ratio counts the whole pool."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["own_random"] = "own_random"


@rule(OwnRandom)
def own_random(config: OwnRandom, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep a draw among the target's own answers, blind to what was damaged."""
    texts = given(pool.texts, "texts").table()
    packaged = pq.read_table(CODERS, columns=["instruction", "source"]).to_pydict()
    author = dict(zip(map(_words, packaged["instruction"]), packaged["source"], strict=True))
    questions = texts["question"].to_pylist()
    own = np.array([author[_words(question)] == "weak" for question in questions], np.bool_)
    score = draw(pool.keys, seed)
    label = cut_highest(np.where(own, score, -np.inf), size.rows(len(pool), config.method))
    label[~own] = 2
    labels = ("kept: drawn", "dropped: not drawn", "dropped: answered by the other model")
    rank = ranks_within(score)
    return decide(pool, labels, label, score=score, rank=rank, selectable=int(own.sum()))


def _words(question: str) -> str:
    """A question whose line ends and margins do not count: the pool has its own."""
    return " ".join(question.split())


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OwnLikeliest:
    """The answers of the lowest NLL a token behind their question, under the weak model."""

    needs: ClassVar[tuple[str, ...]] = ("weak",)
    spans: ClassVar[tuple[str, ...]] = ("a_given_q",)
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    method: Literal["own_likeliest"] = "own_likeliest"


@rule(OwnLikeliest)
def own_likeliest(config: OwnLikeliest, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the answers that the weak model, here also the target, finds likeliest."""
    score = finite(-mean_nll(pool.scores["weak"], "a_given_q"))
    return keep_highest(config, pool, size, score)
