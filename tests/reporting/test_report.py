"""The report stage end to end, on artifacts with known truths."""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from qaq.host.errors import DataError
from qaq.reporting import evidence
from qaq.reporting.assemble import judging
from qaq.reporting.collect import collect
from qaq.reporting.config import ReportStage
from qaq.reporting.contents import summary
from qaq.reporting.schema import FORM, Results
from qaq.reporting.stage import run
from qaq.reporting.tables import make_tables
from qaq.scoring.metrics import spans_of, titles
from qaq.store.jobs import Job
from qaq.store.tables import OVERLAPS, read_json, scores_schema, write_json, write_rows
from qaq.studies.results import StudyResults

from .conftest import SMALL, World, assembled

Make = Callable[..., World]


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A report on arms that differ by chance alone."""
    job = World(folder=tmp_path_factory.mktemp("equal"), **SMALL).build()
    run(job)
    return job


@pytest.fixture
def results(told: Job) -> Results:
    return saved(told)


def words(job: Job) -> Iterator[str]:
    """All text that a reader sees, file by file."""
    unseen = r"<(svg|style|script).*?</\1>|<[^>]*>"
    yield re.sub(unseen, " ", (job.out / "index.html").read_text(), flags=re.S)
    yield (job.out / "summary.txt").read_text()
    for file in sorted((job.out / "tables").iterdir()):
        yield file.read_text()


def saved(job: Job) -> Results:
    return FORM.validate_python(read_json(job.out / "results.json"))


def test_how_answers_ended_stands_beside_the_pass_rates(told: Job, results: Results) -> None:
    for arm in results.arms:
        suite = next(s for s in arm.suites if s.suite == "mini")
        assert suite.answers is not None
        seeds = arm.seeds
        expected = (2 * len(seeds), sum(seeds), 7 * len(seeds))
        assert (suite.answers.at_limit, suite.answers.no_code, suite.answers.cut) == expected
        shown = " / ".join(map(str, expected))
        assert all(shown in " ".join(text.split()) for text in list(words(told))[:2])


def test_outcomes_from_before_the_count_say_what_they_know(world: Make) -> None:
    job = world(**SMALL).build()
    for role, folder in job.inputs.items():
        if role.startswith("outcomes/"):
            write_json(folder / "scores.json", {"finish": {"end": 70, "length": 10}})
    run(job)
    counts = next(s.answers for a in saved(job).arms for s in a.suites)
    assert counts is not None and counts.no_code is None and counts.cut == 0
    assert "/ ? / 0" in (job.out / "summary.txt").read_text()


def test_pass_rates_are_those_of_the_per_problem_rows(told: Job, results: Results) -> None:
    rows = pd.read_parquet(told.out / "per_problem.parquet")
    assert len(rows) == 80 * (5 * 2 + 1)
    for arm in results.arms:
        mine = rows[rows["arm"] == arm.name]
        (suite,) = [s for s in arm.suites if s.suite == "mini"]
        assert suite.plus.value == pytest.approx((mine["plus_passed"] & mine["base_passed"]).mean())
        assert suite.base.value == pytest.approx(mine["base_passed"].mean())
        assert suite.bits_per_byte is not None
        assert suite.bits_per_byte.value == pytest.approx(mine["solution_bits_per_byte"].mean())
        assert suite.plus.n == 80  # tasks, however many seeds
        assert suite.plus.low < suite.plus.value < suite.plus.high


def test_what_is_truly_better_is_called_so_and_what_is_worse_too(results: Results) -> None:
    findings = {
        (c.arm, c.baseline): c.finding for c in results.comparisons if c.family == "primary"
    }
    assert findings == {
        ("random", "full"): "worse",
        ("ifd", "full"): "worse",
        ("ifd", "random"): "no difference shown",
        ("rmi_band", "full"): "no difference shown",
        ("rmi_band", "random"): "better",
        ("diff_high", "full"): "worse",
        ("diff_high", "random"): "no difference shown",
    }
    assert "than full by" in results.verdict[0]
    assert results.loss is not None and results.loss.sensitive
    assert {a.arm: a.shown for a in results.loss.arms} == {
        "random": "inferior",
        "ifd": "inferior",
        "rmi_band": "not shown",
        "diff_high": "inferior",
    }


def test_the_word_better_appears_nowhere_when_no_test_allows_it(equal: Job) -> None:
    found = saved(equal)
    assert {c.finding for c in found.comparisons} == {"no difference shown", "descriptive"}
    for seen in words(equal):
        assert not re.search(r"\bbetter\b|\bworse\b", seen)
    assert "none of the 4 arms differs significantly from full or random" in found.verdict[0]


def test_retention_and_auroc_find_the_planted_truth(told: Job, results: Results) -> None:
    kept = {(r.arm, r.defect): r.kept.value for r in results.retentions}
    assert kept["ifd", "swapped_answer"] == 1
    assert kept["rmi_band", "swapped_answer"] == kept["rmi_band", "echo"] == 0
    assert kept["full", "clean"] == 1
    found = {(s.model, s.score, s.defect): s for s in results.separations}
    assert found["strong", "rmi", "swapped_answer"].direction == "low"
    assert found["strong", "rmi", "echo"].direction == "high"
    for score, defect in (("rmi", "swapped_answer"), ("rmi", "echo"), ("ifd", "swapped_answer")):
        assert found["strong", score, defect].auroc.low > 0.5
    assert found["strong", "rmi", "truncated"].auroc.value == pytest.approx(0.5, abs=0.2)


def test_auroc_agrees_with_counting_pairs_of_rows(told: Job, results: Results) -> None:
    pairs = pd.read_parquet(told.inputs["pairs"] / "pairs.parquet")
    shards = [pd.read_parquet(f) for f in sorted((told.inputs["weak"] / "shards").iterdir())]
    rows = pairs.merge(pd.concat(shards), on="row_id")
    rmi = rows["nll_q"] / rows["tokens_q"] - rows["nll_q_given_a"] / rows["tokens_q_given_a"]
    clean = rmi[rows["defect"].isna() & rmi.notna()].to_numpy()
    bad = rmi[rows["defect"] == "echo"].to_numpy()
    expected = (bad[:, None] > clean[None, :]).mean()
    (found,) = [
        s for s in results.separations if (s.model, s.score, s.defect) == ("weak", "rmi", "echo")
    ]
    assert found.auroc.value == pytest.approx(expected)


def test_what_needs_no_model_stands_beside_the_scores(told: Job, results: Results) -> None:
    pairs = pd.read_parquet(told.inputs["pairs"] / "pairs.parquet")
    length = pairs["answer"].str.len()
    bad, clean = length[pairs["defect"] == "echo"], length[pairs["defect"].isna()]
    gap = bad.to_numpy()[:, None] - clean.to_numpy()[None, :]
    found = {(m.control, m.defect): m.auroc.value for m in results.model_free}
    expected = (gap > 0).mean() + (gap == 0).mean() / 2
    assert found["answer's length", "echo"] == pytest.approx(expected)
    assert {kind for _, kind in found} == {s.defect for s in results.separations}
    assert "What is found of it without a model" in (told.out / "index.html").read_text()


def test_damage_is_compared_with_its_control_where_the_pool_has_it() -> None:
    defects = pd.Series(["echo", "described_code", None, "truncated", None])
    assert evidence.against(defects, "echo").tolist() == [False, True, False, False, False]
    assert evidence.against(defects, "truncated").tolist() == [False, False, True, False, True]
    assert evidence.against(defects[2:], "echo").tolist() == [True, False, True]


@pytest.mark.parametrize("spans", [("a", "a_given_q"), ("q", "q_given_a")])
def test_a_framing_that_scores_only_one_direction_gets_a_report_of_what_it_scored(
    world: Make, spans: tuple[str, str]
) -> None:
    job = world(**SMALL, spans=spans, untuned=False).build()
    run(job)
    found = saved(job)
    assert {s.score for s in found.separations} == {"ifd" if spans[0] == "a" else "rmi"}
    assert (job.out / "figures" / "rmi_map.svg").exists() == (spans[0] == "q")
    assert "separation" in {p.stem for p in (job.out / "tables").iterdir()}


@pytest.mark.parametrize(
    ("asked", "shown"), [(("q", "q_given_a"), "rmi"), (("a", "a_given_q"), "ifd")]
)
def test_a_report_shows_what_the_asked_spans_give_whether_or_not_the_table_holds_more(
    world: Make, asked: tuple[str, str], shown: str
) -> None:
    job = world(**SMALL, untuned=False).build()
    job.config["spans"] = asked
    run(job)
    whole = saved(job)
    assert {s.score for s in whole.separations} == {shown}
    assert {m.name for m in whole.metrics} == {n for n in titles() if spans_of(n) <= set(asked)}
    assert whole.pool is not None and whole.pool.unscored == {"strong": 1, "weak": 1}
    for role in ("strong", "weak"):
        for shard in (job.inputs[role] / "shards").iterdir():
            table = pq.read_table(shard)
            pq.write_table(table.select(scores_schema(asked).names), shard)
    run(job)
    again = saved(job)
    assert (again.separations, again.metrics) == (whole.separations, whole.metrics)


def test_rows_that_a_rule_of_other_spans_can_read_are_not_counted_as_unscored(world: Make) -> None:
    job = world(**SMALL, untuned=False).build()
    job.config["spans"] = ("q", "a_given_q")
    run(job)
    pool = saved(job).pool
    assert pool is not None and pool.unscored == {"strong": 1, "weak": 1}


def test_holdings_count_the_rows_kept(told: Job, results: Results) -> None:
    (ifd,) = [a for a in results.arms if a.name == "ifd"]
    assert ifd.holdings is not None
    assert (ifd.holdings.rows, ifd.holdings.share) == (75, 0.25)
    assert ifd.holdings.defects["swapped_answer"] == 18
    assert sum(ifd.holdings.sources.values()) == 75


def test_costs_add_the_scoring_that_the_rule_reads(results: Results) -> None:
    cost = {a.name: a.cost for a in results.arms}
    assert (cost["full"].training_seconds, cost["full"].scoring_seconds) == (400, None)
    assert (cost["ifd"].training_seconds, cost["ifd"].scoring_seconds) == (100, 60)
    assert cost["diff_high"].scoring_seconds == 90
    assert cost["ifd"].flops == 100_000 * (4 * 268_000_000 + 6 * 2_000_000)
    assert cost["untuned"].training_seconds is None


def test_departures_come_from_the_artifacts_own_configurations(results: Results) -> None:
    said = {d.topic: d.here for d in results.departures}
    assert said["fine-tuned model"] == "gemma3_270m (float32)"
    assert said["batch and learning rate"] == "16 at 0.0002, 8 at 0.0001 (up to 25%)"
    assert said["seeds"] == "2"
    assert "epochs" not in said  # three, as in the paper
    assert results.subject == {
        "pool": "stdlib",
        "fine-tuned model": "gemma3_270m",
        "strong scorer": "gemma3_270m",
        "weak scorer": "smollm2_135m",
    }


def test_departures_say_what_each_adapter_and_each_suite_had(world: Make) -> None:
    job = world(**SMALL | {"suites": {"humaneval": 30, "mbpp": 30}}).build()
    for seed in (1, 2):
        file = job.inputs[f"adapter/rmi_band/{seed}"] / "manifest.json"
        manifest = read_json(file)
        manifest["full_config"]["train"] |= {"learning_rate": 1e-3, "match": "steps", "epochs": 2}
        write_json(file, manifest)
    file = job.inputs["outcomes/rmi_band/1/mbpp"] / "manifest.json"
    manifest = read_json(file)
    manifest["full_config"]["eval"]["max_new_tokens"] = 256
    write_json(file, manifest)
    said = {d.topic: d.here for d in assembled(job).departures}
    small = ", 8 at 0.0001 (up to 25%)"
    assert said["batch and learning rate"] == f"16 at 0.0002{small} or 16 at 0.001{small}"
    assert said["what the arms share"] == "epochs or steps"
    assert said["epochs"] == "3 or 2"
    assert said["new tokens"] == "768 or 256"


def test_the_ranked_table_has_its_differences_as_numbers(told: Job, results: Results) -> None:
    frame = pd.read_csv(told.out / "tables" / "ranking.csv").set_index("method")
    (test,) = [
        c
        for c in results.comparisons
        if (c.family, c.arm, c.baseline) == ("primary", "random", "full")
    ]
    row = frame.loc["random"]
    assert row["against full"] == "worse; inferior"
    assert row["against full value"] == pytest.approx(test.difference)
    assert row["against full low"] == pytest.approx(test.low)
    lines = (told.out / "tables" / "ranking.md").read_text()
    assert "worse; inferior [−" in lines and "[−" not in lines.split("inferior [−")[1].split("]")[0]


def test_a_correlation_says_over_how_many_rows_it_is(results: Results) -> None:
    table = make_tables(results)["correlations"]
    place = [c.title for c in table.columns].index("rows")
    assert [row[place].value for row in table.rows] == [c.rho.n for c in results.correlations]


class Page(HTMLParser):
    """Collects what a page would load, run or name."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")


def test_the_page_loads_nothing_and_its_one_script_sorts_tables(told: Job) -> None:
    text = (told.out / "index.html").read_text()
    page = Page()
    page.feed(text)
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1 and "fetch" not in text
    beside = [link for link in page.links if not link.startswith(("#", "data:"))]
    assert all((told.out / link.partition("#")[0]).is_file() for link in beside)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.tags.count("svg") == len(list((told.out / "figures").glob("*.svg"))) >= 7


def test_every_table_is_there_in_three_forms_with_the_same_numbers(told: Job) -> None:
    names = {f.stem for f in (told.out / "tables").iterdir()}
    assert {"results", "tests_pass", "retention", "separation", "holdings", "cost"} <= names
    for name in names:
        forms = [told.out / "tables" / f"{name}.{ending}" for ending in ("md", "csv", "tex")]
        assert all(f.stat().st_size for f in forms)
    frame = pd.read_csv(told.out / "tables" / "results.csv").set_index("arm")
    results = saved(told)
    for arm in results.arms:
        (suite,) = [s for s in arm.suites if s.suite == "mini"]
        row = frame.loc[arm.name]
        assert row["mini pass@1 (%) plus"] == pytest.approx(suite.plus.value)
        assert row["mini pass@1 (%) plus low"] == pytest.approx(suite.plus.low)


def test_the_summary_shows_the_table_the_noise_and_the_verdict(told: Job) -> None:
    text = (told.out / "summary.txt").read_text()
    assert re.search(r"^rmi_band +75 +2 +\d", text, flags=re.M)
    assert "What each arm keeps of the planted noise" in text
    assert saved(told).verdict[0][:40] in text


def test_the_same_artifacts_give_the_same_bytes(told: Job, tmp_path: Path) -> None:
    again = Job(**{**vars(told), "out": tmp_path})
    run(again)
    for file in ("results.json", "summary.txt", "index.html"):
        assert (tmp_path / file).read_bytes() == (told.out / file).read_bytes()


def test_sections_without_data_are_left_out(world: Make) -> None:
    job = world(noise=False, scored=False, untuned=False, methods={"full": "full"}, **SMALL).build()
    run(job)
    found = saved(job)
    assert found.separations == found.retentions == found.comparisons == ()
    assert found.verdict == (
        "No comparison was declared that could be made, so nothing is claimed.",
    )
    page = (job.out / "index.html").read_text()
    for absent in ("of the planted noise", "Beside the paper", "declared comparisons<", "AUROC"):
        assert absent not in page
    assert sorted(f.stem for f in (job.out / "figures").glob("*.svg")) == ["loss", "quality"]


def test_where_no_bits_were_measured_none_are_shown_and_the_rest_is(world: Make) -> None:
    arms = ["untuned", "full", "random", "ifd", "rmi_band", "diff_high"]
    job = world(bits=dict.fromkeys(arms, np.nan), **SMALL).build()
    run(job)
    found = saved(job)
    assert {c.metric for c in found.comparisons} == {"plus", "base"}
    assert all(s.bits_per_byte is None for arm in found.arms for s in arm.suites)
    assert (job.out / "figures" / "differences.svg").is_file()


def test_a_seed_that_was_not_judged_is_named(world: Make) -> None:
    job = world(**SMALL).build()
    del job.inputs["outcomes/ifd/2/mini"]
    found = assembled(job)
    assert "ifd is incomplete: no outcomes for seed 2 on mini." in found.notes
    assert "ifd is incomplete" in summary(found, make_tables(found))
    (test,) = [
        c
        for c in found.comparisons
        if (c.family, c.arm, c.baseline) == ("primary", "ifd", "random")
    ]
    assert test.seeds == (1, 2)  # all that there are of both


def test_runs_beyond_the_declared_number_are_recorded_and_take_no_part(world: Make) -> None:
    job = world(**SMALL | {"seeds": (1, 2, 3)}).build()
    job.config["primary"] = {"seeds": 2, "comparisons": [["ifd", "random"]], "as_good": ["ifd"]}
    found = assembled(job)
    assert any(
        "random: the runs with seed 3 were added to the 2 declared" in n for n in found.notes
    )
    (test,) = [c for c in found.comparisons if c.family == "primary"]
    assert (test.arm, test.baseline, test.seeds) == ("ifd", "random", (2, 2))
    assert test.p_holm == test.p_value
    described = [c for c in found.comparisons if c.family != "primary"]
    assert {c.finding for c in described} == {"descriptive"}
    assert {c.seeds[0] for c in described} == {3}


def test_a_declared_comparison_that_could_not_be_made_is_said(world: Make) -> None:
    job = world(**SMALL).build()
    job.config["primary"] = {"comparisons": [["ifd", "random"], ["gone", "random"]]}
    found = assembled(job)
    assert "The declared comparison of gone with random was not made: no outcomes." in found.notes


def test_a_suite_that_an_arm_lacks_makes_no_other_comparison_significant(world: Make) -> None:
    job = world(**SMALL | {"suites": {"one": 60, "two": 60}}, lift={"ifd": 0.2}).build()
    pairs = [["ifd", "random"], ["rmi_band", "random"], ["diff_high", "random"]]
    job.config["primary"] = {"comparisons": pairs, "as_good": []}
    whole = {c.arm: c for c in assembled(job).comparisons if c.family == "primary"}
    for seed in (1, 2):
        del job.inputs[f"outcomes/diff_high/{seed}/two"]
    found = assembled(job)
    part = {c.arm: c for c in found.comparisons if c.family == "primary"}
    note = "The declared comparison of diff_high with random was not made: no outcomes."
    assert note in found.notes
    assert set(part) == {"ifd", "rmi_band"}
    assert part["ifd"].p_holm == pytest.approx(3 * part["ifd"].p_value)  # of three, not of two
    assert whole["ifd"].p_holm == pytest.approx(3 * whole["ifd"].p_value)
    assert all(p.comparisons == 3 for p in found.power)


def test_without_the_declared_sign_of_sensitivity_nothing_is_found(world: Make) -> None:
    job = world(**SMALL | {"suites": {"one": 164, "two": 378}}, lift={"ifd": 0.3}).build()
    job.config["primary"] = {"comparisons": [["ifd", "random"], ["rmi_band", "random"]]}
    findings = [{c.arm: c.finding for c in assembled(job).comparisons if c.family == "primary"}]
    for assay in (["ifd", "random"], ["rmi_band", "random"]):
        job.config["primary"]["assay"] = assay
        found = assembled(job)
        findings.append({c.arm: c.finding for c in found.comparisons if c.family == "primary"})
    assert findings[0]["ifd"] == "better" and findings[1] == findings[0]
    assert set(findings[2].values()) == {"no difference shown"}
    assert found.verdict[0].startswith("No assay sensitivity: rmi_band is not shown to be better")


def test_an_arm_that_was_declared_to_have_one_run_lacks_none(world: Make) -> None:
    job = world(**SMALL).build()
    job.config["primary"] = {"seeds": 3, "comparisons": [["ifd", "random"]], "as_good": []}
    notes = assembled(job).notes
    assert "ifd has 2 of the 3 declared runs." in notes
    assert not any(note.startswith(("full has", "diff_high has")) for note in notes)
    del job.config["primary"]["as_good"]  # then every arm is compared with full
    assert "diff_high has 2 of the 3 declared runs." in assembled(job).notes


def test_arms_judged_on_different_tasks_are_refused(world: Make) -> None:
    job = world(**SMALL).build()
    for seed in (1, 2):
        file = job.inputs[f"outcomes/ifd/{seed}/mini"] / "per_problem.parquet"
        pd.read_parquet(file).iloc[1:].to_parquet(file)
    with pytest.raises(DataError, match="judged on different tasks"):
        assembled(job)


def test_differing_prompts_and_suspect_programs_are_pointed_out(world: Make) -> None:
    job = world(**SMALL).build()
    file = job.inputs["outcomes/full/1/mini"] / "per_problem.parquet"
    rows = pd.read_parquet(file)
    rows.loc[0, "prompt_sha"] = "f" * 64
    rows.loc[:2, "suspect"] = True
    rows.to_parquet(file)
    notes = " ".join(assembled(job).notes)
    assert "1 tasks were put to the arms with different prompts" in notes
    assert "3 programs of full also passed against false expected values" in notes


def test_every_way_in_which_programs_were_judged_is_told() -> None:
    repaired = {"judge": "repaired", "sandbox": "bubblewrap + ring", "flips": 2}
    stock = {"judge": "stock", "sandbox": "landlock + ring"}
    assert judging([{}, repaired, repaired, stock]) == [
        "Programs were judged by EvalPlus (repaired) inside bubblewrap + ring.",
        "Programs were judged by EvalPlus (stock) inside landlock + ring.",
        "4 programs passed only when judged again with twice the time.",
    ]
    assert judging([{}]) == []


def touch(job: Job, found: list[tuple[str, str, str]], suites: list[str]) -> None:
    """Give the report an overlaps artifact: (row id, task id, kind) of the first suite."""
    folder = job.inputs["pairs"].parent / "overlaps"
    folder.mkdir()
    manifest = json.loads((job.inputs["pairs"] / "manifest.json").read_text())
    manifest |= {"kind": "overlaps", "full_config": {"suites": suites}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = [
        {"row_id": row, "benchmark": suites[0], "task_id": task, "kind": kind, "evidence": "words"}
        for row, task, kind in found
    ]
    write_rows(folder / "overlaps.parquet", rows, OVERLAPS)
    job.inputs["overlaps"] = folder


def test_overlaps_with_the_benchmark_are_counted_in_the_pool_and_in_each_subset(
    world: Make,
) -> None:
    job = world(**SMALL | {"seeds": (1,)}).build()
    assert assembled(job).contamination == ()
    subset = pd.read_parquet(job.inputs["subset/rmi_band/1"] / "rows.parquet")
    (a, b), c = (
        subset.loc[subset["kept"], "row_id"][:2],
        subset.loc[~subset["kept"], "row_id"].iloc[0],
    )
    touch(
        job,
        [(a, "0", "exact"), (a, "1", "exact"), (b, "1", "prompt_run"), (c, "2", "entry_point")],
        ["mini", "mbpp"],
    )
    results = assembled(job)
    by_subset = {(r.benchmark, r.subset): r for r in results.contamination}
    pool, band = by_subset["mini", "pool"], by_subset["mini", "rmi_band"]
    kinds = {"exact": 1, "prompt_run": 1, "solution_run": 0, "entry_point": 1}
    assert (pool.rows, pool.touched, pool.tasks) == (kinds, 2, 2)
    assert pool.share == 2 / len(subset)
    assert (band.rows, band.touched) == (kinds | {"entry_point": 0}, 2)
    assert by_subset["mbpp", "pool"].touched == 0  # looked for, and nothing found
    assert "contamination" in make_tables(results)


def test_scores_are_given_again_without_the_problems_that_the_pool_touches(world: Make) -> None:
    job = world(**SMALL | {"seeds": (1,)}).build()
    outcomes = pd.read_parquet(job.inputs["outcomes/full/1/mini"] / "per_problem.parquet")
    tasks = outcomes["task_id"].unique()
    touch(job, [("a", tasks[0], "exact"), ("a", tasks[1], "entry_point")], ["mini"])
    results = assembled(job)
    found = next(u for u in results.untouched if u.arm == "full")
    rest = outcomes[outcomes["task_id"] != tasks[0]]
    assert (found.left_out, found.base.n) == (1, len(tasks) - 1)
    assert found.base.value == pytest.approx(rest["base_passed"].mean())
    assert {u.arm for u in results.untouched} == {a.name for a in results.arms}
    assert "untouched" in make_tables(results)


def test_no_score_is_invented_where_the_pool_touches_every_problem(world: Make) -> None:
    job = world(**SMALL).build()
    outcomes = pd.read_parquet(job.inputs["outcomes/full/1/mini"] / "per_problem.parquet")
    touch(job, [("a", task, "exact") for task in outcomes["task_id"].unique()], ["mini"])
    results = assembled(job)
    assert all(u.base is None and u.plus is None for u in results.untouched)
    assert "untouched" in make_tables(results)


def test_unscored_rows_are_counted_and_take_no_part(results: Results) -> None:
    assert results.pool is not None
    assert results.pool.unscored == {"strong": 1, "weak": 1}
    assert {c.rho.n for c in results.correlations} == {300 - 5 * 18 - 1}  # clean and scored


def test_results_of_another_form_do_not_pass_the_check(told: Job) -> None:
    tree = read_json(told.out / "results.json")
    for change, field in (({"unexpected": 1}, "unexpected"), ({"schema_version": 1}, "schema_ver")):
        with pytest.raises(ValidationError, match=field):
            FORM.validate_python(tree | change)
    tree["arms"][0]["suites"][0]["seeds"][0]["plus"] = 1.2
    with pytest.raises(ValidationError, match=r"arms\.0\.suites\.0\.seeds\.0\.plus"):
        FORM.validate_python(tree)


def test_curves_keep_the_later_of_two_lines_of_one_step(world: Make) -> None:
    job = world(**SMALL).build()
    file = job.inputs["adapter/full/1"] / "training.jsonl"
    with file.open("a") as log:
        log.write('{"time": 1, "step": 5, "loss": 9.5, "learning_rate": 0.1}\n{"torn')
    curves = collect(job.parse(ReportStage), job.inputs).curves
    mine = curves[(curves["arm"] == "full") & (curves["seed"] == 1)]
    assert mine.loc[mine["step"] == 5, "loss"].tolist() == [9.5]
    assert np.all(np.diff(mine["step"]) == 1)


COMMITTED = sorted((Path(__file__).parents[2] / "results").glob("*/results.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_every_committed_result_is_of_its_schema(file: Path) -> None:
    tree = json.loads(file.read_text())
    if "kind" in tree:  # of a study, which trains nothing
        TypeAdapter(StudyResults).validate_python(tree)
    else:
        assert FORM.validate_python(read_json(file)).experiment == file.parent.name
        assert (file.parent / "per_problem.parquet").is_file()


@pytest.mark.parametrize(
    ("name", "departs"), [("gpteacher", True), ("coders", True), ("jsonl", False)]
)
def test_only_a_pool_of_this_project_departs_from_the_paper(
    world: Make, name: str, departs: bool
) -> None:
    job = world(**SMALL).build()
    file = job.inputs["pairs"] / "manifest.json"
    manifest = read_json(file)
    manifest["full_config"]["data"]["name"] = name
    write_json(file, manifest)
    assert bool(assembled(job).departures) is departs


def test_without_training_the_page_says_first_what_was_kept(world: Make) -> None:
    job = world(**SMALL | {"suites": {}, "untuned": False}, methods={"mine": "rmi_band"}).build()
    found = assembled(job)
    assert found.verdict[0] == "mine keeps 75 rows, 25.0% of the pool."
