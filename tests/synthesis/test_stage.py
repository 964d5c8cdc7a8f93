"""The stage that writes pairs, with a real small model."""

import importlib.util
import json

import pytest
from pydantic import TypeAdapter

from qaq.data.synthesis import Answerer, SynthesisConfig
from qaq.host.errors import ConfigError, DataError
from qaq.host.runtime import RuntimeConfig
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.run.compose import compose
from qaq.run.pipeline import plan
from qaq.store.jobs import Job
from qaq.synthesis import stage

SMOLLM = "smollm2-135m-instruct"


def job(folder, batch, **changes):
    model = ModelConfig(name="m", id=f"embedded:{SMOLLM}", dtype="float32")
    config = SynthesisConfig(
        name="t",
        questioner=model,
        answerers={"strong": Answerer(model=model), "weak": Answerer(model=model)},
        question_prompt="The user asks a very short question.",
        questions=8,
        question_tokens=64,
        answer_tokens=300,
        **changes,
    )
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tree = TypeAdapter(SynthesisConfig).dump_python(config, mode="json")
    runtime = RuntimeConfig(device="cpu", generation_batch=batch)
    return Job(
        module="qaq.synthesis.stage",
        kind="synthesis",
        name="t",
        key="k",
        config=tree,
        inputs={},
        out=folder / "out",
        scratch=folder / "scratch",
        runtime=runtime,
    )


@pytest.mark.nightly
def test_pairs_depend_on_the_seed_and_survive_a_kill_whatever_the_batch(tmp_path):
    if importlib.util.find_spec(embedded.MODELS[SMOLLM].parts[0][0]) is None:
        pytest.skip("the model package is not installed (requirements-models.txt)")
    first = job(tmp_path / "first", 4)
    counts = stage.run(first)
    pairs = (first.out / "pairs.jsonl").read_text()
    rows = [json.loads(line) for line in pairs.splitlines()]
    assert len(rows) == counts["rows"] > 0
    left_out = json.loads((first.out / "left_out.json").read_text())
    assert len(rows) + sum(left_out.values()) == 8
    assert {row["source"] for row in rows} <= {"strong", "weak"}
    assert all("<|im_" not in row["instruction"] + row["output"] for row in rows)

    again = job(tmp_path / "again", 1)  # a killed run: half of the questions, a torn line
    lines = (first.scratch / "questions.jsonl").read_text().splitlines(keepends=True)
    (again.scratch / "questions.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    stage.run(again)
    assert (again.out / "pairs.jsonl").read_text() == pairs

    other = job(tmp_path / "other", 4, seed=1)
    stage.run(other)
    assert (other.out / "pairs.jsonl").read_text() != pairs


def test_a_model_that_finishes_no_question_is_an_error(tmp_path, tiny_model):
    work = job(tmp_path, 4)
    tiny = {"name": "tiny", "id": str(tiny_model), "dtype": "float32"}
    work.config["questioner"] = tiny
    work.config["question_tokens"] = 1
    with pytest.raises(DataError, match="finished none of 8 questions"):
        stage.run(work)


def test_the_pool_rests_on_the_stage_that_writes_it():
    stages = plan(compose(["data=synthetic", "selector=random"]))
    written, pairs = stages[0], stages[1]
    assert (written.kind, pairs.inputs["synthesis"]) == ("synthesis", written)
    other = plan(compose(["data=synthetic", "selector=random", "data.synthesis.seed=1"]))
    assert other[1].key != pairs.key
    assert {name.split(".")[0] for name in written.fingerprints} == {
        "questioner",
        "strong",
        "weak",
    }


def test_a_source_that_models_write_needs_to_know_how():
    with pytest.raises(ConfigError, match="source=synthetic needs it"):
        compose(["data.source=synthetic"])
