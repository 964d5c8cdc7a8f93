"""The study stage on real files: page, numbers, tables, figures."""

import json
import re

import pandas as pd
import pytest
from pydantic import TypeAdapter

from qaq.host.errors import DataError
from qaq.studies import stage
from qaq.studies.results import StudyResults

KINDS = ("planted_noise", "metric_agreement", "failure_modes")


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_writes_a_page_that_stands_alone_and_its_numbers(world, kind):
    made = world(clean=120, each=20)
    made.add("strong", made.rmi()).add("weak", made.rmi())
    made.add("strong", made.rmi(), "plain").add("weak", made.rmi(), "plain")
    job = made.job(kind, draws=2)
    summary = stage.run(job)
    page = (job.out / "index.html").read_text()
    assert not re.search(r"<script src|src=\"http|href=\"http", page)
    assert "Provenance" in page and "scores/strong/plain" in page
    results = TypeAdapter(StudyResults).validate_json((job.out / "results.json").read_text())
    assert (results.kind, results.experiment) == (kind, "test")
    for table in results.tables:
        assert (job.out / "tables" / f"{table.name}.csv").is_file()
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert list((job.out / "figures").glob("*.png"))
    said = " ".join((job.out / "summary.txt").read_text().split())
    assert all(sentence in said for sentence in results.verdict)
    assert json.dumps(summary)


def test_the_same_inputs_give_the_same_numbers(world):
    made = world(clean=120, each=20)
    made.add("strong", made.rmi()).add("weak", made.rmi())
    job = made.job("planted_noise", draws=2)
    stage.run(job)
    first = (job.out / "results.json").read_bytes()
    stage.run(job)
    assert (job.out / "results.json").read_bytes() == first


def test_the_numbers_can_be_made_again_from_the_rows_that_a_study_leaves(world):
    made = world(clean=120, each=20)
    made.add("strong", made.rmi(), unscored=(3, 130)).add("weak", made.rmi())
    job = made.job("planted_noise", draws=2)
    stage.run(job)
    rows = pd.read_parquet(job.out / "rows.parquet")
    assert sorted(rows["row_id"]) == sorted(made.ids)
    assert rows["strong/chat/nll_q"].isna().sum() == 2
    assert not {"question", "answer"} & set(rows)
    mean = {
        span: rows[f"strong/chat/nll_{span}"] / rows[f"strong/chat/tokens_{span}"]
        for span in ("q", "q_given_a")
    }
    rmi = mean["q"] - mean["q_given_a"]
    bad, clean = (rmi[mask].dropna() for mask in (rows["defect"] == "echo", rows["defect"].isna()))
    expected = (bad.to_numpy()[:, None] > clean.to_numpy()[None, :]).mean()
    results = json.loads((job.out / "results.json").read_text())
    (table,) = [t for t in results["tables"] if t["name"] == "separation_strong"]
    (line,) = [row for row in table["rows"] if row[0]["value"] == "echo"]
    assert line[table["columns"].index("RMI")]["value"] == pytest.approx(expected, abs=1e-4)
    assert (job.out / "rows.parquet").stat().st_size < 200 * len(rows)


def test_models_that_scored_different_rows_stop_the_study(world, tmp_path):
    made = world(clean=30, each=5)
    made.add("strong", made.rmi())
    made.n, made.ids = made.n - 5, made.ids[:-5]
    made.truth, made.shift, made.question = made.truth[:-5], made.shift[:-5], made.question[:-5]
    made.tokens = {k: v[:-5] for k, v in made.tokens.items()}
    made.add("weak", made.rmi())
    with pytest.raises(DataError, match="5 rows are only in"):
        stage.run(made.job("failure_modes"))


def test_a_rule_that_keeps_nothing_of_a_half_has_no_share_there():
    import numpy as np

    from qaq.studies.results import overlap

    rows = np.ones(20, np.bool_)

    def needs_all(among):
        return among & (np.arange(20) < 6) & (among.sum() == 20)

    found = overlap(needs_all, lambda among: among & (np.arange(20) < 3), rows)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)

    def needs_some(among):
        return among & (np.arange(20) < 6) & among[0]

    found = overlap(needs_some, lambda among: among & (np.arange(20) < 3), rows)
    assert 0 < found.low < found.value < found.high < 1
