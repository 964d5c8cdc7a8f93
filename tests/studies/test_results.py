"""How far two rules choose alike, with the luck of the pool in the interval."""

import numpy as np

from qaq.studies.results import overlap


def highest(score):
    """A rule that keeps the upper half of the rows it is given."""

    def choose(rows):
        kept = np.zeros(len(rows), bool)
        kept[rows] = score[rows] >= np.median(score[rows])
        return kept

    return choose


def test_a_rule_compared_with_itself_has_no_interval():
    rule = highest(np.random.default_rng(0).normal(size=80))
    found = overlap(rule, rule, np.ones(80, bool))
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_the_interval_covers_what_two_rules_share_in_a_large_pool():
    # Scores that correlate at 0.6: of two upper halves 1/2 + arcsin(0.6) / pi is shared.
    truth = 0.5 + np.arcsin(0.6) / np.pi
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(60):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 200).T
        found = overlap(highest(x), highest(y), np.ones(200, bool))
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.85


def test_rows_that_take_no_part_are_never_kept_and_nothing_kept_is_no_overlap():
    rows = np.arange(40) < 20
    found = overlap(highest(np.arange(40.0)), highest(-np.arange(40.0)), rows)
    assert (found.value, found.n) == (0, 10)
    none, some = (lambda given: given & False), highest(np.arange(40.0))
    assert overlap(none, some, rows) is None and overlap(some, none, rows) is None
