import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import rankdata

from qaq.host.errors import DataError
from qaq.scoring.agreement import agreement
from qaq.store.tables import SCORES


def table(nll_q, ids=None):
    rows = [
        dict.fromkeys(SCORES.names)
        | {"row_id": i, "nll_q": q, "tokens_q": 2, "nll_q_given_a": 0.0, "tokens_q_given_a": 2}
        for i, q in zip(ids or map(str, range(len(nll_q))), nll_q, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCORES)


def test_it_is_the_correlation_of_the_ranks_of_the_rows_in_common():
    one = np.random.default_rng(0).normal(size=60) + 10
    two = one + np.random.default_rng(1).normal(size=60)
    found = agreement("rmi", table(one), "perplexity_q", table(two))
    expected = np.corrcoef(rankdata(one), rankdata(two))[0, 1]
    assert found.spearman == pytest.approx(expected)
    assert found.rows == 60
    assert found.low < expected < found.high < 1


def test_rows_are_matched_by_id_and_unscored_ones_left_out():
    one = table([1.0, 2.0, 3.0, 4.0, None], ["a", "b", "c", "d", "e"])
    two = table([9.0, 4.0, 3.0, 2.0, 1.0, 7.0], ["e", "d", "c", "b", "a", "f"])
    found = agreement("rmi", one, "rmi", two)
    assert (found.rows, found.spearman) == (4, 1.0)


@pytest.mark.parametrize("nll", [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0]])
def test_no_order_no_number(nll):
    with pytest.raises(DataError, match="an order needs"):
        agreement("rmi", table(nll), "rmi", table(nll))
