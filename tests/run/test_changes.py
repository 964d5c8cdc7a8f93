"""What a stage reads from elsewhere changes between the plan and the stage's end."""

import json
import shutil
from pathlib import Path

import pytest

from qaq.host.runtime import RuntimeConfig
from qaq.run import runner
from qaq.run.compose import compose
from qaq.run.pipeline import Run
from qaq.store import failures
from qaq.store.store import Store


@pytest.fixture
def pool(tmp_path) -> Path:
    file = tmp_path / "pool.jsonl"
    write(file, "a sum")
    return file


def write(file: Path, what: str) -> None:
    rows = [{"question": f"Write {what} of {n}.", "answer": f"print({n})"} for n in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def stages(tmp_path, pool, model, *more: str):
    """The plan of a run as far as the scores of the strong model."""
    models = [f"models.{role}.id={model}" for role in ("strong", "weak", "target")]
    config = compose([
        "data=jsonl", f"data.path={pool}", *models, "selector=perplexity_middle", "train=none",
        "runtime.device=cpu", *more,
    ])  # fmt: skip
    return [s for s in Run(config).stages if s.kind in ("pairs", "scores")]


def make(plan, tmp_path):
    store = Store(tmp_path / "store")
    return store, runner.make(plan, store, RuntimeConfig(device="cpu"), lambda _: None)


def test_a_pool_that_was_written_again_after_the_plan_is_not_read_under_the_old_key(
    tiny_model, tmp_path, pool
):
    planned = stages(tmp_path, pool, tiny_model)
    write(pool, "a product")
    _, results = make(planned, tmp_path)
    assert [r.state for r in results] == ["failed", "skipped"]
    assert results[0].error.exit_code == 2
    assert "was changed since the run was planned (sha256); run the same" in str(results[0].error)
    _, again = make(stages(tmp_path, pool, tiny_model)[:1], tmp_path)
    assert [r.state for r in again] == ["ran"] and again[0].stage.key != planned[0].key


def test_what_a_stage_made_while_its_pool_was_written_again_is_thrown_away(
    tiny_model, tmp_path, pool, monkeypatch
):
    """The worker has read the old file; whether it did, nobody can know afterwards."""
    planned = stages(tmp_path, pool, tiny_model)[:1]
    spawn = runner._spawn

    def while_it_runs(*arguments):
        done = spawn(*arguments)
        write(pool, "a product")
        return done

    monkeypatch.setattr(runner, "_spawn", while_it_runs)
    store, (result,) = make(planned, tmp_path)
    assert result.state == "failed" and "was changed since" in str(result.error)
    assert store.find("pairs", planned[0].key) is None
    work = store.work_folder("pairs", planned[0].key)
    assert not (work / "out").exists() and "was changed" in failures.read(work).message


@pytest.mark.parametrize("what", ["weights", "template", "gone"])
def test_a_model_or_a_template_that_was_exchanged_after_the_plan_is_refused(
    tiny_model, tmp_path, pool, what
):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    template = tmp_path / "mine.jinja"
    template.write_text((Path(tiny_model) / "chat_template.jinja").read_text())
    planned = stages(tmp_path, pool, model, f"models.strong.chat_template={template}")
    if what == "template":
        template.write_text(template.read_text() + "\n")
    elif what == "gone":
        shutil.rmtree(model)
    else:
        weights = bytearray((model / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (model / "model.safetensors").write_bytes(weights)
    _, results = make(planned, tmp_path)
    assert [r.state for r in results] == ["ran", "failed"]
    said = {"weights": "(weights)", "template": "(chat_template)", "gone": "no such folder"}
    assert said[what] in str(results[1].error) and results[1].error.exit_code == 2


def test_every_stage_finds_its_own_fingerprints_unchanged(tiny_model, tmp_path, pool):
    """Of every kind that has some, and of a rule's queries and the problems' overlaps."""
    models = [f"models.{role}.id={tiny_model}" for role in ("strong", "weak", "target")]
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"question": "Sort a list."}\n')
    more = ["data=jsonl", f"data.path={pool}", *models, "runtime.device=cpu", "benchmark=mini"]
    plans = [
        compose([*more, "selector=rds_plus", f"selector.queries={queries}"]),
        compose([*more, "selector=rmi_band_clean"]),
        compose(["experiment=planted_noise", "scale=small", "runtime.device=cpu"]),
    ]
    found = [stage for config in plans for stage in Run(config).stages]
    assert {"pairs", "scores", "embeddings", "overlaps", "adapter", "outcomes", "study"} <= {
        stage.kind for stage in found if stage.changed() == []
    }
    assert not [stage.kind for stage in found if stage.changed()]
    queries.write_text('{"question": "Reverse a list."}\n')
    assert [s.changed() for s in found if s.name.startswith("queries-")] == [["queries_sha256"]]
