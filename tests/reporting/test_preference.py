"""Shares of tasks on which the right solution is the likelier one, counted by hand."""

import pandas as pd
import pytest

from qaq.evidence.estimate import share
from qaq.reporting.preference import preferences
from qaq.reporting.tables.preference import preference_table


def rows(arm, seed, *values):
    return [
        {"arm": arm, "seed": seed, "benchmark": "mini", "task_id": task, "corruption": kind}
        | {"right": right, "wrong": wrong}
        for task, kind, right, wrong in values
    ]


FOUND = pd.DataFrame(
    rows("full", 1, ("a", "operator", 0.5, 0.6), ("b", "operator", 0.7, 0.6))
    + rows("full", 2, ("a", "operator", 0.5, 0.6), ("b", "operator", 0.5, 0.6))
    + rows("untuned", 0, ("a", "operator", 0.6, 0.6), ("a", "other_task", 0.5, 0.9))
)


def test_a_task_is_the_share_of_its_runs_and_equals_count_half():
    found = {(p.arm, p.corruption): p.share for p in preferences(FOUND)}
    assert found["full", "operator"] == share(1.5, 2)  # task a in both runs, task b in one of two
    assert found["untuned", "operator"].value == pytest.approx(0.5)
    assert found["untuned", "other_task"].value == 1.0
    assert preferences(None) == ()


def test_the_table_has_a_line_for_each_arm_and_says_that_it_decides_nothing():
    class Results:
        preferences = preferences(FOUND)

    table = preference_table(Results)
    assert [row[1].text for row in table.rows] == ["full", "untuned"]
    assert [cell.text for cell in table.rows[0][2:]] == ["2", "75.0", "–"]
    assert "decides nothing" in table.note
