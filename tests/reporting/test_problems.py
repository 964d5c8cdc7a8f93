"""The page of the single problems, and the pages of what each arm kept."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from qaq.evaluation import benchmarks
from qaq.reporting import problems
from qaq.reporting.stage import run
from qaq.store.jobs import Job
from qaq.store.tables import read_json, write_json, write_jsonl

from .conftest import SMALL, World

MINI = benchmarks.load("mini")


def with_programs(job: Job, text: str = "return {arm} < {seed}  # {task}") -> Job:
    """The same outcomes with a program for each verdict; tasks get the names of the suite mini."""
    ids = [p.task_id for p in MINI.problems]
    for role, folder in job.inputs.items():
        if not role.startswith("outcomes/"):
            continue
        _, arm, seed, _ = role.split("/")
        rows = pd.read_parquet(folder / "per_problem.parquet").iloc[: len(ids)]
        rows["task_id"] = ids
        rows.to_parquet(folder / "per_problem.parquet")
        write_jsonl(
            folder / "samples.jsonl",
            [
                {
                    "task_id": row.task_id,
                    "sample": 0,
                    "failure": row.failure,
                    "solution": text.format(arm=arm, seed=seed, task=row.task_id),
                }
                for row in rows.itertuples()
            ],
        )
        scores = read_json(folder / "scores.json") | {"benchmark_md5": MINI.md5}
        write_json(folder / "scores.json", scores)
    return job


TASKS: dict[str, Any] = SMALL | {"suites": {"mini": 60}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished report whose outcomes have programs."""
    job = with_programs(World(folder=tmp_path_factory.mktemp("made"), **TASKS).build())
    run(job)
    return job


def outcomes(job: Job) -> "pd.Series[Any]":
    """The share of runs that passed, by task and arm."""
    rows = pd.read_parquet(job.out / "per_problem.parquet")
    shares: pd.Series[Any] = rows.groupby(["task_id", "arm"])["plus_passed"].mean()
    return shares


def page(job: Job) -> str:
    return (job.out / "problems.html").read_text()


def test_it_lists_exactly_the_tasks_on_which_arms_differ(made: Job) -> None:
    shares = outcomes(made).unstack()
    expected = set(shares.index[shares.nunique(axis=1) > 1])
    assert 0 < len(expected) < len(shares)
    body = page(made)
    assert set(re.findall(r'<a href="#task\d+">([^<]*)</a>', body)) == expected
    assert f"{len(expected)} of {len(shares)} tasks" in body


def test_a_task_shows_its_prompt_and_the_program_of_every_run_with_its_verdict(made: Job) -> None:
    shares = outcomes(made).unstack()
    task = next(t for t in shares.index if 0 < shares.loc[t, "ifd"] < 1)
    part = next(p for p in page(made).split("<details")[1:] if f"<b>{task}</b>" in p)
    assert MINI.by_id()[task].prompt in html.unescape(part)
    for seed in (1, 2):
        assert f"return ifd &lt; {seed}  # {task}" in part
    heads = re.findall(r"<b>([^<]*)</b>: ifd \((seed \d)\)", part)
    assert sorted(verdict for verdict, _ in heads) == ["passed", "wrong answer"]


def test_without_the_file_that_was_judged_on_the_page_says_so(world: Callable[..., World]) -> None:
    job = with_programs(world(**TASKS).build())
    for role, folder in job.inputs.items():
        if role.startswith("outcomes/"):
            scores = read_json(folder / "scores.json") | {"benchmark_md5": "0" * 32}
            write_json(folder / "scores.json", scores)
    run(job)
    assert "text of the problem is not here" in page(job)
    assert not any(html.escape(p.prompt, quote=False) in page(job) for p in MINI.problems)


def test_the_page_stays_below_its_limit_and_says_what_it_leaves_out(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = with_programs(world(**TASKS).build(), "<&>" * 2000 + "{arm}{seed}{task}")
    monkeypatch.setattr(problems, "MOST", 400_000)
    run(job)
    size = (job.out / "problems.html").stat().st_size
    assert 150_000 < size < 400_000
    tasks = len(re.findall(r'<tr id="row', page(job)))
    shown = len(re.findall(r'<details class="task"', page(job)))
    assert 0 < shown < tasks
    said = " ".join(page(job).split())
    assert f"{tasks - shown} of the {tasks} tasks, those" in said
    assert "more characters" in said  # a long program is cut, and says so


def test_where_no_programs_are_kept_there_is_still_the_table(told: Job) -> None:
    assert "No programs are kept" in page(told)
    assert '<a href="problems.html#a=' in (told.out / "index.html").read_text()


def test_where_no_two_arms_differ_there_is_no_page_and_no_link(
    world: Callable[..., World],
) -> None:
    job = world(**SMALL | {"suites": {"mini": 10}}).build()
    for role, folder in job.inputs.items():
        if role.startswith("outcomes/"):
            rows = pd.read_parquet(folder / "per_problem.parquet")
            rows.assign(plus_passed=False, base_passed=False).to_parquet(
                folder / "per_problem.parquet"
            )
    run(job)
    assert not (job.out / "problems.html").exists()
    assert "problems.html" not in (job.out / "index.html").read_text()


def test_every_row_of_the_ranked_table_leads_to_what_its_arm_kept(told: Job) -> None:
    index = (told.out / "index.html").read_text()
    for arm in ("full", "random", "ifd", "rmi_band", "diff_high"):
        assert f'<a href="subsets/{arm}.html">{arm}</a>' in index
        body = (told.out / "subsets" / f"{arm}.html").read_text()
        folder = told.inputs[f"subset/{arm}/1"].name
        assert f"qaq export {folder} chosen.jsonl --store" in body
        assert 'href="../index.html"' in body
    rows = pd.read_parquet(told.inputs["subset/rmi_band/1"] / "rows.parquet")
    body = (told.out / "subsets" / "rmi_band.html").read_text()
    assert f"keeps {rows['kept'].sum()} of {len(rows)} rows" in body
    assert 'id="figure-kept"' in body


def test_links_inside_a_report_lead_somewhere(made: Job) -> None:
    for file in made.out.rglob("*.html"):
        text = file.read_text()
        plain = re.sub(r"<svg.*?</svg>", "", text, flags=re.S)
        for target in re.findall(r'href="([^"#]+)(?:#[^"]*)?"', plain):
            assert (file.parent / target).is_file(), (file.name, target)


def test_examples_of_both_sides_of_the_cut_stand_on_the_report_itself(told: Job) -> None:
    index = (told.out / "index.html").read_text()
    part = next(p for p in index.split("<details") if "rmi_band: rows beside the cut" in p)
    part = part.partition("</details>")[0]
    assert part.count('<article class="marked">') == 3
    assert part.count("<article>") == 3


def test_a_program_cannot_break_out_of_the_page(world: Callable[..., World]) -> None:
    job = with_programs(world(**TASKS).build(), "</pre><script>{arm}{seed}{task}")
    run(job)
    assert "</pre><script>" not in page(job)
    arms = [json.loads(html.unescape(a)) for a in re.findall(r'data-arms="([^"]*)"', page(job))]
    assert arms and all(isinstance(a, list) for a in arms)
