"""Pools made of plain numbers, so that a test states the scores it means."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from qaq.selection.pool import build_pool
from qaq.selection.texts import Texts
from qaq.store.tables import PAIRS, SCORES


def row_id(number):
    """A row id like the real ones; their order is not that of the numbers."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def score_rows(ids, *, rmi=None, ppl_q=None, ifd=None, ppl_a=None, tokens_a=None, reasons=None):
    """A score table whose metrics are the numbers given; None makes a row unscored.

    Every span has 2 tokens (the answer: `tokens_a`), so the sums are the means times 2.
    """
    n = len(ids)
    rmi = [0.0] * n if rmi is None else rmi
    ppl_q = [3.0] * n if ppl_q is None else ppl_q
    ifd = [0.5] * n if ifd is None else ifd
    ppl_a = [1.0] * n if ppl_a is None else ppl_a
    tokens_a = [2] * n if tokens_a is None else tokens_a
    reasons = [None] * n if reasons is None else reasons
    rows = []
    for i, (r, q, f, a, t, why) in enumerate(
        zip(rmi, ppl_q, ifd, ppl_a, tokens_a, reasons, strict=True)
    ):
        row = dict.fromkeys(SCORES.names) | {"row_id": ids[i], "truncated": False, "reason": why}
        if why is None and None not in (r, q, f, a, t):
            row |= {
                "nll_q": 2 * q,
                "tokens_q": 2,
                "nll_q_given_a": 2 * (q - r),
                "tokens_q_given_a": 2,
                "nll_a": t * a,
                "tokens_a": t,
                "nll_a_given_q": t * a * f,
                "tokens_a_given_q": t,
            }
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCORES)


def pair_rows(ids, questions=None, answers=None, sources=None):
    n = len(ids)
    columns = {
        "row_id": ids,
        "question": questions or [f"question {i}" for i in range(n)],
        "answer": answers or [f"answer {i}" for i in range(n)],
        "source": sources or ["test"] * n,
        "defect": [None] * n,
        "input_start": [None] * n,
        "position": range(1, n + 1),
        "file": [1] * n,
    }
    return pa.table(columns, schema=PAIRS)


class Maker:
    """What tests of this folder build their inputs with."""

    row_id = staticmethod(row_id)
    scores = staticmethod(score_rows)
    pairs = staticmethod(pair_rows)

    @staticmethod
    def texts(*runs, place=None):
        """Texts of tables; they stand in the order of the pool, unless places are given."""
        sizes = [len(run) for run in runs]
        held = SimpleNamespace(sizes=sizes, read=runs.__getitem__)
        return Texts(held, np.arange(sum(sizes)) if place is None else place)

    @staticmethod
    def ids(n):
        """n row ids in ascending order, so that row i of a test is row i of the pool."""
        return sorted(row_id(i) for i in range(n))

    @classmethod
    def pool(cls, n, order=None, weak=None, **strong):
        """A pool of n rows; `order` permutes the rows of every table on its way in."""
        ids = cls.ids(n)
        tables = {"strong": cls.scores(ids, **strong)}
        if weak is not None:
            tables["weak"] = cls.scores(ids, **weak)
        rows = cls.pairs(ids)
        if order is not None:
            rows = rows.take(pa.array(order))
            tables = {role: t.take(pa.array(order[::-1])) for role, t in tables.items()}
        pool, _ = build_pool(rows.select(["row_id"]), tables)
        return pool

    @staticmethod
    def kept(decision):
        """Indices of the kept rows, ascending."""
        return np.flatnonzero(decision.kept).tolist()

    @staticmethod
    def reasons(decision):
        """The reason of each row."""
        return [decision.labels[i] for i in decision.label]


@pytest.fixture(scope="session")
def make():
    return Maker
