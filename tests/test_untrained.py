"""What runs without training a model on a subset, through the command line, on a tiny model."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def qaq(tiny_model, other_tiny_model, tmp_path_factory):
    """Run a command in a folder of its own that all tests of this file share."""
    folder = tmp_path_factory.mktemp("untrained")
    models = {"strong": tiny_model, "weak": other_tiny_model, "target": tiny_model}
    common = [
        *(f"models.{role}.id={path}" for role, path in models.items()),
        *(f"models.{role}.chat_template=null" for role in models),
        *(f"models.{role}.dtype=float32" for role in models),
        "runtime.device=cpu",
        "runtime.shard_rows=16",
        "runtime.store=store",
        "tracking=disabled",
    ]

    def run(*arguments):
        more = common if arguments[0] in ("run", "plan") else ["--store", "store"]
        done = subprocess.run(
            [sys.executable, "-m", "qaq.cli", *arguments, *more],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder = folder
    return run


def write_queries(folder):
    lines = [{"question": "Sort a list."}, {"question": "Read a file.", "answer": "open(path)"}]
    file = folder / "queries.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return file


@pytest.mark.slow
def test_rds_plus_chooses_audits_and_exports_without_training(qaq):
    queries = write_queries(qaq.folder)
    command = ["selector=rds_plus", f"selector.queries={queries}", "train=none", "data.limit=40"]
    said = qaq("run", *command)
    assert "Nothing was trained or judged" in said
    subset = next((qaq.folder / "store" / "subset").glob("rds_plus-*"))
    rows = pq.read_table(subset / "rows.parquet").to_pandas()
    assert (len(rows), rows["kept"].sum()) == (40, 10)
    assert set(rows["reason"]) == {"kept: picked by a query", "dropped: picked by no query"}
    report = next((qaq.folder / "store" / "report").glob("*/results.json"))
    found = json.loads(report.read_text())
    assert {c["subset"] for c in found["contamination"]} == {"pool", "rds_plus"}
    assert "keeps 10 of 40 rows" in qaq("audit", "rds_plus-0.25")
    assert "10 rows" in qaq("export", "rds_plus-0.25", "kept.jsonl")
    assert len((qaq.folder / "kept.jsonl").read_text().splitlines()) == 10


@pytest.mark.slow
def test_a_study_runs_from_one_command_and_is_shown_again(qaq):
    said = qaq("run", "experiment=planted_noise", "data.limit=60", "study.draws=2")
    assert "Claims that planted noise can test" in said
    assert " adapter " not in said and "subset" not in said
    study = next((qaq.folder / "store" / "study").iterdir())
    results = json.loads((study / "results.json").read_text())
    assert {t["name"] for t in results["tables"]} >= {"claims", "kept", "purity", "kept_all"}
    assert "Claims that planted noise can test" in qaq("report", "planted_noise")
    assert " ran " not in qaq("run", "experiment=planted_noise", "data.limit=60", "study.draws=2")


@pytest.mark.slow
def test_a_fine_tuned_scorer_scores_again(qaq):
    said = qaq("run", "experiment=scorer_stability", "data.limit=60")
    assert "before and after fine-tuning" in said
    scores = {}
    for folder in (qaq.folder / "store" / "scores").iterdir():
        table = pq.read_table(folder / "shards").to_pandas()
        if len(table) == 60 and "nll_q" in table:  # not those of the rule that asks
            scores[folder.name.rsplit("-", 1)[0]] = table.set_index("row_id")["nll_q"]
    name, after = next((k, v) for k, v in scores.items() if "-tuned" in k)
    before = scores[name.replace("-tuned", "")]
    assert not np.allclose(before, after.loc[before.index], rtol=1e-4)


@pytest.mark.slow
def test_two_processes_embed_what_one_does(qaq):
    command = ["run", "selector=rds_plus", f"selector.queries={write_queries(qaq.folder)}"]
    command += ["train=none", "data.limit=50"]
    qaq(*command, "runtime.processes=2")
    vectors = {}
    for folder in (qaq.folder / "store" / "embeddings").iterdir():
        rows = np.load(folder / "rows.npy")
        if len(rows) == 50:
            vectors[folder] = rows
    ((folder, two),) = vectors.items()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    qaq(*command)
    np.testing.assert_allclose(np.load(folder / "rows.npy"), two, atol=1e-6)
