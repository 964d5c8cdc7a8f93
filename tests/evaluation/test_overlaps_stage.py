"""The overlaps stage on the packaged benchmark: what it finds is what was put in."""

import json

import pytest

from qaq.evaluation import benchmarks, overlaps
from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import OVERLAPS, PAIRS, read_table, write_rows

PROBLEMS = benchmarks.load("mini").problems


@pytest.fixture
def job(tmp_path):
    """A pool of one copied prompt, one copied solution, one shared name, and one free row."""
    first, second, third = PROBLEMS[:3]
    texts = [
        (first.prompt, "def something_else():\n    return 0\n"),
        ("Write it.", second.prompt + second.canonical_solution),
        (f"Please call {third.entry_point}(1) once.", "It is done."),
        ("How do magnets work?", "Nobody knows, and that is a pity."),
    ]
    rows = [
        {
            "row_id": f"{i:016x}",
            "question": question,
            "answer": answer,
            "source": "test",
            "defect": None,
        }
        for i, (question, answer) in enumerate(texts)
    ]
    for name in ("pairs", "out", "scratch"):
        (tmp_path / name).mkdir()
    write_rows(tmp_path / "pairs" / "pairs.parquet", rows, PAIRS)
    return Job(
        kind="overlaps",
        name="test",
        key="0" * 64,
        config={"suites": ["mini"]},
        inputs={"pairs": tmp_path / "pairs"},
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        runtime=RuntimeConfig(),
    )


def test_each_row_is_found_by_the_way_it_touches_a_problem(job):
    summary = overlaps.run(job)
    table = read_table(job.out / "overlaps.parquet", OVERLAPS).to_pandas()
    own = {i: PROBLEMS[i].task_id for i in range(3)}
    found = {
        i: set(table[(table.row_id == f"{i:016x}") & (table.task_id == task)]["kind"])
        for i, task in own.items()
    }
    assert "exact" in found[0] and "exact" in found[1] and found[2] == {"entry_point"}
    assert f"{3:016x}" not in set(table.row_id)
    assert set(table.benchmark) == {"mini"}
    assert summary["mini_exact"] == 2
    assert json.dumps(summary)


def test_every_problem_of_the_suite_is_looked_for(job):
    assert {p.task_id for p in overlaps.problems(job.parse(overlaps.OverlapsStage))} == {
        p.task_id for p in PROBLEMS
    }
