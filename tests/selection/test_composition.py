"""`then` and `exclude`: what the second rule sees, what the ratio counts, what the audit says."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from qaq.host.errors import UserError
from qaq.selection.config import SelectorConfig, rules_within
from qaq.selection.inputs import bar
from qaq.selection.rules import select


def rule(tree):
    return TypeAdapter(SelectorConfig).validate_python(tree)


THEN = {
    "method": "then",
    "filter": {"method": "rmi_top", "bins": 1},
    "filter_ratio": 0.5,
    "rank": {"method": "longest"},
}


def test_then_ranks_only_what_the_filter_kept(make):
    # RMI keeps rows 4 to 7; of these the longest answers are rows 4 and 6, though 0 is longer.
    pool = make.pool(8, rmi=[0.0, 1, 2, 3, 4, 5, 6, 7], tokens_a=[90, 1, 1, 1, 50, 10, 40, 20])
    decision = select(rule(THEN), pool, ratio=0.25)
    assert make.kept(decision) == [4, 6]
    assert make.reasons(decision) == [
        *["filtered by rmi_top: dropped: lower"] * 4,
        "kept: highest",
        "dropped: lower",
        "kept: highest",
        "dropped: lower",
    ]
    assert np.isnan(decision.score[:4]).all() and decision.score[4:].tolist() == [50, 10, 40, 20]


def test_then_can_count_the_ratio_among_the_survivors(make):
    pool = make.pool(8, rmi=[0.0, 1, 2, 3, 4, 5, 6, 7])
    decision = select(rule(THEN | {"share_of": "survivors"}), pool, ratio=0.25)
    assert decision.kept.sum() == 1


def test_then_refuses_more_than_the_filter_left(make):
    with pytest.raises(UserError, match=r"asked for 6 rows \(ratio 0.75 of 8\), but only 4"):
        select(rule(THEN), make.pool(8, rmi=[0.0, 1, 2, 3, 4, 5, 6, 7]), ratio=0.75)


def test_then_reads_what_both_rules_read():
    both = rule(
        {
            "method": "then",
            "filter": {"method": "random"},
            "filter_ratio": 0.5,
            "rank": {"method": "diff_high", "cut": "threshold"},
        }
    )
    assert (both.needs, both.seeded, both.uses_ratio) == (("strong", "weak"), True, False)
    assert [r.method for r in rules_within(both)] == ["then", "random", "diff_high"]


def test_a_filter_that_keeps_a_share_must_say_which():
    with pytest.raises(ValidationError, match="filter_ratio must be given: rmi_top"):
        rule({k: v for k, v in THEN.items() if k != "filter_ratio"})


def test_an_unscored_row_keeps_its_reason_through_a_filter(make):
    pool = make.pool(4, rmi=[1.0, 2.0, 3.0, None], reasons=[None] * 3 + ["empty answer"])
    decision = select(rule(THEN | {"filter_ratio": 1.0}), pool, ratio=0.34)
    assert make.reasons(decision)[3] == "no score: empty answer"


def test_contaminated_rows_are_left_out_and_the_ratio_counts_the_rest(make):
    pool = make.pool(6, tokens_a=[9, 8, 7, 6, 5, 4])
    ids = make.ids(6)
    barred = bar(pool.keys, {ids[0]: "contaminated: mbpp", ids[4]: "contaminated: humaneval"})
    config = rule({"method": "exclude", "contaminated": True, "rule": {"method": "longest"}})
    decision = select(config, replace(pool, barred=barred), ratio=0.5)
    assert make.kept(decision) == [1, 2]
    assert decision.selectable == 4
    assert make.reasons(decision)[0] == "excluded: contaminated: mbpp"
    assert make.reasons(decision)[4] == "excluded: contaminated: humaneval"


def test_near_duplicates_are_left_out_and_strata_are_made_of_the_rest(make):
    pool = make.pool(4, rmi=[4.0, 3.0, 2.0, 1.0])
    text = "write a function that adds two numbers and returns the sum of both"
    texts = pa.table(
        {
            "question": [text, "print the first ten prime numbers in order", text, "sort a list"],
            "answer": ["def add(a, b): return a + b", "no", "def add(a, b): return a+b", "sorted"],
        }
    )
    config = rule(
        {"method": "exclude", "near_duplicates": True, "rule": {"method": "rmi_top", "bins": 1}}
    )
    decision = select(config, replace(pool, texts=make.texts(texts)), ratio=1.0)
    assert make.kept(decision) == [0, 1, 3]
    assert make.reasons(decision)[2] == "excluded: near-duplicate of a row with a lower id"
    assert decision.rank[[0, 1, 3]].tolist() == [5 / 6, 0.5, 1 / 6]


def test_a_contaminated_row_does_not_make_its_copy_a_duplicate(make):
    # The row with the lower id is barred, so its copy is the one that stays.
    text = "write a function that adds two numbers and returns the sum of both"
    texts = pa.table({"question": [text] * 2, "answer": ["def add(a, b): return a + b"] * 2})
    pool = make.pool(2)
    barred = bar(pool.keys, {make.ids(2)[0]: "contaminated: mbpp"})
    config = rule(
        {
            "method": "exclude",
            "near_duplicates": True,
            "contaminated": True,
            "rule": {"method": "full"},
        }
    )
    decision = select(config, replace(pool, texts=make.texts(texts), barred=barred))
    assert make.kept(decision) == [1]


def test_excluding_nothing_is_refused():
    with pytest.raises(ValidationError, match="nothing to exclude"):
        rule({"method": "exclude", "rule": {"method": "full"}})
