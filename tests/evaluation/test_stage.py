"""The outcomes stage on the tiny model: what it writes, and what it does after a kill."""

import itertools
import json
import shutil
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.evaluation import stage
from qaq.evaluation.config import SUITES
from qaq.evaluation.generation.generate import Journal
from qaq.evaluation.judge import judge
from qaq.evaluation.scores import pass_at
from qaq.host.errors import DataError, ModelError, SandboxError, UserError
from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import PER_PROBLEM, PREFERENCES, read_json, read_jsonl, read_table


@pytest.fixture
def make_job(tiny_model, tmp_path, own_cache):
    """A job for three problems of `mini`; its folders are the same each time, as after a kill."""

    def make(model=tiny_model, inputs=None, **evaluation):
        for name in ("out", "scratch"):
            (tmp_path / name).mkdir(exist_ok=True)
        config = {
            "model": {"name": "tiny", "id": str(model), "dtype": "float32"},
            "system_prompt": None,
            "eval": {"name": "test", "max_new_tokens": 8} | evaluation,
            "suite": "mini",
            "limit": 3,
        }
        runtime = RuntimeConfig(device="cpu", judge_workers=1, generation_batch=2)
        return Job("outcomes", "tiny-mini", "k", config, inputs or {}, tmp_path / "out",
                   tmp_path / "scratch", runtime)  # fmt: skip

    return make


def per_problem(job):
    return read_table(job.out / "per_problem.parquet", PER_PROBLEM).to_pylist()


def forbid(*args, **kwargs):
    raise AssertionError("this was done before and must not be done again")


def test_every_problem_gets_an_outcome_and_everything_is_written_down(make_job):
    job = make_job()
    summary = stage.run(job)
    rows = per_problem(job)
    assert [row["task_id"] for row in rows] == ["Mini/0", "Mini/1", "Mini/2"]
    assert {row["benchmark"] for row in rows} == {"mini"}
    assert not any(row["plus_passed"] for row in rows)  # a model that knows nothing
    assert all(row["failure"] and row["solution_bits_per_byte"] > 0 for row in rows)
    scores = read_json(job.out / "scores.json")
    assert scores["problems"] == 3 and scores["pass_at_1_base"] == summary["pass_at_1_base"] == 0
    assert scores["new_tokens"] == sum(row["new_tokens"] for row in rows) == 24
    assert scores["bits_per_byte"] == pytest.approx(
        sum(row["solution_bits_per_byte"] for row in rows) / 3
    )
    assert scores["sandbox"] and scores["judge"] == "repaired"
    assert (scores["at_limit"], scores["no_code"], scores["cut"]) == (3, 3, 0)
    assert summary["at_limit"] == 3
    lines = list(read_jsonl(job.out / "samples.jsonl"))
    assert [line["completion_sha"] for line in lines] == [row["completion_sha"] for row in rows]
    assert all({"raw", "solution", "completion"} <= set(line) for line in lines)
    assert "Mini/0" in (job.out / "prompts.txt").read_text()


def test_preferences_are_measured_where_they_are_asked_for_and_once(make_job, monkeypatch):
    job = make_job(preference=True)
    stage.run(job)
    rows = read_table(job.out / "preferences.parquet", PREFERENCES).to_pylist()
    assert {row["task_id"] for row in rows} == {"Mini/0", "Mini/1", "Mini/2"}
    monkeypatch.setattr("qaq.evaluation.preference.preferences", forbid)
    stage.run(make_job(preference=True))


def test_bits_per_byte_are_left_out_where_nobody_wants_them(make_job, monkeypatch):
    monkeypatch.setattr(stage, "solution_bits", forbid)
    job = make_job(bits=False)
    stage.run(job)
    assert {row["solution_bits_per_byte"] for row in per_problem(job)} == {None}
    scores = read_json(job.out / "scores.json")
    assert (scores["bits_per_byte"], scores["bits_unknown"]) == (None, 3)


def test_the_judge_and_the_sandbox_are_told_in_the_log_and_in_the_summary(make_job, capsys):
    summary = stage.run(make_job(samples=1))
    assert summary["judge"] == "repaired" and "ring" in summary["sandbox"]
    assert f"EvalPlus (repaired) inside {summary['sandbox']}" in capsys.readouterr().err


def test_without_a_sandbox_nothing_is_generated(make_job, monkeypatch):
    def refuse(setting):
        raise SandboxError("no sandbox works on this machine")

    monkeypatch.setattr(stage.sandbox, "choose", refuse)
    monkeypatch.setattr(stage, "ask", forbid)
    with pytest.raises(SandboxError, match="no sandbox"):
        stage.run(make_job())


def test_a_data_file_that_is_no_release_is_used_where_that_is_allowed(make_job, tmp_path):
    job = make_job()
    rows = [json.loads(line) for line in SUITES["mini"].file.read_text().splitlines()[:2]]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    release = asdict(SUITES["humaneval"].release)
    own = {"suite": "humaneval", "spec": {"file": str(file), "release": release}, "limit": None}
    with pytest.raises(DataError, match="unknown version of humaneval"):
        stage.run(replace(job, config=job.config | own))
    allowed = replace(
        job, config=job.config | own | {"spec": own["spec"] | {"allow_unknown": True}}
    )
    assert stage.run(allowed)["problems"] == 2


@pytest.mark.parametrize("prompt", ["chat", "completion"])
def test_whole_programs_are_asked_for_judged_and_counted(make_job, prompt):
    job = make_job(prompt=prompt)
    job = replace(job, config=job.config | {"suite": "mini_stdio", "limit": 2})
    summary = stage.run(job)
    assert summary["judge"] == "stdio" and summary["problems"] == 2
    rows = per_problem(job)
    assert [row["task_id"] for row in rows] == ["MiniStdio/0", "MiniStdio/1"]
    assert all(row["failure"] and row["solution_bits_per_byte"] > 0 for row in rows)
    if prompt == "chat":
        assert "Write a Python program" in (job.out / "prompts.txt").read_text()


def test_the_right_answers_pass_and_their_number_is_the_score(make_job):
    job = make_job(prompt="completion", max_new_tokens=30)
    right = {
        "Mini/0": "    return a + b\n",
        "Mini/1": "    return n % 2 == 0\n",
        "Mini/2": "    x\n",
    }
    stage.ask(job, job.parse(stage.OutcomesStage), stage.benchmarks.load("mini", limit=3))
    file = job.scratch / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(x | {"text": right[x["task_id"]]}) + "\n" for x in lines))
    summary = stage.run(job)
    assert summary["pass_at_1_base"] == summary["pass_at_1_plus"] == pytest.approx(2 / 3)
    failures = {row["task_id"]: row["failure"] for row in per_problem(job)}
    assert failures == {"Mini/0": None, "Mini/1": None, "Mini/2": "error"}


def test_after_a_kill_before_judging_nothing_is_generated_again(make_job, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stage, "judge", killed)
        stage.run(make_job())
    before = (make_job().scratch / "samples.jsonl").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("qaq.models.load.load_model", forbid)
        summary = stage.run(make_job())
    assert summary["problems"] == 3
    assert (make_job().scratch / "samples.jsonl").read_text() == before


def test_after_a_kill_in_the_middle_only_the_rest_is_generated(make_job, monkeypatch):
    extend = Journal.extend
    asked = []

    def first_only(self, completions, progress):
        extend(self, itertools.islice(completions, 1), progress)
        raise KeyboardInterrupt

    def counting(self, completions, progress):
        found = list(completions)
        asked.extend(c.task_id for c in found)
        extend(self, iter(found), progress)

    monkeypatch.setattr(Journal, "extend", first_only)
    with pytest.raises(KeyboardInterrupt):
        stage.run(make_job())
    done = {c.task_id for c in Journal(make_job().scratch / "samples.jsonl").done.values()}
    monkeypatch.setattr(Journal, "extend", counting)
    stage.run(make_job())
    assert len(done) == 1 and sorted([*asked, *done]) == ["Mini/0", "Mini/1", "Mini/2"]


def test_several_samples_give_pass_at_k(make_job):
    job = make_job(samples=5, temperature=0.8, seed=3)
    stage.run(job)
    rows = per_problem(job)
    assert [(r["task_id"], r["sample"]) for r in rows] == [
        (f"Mini/{task}", i) for task in range(3) for i in range(5)
    ]
    assert len({r["completion_sha"] for r in rows}) > 10
    assert set(read_json(job.out / "scores.json")["pass_at_k"]) == {"1", "5"}


def test_an_adapter_taught_otherwise_is_refused_before_the_model_is_loaded(
    make_job, tmp_path, monkeypatch
):
    folder = tmp_path / "adapter"
    folder.mkdir()
    facts = {"template_sha": "0" * 64, "system_prompt": None, "examples": []}
    (folder / "prompt.json").write_text(json.dumps(facts))
    monkeypatch.setattr("qaq.models.load.load_model", forbid)
    with pytest.raises(ModelError, match="another prompt"):
        stage.run(make_job(inputs={"adapter": folder}))


def test_a_prompt_longer_than_the_context_is_the_users_mistake(make_job, tiny_model, tmp_path):
    small = shutil.copytree(tiny_model, tmp_path / "small")
    config = read_json(small / "config.json") | {"max_position_embeddings": 100}
    (small / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="context of 100 tokens") as error:
        stage.run(make_job(small))
    assert error.value.exit_code == 2
    assert list(make_job(small).out.iterdir()) == []


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_k_subsets_with_a_pass(passed, data):
    k = data.draw(st.integers(1, len(passed)))
    subsets = list(itertools.combinations(passed, k))
    assert pass_at(k, passed) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_answers_that_were_judged_while_the_rest_was_written_get_the_same_verdicts(
    make_job, tmp_path, monkeypatch
):
    plain, ahead = make_job(), tmp_path / "ahead"
    stage.run(plain)
    for name in ("out", "scratch"):
        (ahead / name).mkdir(parents=True)
    runtime = replace(plain.runtime, judge_ahead=True, generation_batch=1)
    job = replace(plain, out=ahead / "out", scratch=ahead / "scratch", runtime=runtime)
    left = []

    def counted(benchmark, samples, settings, workdir, progress):
        journal = list(read_jsonl(workdir / "journal.jsonl"))
        left.append(len(samples) - sum(line["phase"] == "first" for line in journal))
        return judge.judge(benchmark, samples, settings, workdir, progress)

    monkeypatch.setattr(stage, "judge", counted)
    stage.run(job)
    assert per_problem(job) == per_problem(plain)
    assert left[0] < 3  # at least the first answer was judged before the last was written
