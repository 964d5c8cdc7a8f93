"""Plans: which stages, in which order, and what enters their keys."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from qaq.host.errors import ConfigError
from qaq.host.plugins import conf_dir
from qaq.run.compose import compose
from qaq.run.fingerprints import tolerant
from qaq.run.pipeline import plan
from qaq.selection.config import SelectorConfig


def keys(*overrides: str) -> dict[str, str]:
    return {f"{s.kind}/{s.name}": s.key for s in plan(compose(list(overrides)))}


def by_kind(*overrides: str, kind: str) -> list[str]:
    return sorted(s.key for s in plan(compose(list(overrides))) if s.kind == kind)


def test_every_stage_comes_after_its_inputs():
    seen = set()
    for stage in plan(compose(["experiment=quickstart"])):
        assert all(s.key in seen for s in stage.inputs.values())
        seen.add(stage.key)


def test_the_quickstart_scores_twice_and_trains_five_arms():
    stages = plan(compose(["experiment=quickstart"]))
    counts = {k: sum(s.kind == k for s in stages) for k in {s.kind for s in stages}}
    assert counts == {
        "pairs": 1, "scores": 2, "overlaps": 1, "subset": 5, "adapter": 5, "outcomes": 6,
        "report": 1,
    }  # fmt: skip


def test_the_same_command_has_the_same_keys():
    assert keys("experiment=quickstart") == keys("experiment=quickstart")


def test_only_modes_whose_answers_end_elsewhere_now_have_new_outcomes():
    def versions(mode):
        stages = plan(compose(["experiment=quickstart", f"eval.prompt={mode}"]))
        return {s.identity["version"] for s in stages if s.kind == "outcomes"}

    assert versions("chat") == {3}
    assert versions("completion") == versions("evalplus_chat") == {2}


def test_speed_and_place_enter_no_key():
    moved = ["runtime.store=elsewhere", "runtime.token_budget=99", "tracking.wandb=disabled"]
    assert keys() == keys(*moved)


def test_arms_that_differ_in_ratio_share_the_scores():
    assert by_kind("ratio=0.1", kind="scores") == by_kind("ratio=0.5", kind="scores")
    assert by_kind("ratio=0.1", kind="subset") != by_kind("ratio=0.5", kind="subset")


def test_the_seed_enters_a_subset_only_where_chance_plays_a_part():
    fixed, drawn = "selector=rmi_band", "selector=random"
    assert by_kind(fixed, "seed=1", kind="subset") == by_kind(fixed, "seed=2", kind="subset")
    assert by_kind(drawn, "seed=1", kind="subset") != by_kind(drawn, "seed=2", kind="subset")
    assert by_kind(fixed, "seed=1", kind="adapter") != by_kind(fixed, "seed=2", kind="adapter")


def test_a_random_subset_needs_no_scores():
    assert by_kind("selector=random", kind="scores") == []


def test_precision_enters_the_key():
    one = by_kind("models.strong.dtype=float32", kind="scores")
    two = by_kind("models.strong.dtype=bfloat16", kind="scores")
    assert one != two


def test_the_names_of_things_enter_no_key():
    config = compose([])
    renamed = replace(config, data=replace(config.data, name="another name"))
    assert plan(config)[0].key == plan(renamed)[0].key


def test_published_values_enter_the_reports_key_by_content(tmp_path):
    ours = Path(conf_dir()).parent / "experiments" / "table1_main" / "reference.csv"
    copy = tmp_path / "copy.csv"
    copy.write_text(ours.read_text())
    by_name = by_kind("reference=table1_main", kind="report")
    assert by_name == by_kind(f"reference={copy}", kind="report") != by_kind(kind="report")
    copy.write_text(ours.read_text().replace("78.05", "79.05"))
    assert by_name != by_kind(f"reference={copy}", kind="report")


def test_the_paper_s_values_stand_beside_no_pool_of_the_user_s_own(tmp_path):
    pool = tmp_path / "mine.jsonl"
    pool.write_text('{"question": "a", "answer": "b"}\n')
    own = ["experiment=table1_main", "data=jsonl", f"data.path={pool}"]
    assert plan(compose(own[:1]))[-1].config.reference
    assert plan(compose(own))[-1].config.reference is None
    table = tmp_path / "values.csv"
    table.write_text("table,row,data_share,humaneval\nmain,full,1.0,78.0\n")
    shown = plan(compose([*own, f"reference={table}"]))[-1].config.reference
    assert shown == table.read_text()  # of the user's own too


def kinds(*overrides: str) -> dict[str, int]:
    stages = plan(compose(list(overrides)))
    return {kind: sum(s.kind == kind for s in stages) for kind in {s.kind for s in stages}}


def test_without_training_there_are_subsets_and_a_report_and_nothing_else():
    found = kinds("experiment=quickstart", "train=none")
    assert found == {"pairs": 1, "scores": 2, "overlaps": 1, "subset": 5, "report": 1}


def test_rds_plus_embeds_the_pool_and_its_queries_apart(tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text('{"question": "Sort a list."}\n')
    two.write_text('{"question": "Reverse a list."}\n')
    found = [
        {s.name: s.key for s in plan(compose(["selector=rds_plus", f"selector.queries={file}"]))}
        for file in (one, two)
    ]
    assert found[0]["stdlib-smollm2_135m"] == found[1]["stdlib-smollm2_135m"]
    assert found[0]["queries-smollm2_135m"] != found[1]["queries-smollm2_135m"]
    assert found[0]["rds_plus-0.25"] != found[1]["rds_plus-0.25"]


def chosen_by(selector, *overrides):
    """The stages of an experiment with this selector, by kind."""
    config = compose(["train=quick", "untuned=false", "data.limit=20", *overrides])
    rule = TypeAdapter(SelectorConfig).validate_python(selector)
    return {s.kind: s for s in plan(replace(config, selector=rule))}


@pytest.fixture
def targets(tmp_path):
    """Target queries, so that MBPP is not fetched."""
    file = tmp_path / "one.jsonl"
    file.write_text('{"question": "Sort a list."}\n')
    return str(file)


@pytest.mark.parametrize("first", ["rds_plus", "k_center"])
def test_two_rules_over_vectors_read_what_either_reads(targets, first):
    rules = {
        "rds_plus": {"method": "rds_plus", "queries": targets, "max_tokens": 512},
        "k_center": {"method": "k_center", "max_tokens": 512},
    }
    rank = rules.pop("k_center" if first == "rds_plus" else "rds_plus")
    both = {"method": "then", "filter": rules[first], "filter_ratio": 0.5, "rank": rank}
    subset = chosen_by(both)["subset"]
    assert set(subset.inputs) == {"pairs", "embeddings", "queries"}
    assert {subset.inputs[r].config.max_tokens for r in ("embeddings", "queries")} == {512}
    assert str(subset.inputs["queries"].config.queries) == targets


def test_rules_over_different_vectors_cannot_be_joined(targets):
    asks = {"method": "rds_plus", "queries": targets}
    for rank, fault in (
        ({"method": "k_center", "max_tokens": 512}, "rds_plus has max_tokens=2048 and k_center"),
        ({"method": "rds_plus"}, r"rds_plus has queries=.*one.jsonl and rds_plus has queries=None"),
    ):
        both = {"method": "then", "filter": asks, "filter_ratio": 0.5, "rank": rank}
        with pytest.raises(ConfigError, match=fault):
            chosen_by(both)


def test_a_study_refuses_an_arm_that_reads_other_vectors_than_one_before(targets):
    arm = ["+selector@arms.rds_plus.selector=rds_plus", f"arms.rds_plus.selector.queries={targets}"]
    study = plan(compose(["experiment=planted_noise", *arm]))[-1]
    assert {"embeddings", "queries"} <= set(study.inputs)
    for further in (
        ["arms.rds_plus.selector.max_tokens=512"],
        ["+selector@arms.two.selector=rds_plus", f"arms.two.selector.queries={targets}.copy"],
    ):
        Path(f"{targets}.copy").write_text('{"question": "Reverse a list."}\n')
        with pytest.raises(ConfigError, match=r"selector: it reads other (embeddings|queries)"):
            plan(compose(["experiment=planted_noise", *arm, *further]))


FULL, DRAWN = {"method": "full"}, {"method": "random"}
BAND = {"method": "rmi_band", "low": 0.1, "high": 0.4}


@pytest.mark.parametrize(
    ("selector", "share"),
    [
        (FULL, 1.0),
        ({"method": "exclude", "near_duplicates": True, "rule": FULL}, 1.0),
        ({"method": "exclude", "near_duplicates": True, "rule": DRAWN}, 0.5),
        ({"method": "undamaged", "rule": FULL}, 1.0),
        (BAND, 0.3),
        ({"method": "rmi_band", "low": 0.5, "high": 0.75}, 0.25),
        ({"method": "rmi_band"}, 0.5),
        ({"method": "random_matched", "like": BAND}, 0.3),
        ({"method": "then", "filter": DRAWN, "filter_ratio": 0.2, "rank": FULL}, 0.2),
        ({"method": "then", "filter": BAND, "rank": BAND}, 0.09),
        ({"method": "then", "filter": BAND, "rank": DRAWN}, 0.5),
        ({"method": "diff_high", "cut": "threshold"}, 0.5),  # how many that is, nobody knows yet
    ],
)
def test_a_rule_with_a_size_of_its_own_is_trained_by_the_recipe_of_that_size(selector, share):
    assert chosen_by(selector, "ratio=0.5")["adapter"].config.share == share


def test_only_a_clean_pool_needs_the_overlaps_for_its_subset():
    stages = {s.name: s for s in plan(compose(["selector=rmi_band_clean"]))}
    assert set(stages["exclude-0.25"].inputs) == {"pairs", "strong", "overlaps"}


STUDIES = ("planted_noise", "metric_agreement", "scorer_stability", "failure_modes")


def test_the_studies_share_one_scored_pool():
    scored = [
        {s.key for s in plan(compose([f"experiment={name}"])) if s.kind == "scores"}
        for name in STUDIES
    ]
    assert len(set.intersection(*scored)) == 2
    assert len(scored[0]) == 3  # and what the strong model answers when asked about each pair


def test_a_rule_that_asks_the_strong_model_has_a_table_of_its_own():
    stages = {s.name: s for s in plan(compose(["selector=ask_llm"]))}
    subset = stages["ask_llm-0.25"]
    assert set(subset.inputs) == {"pairs", "asked"}
    assert subset.inputs["asked"].config.framing.kind == "ask_llm"
    assert [s.kind for s in stages.values()].count("scores") == 1


def test_a_study_trains_only_the_scorers_that_it_is_told_to():
    assert "adapter" not in kinds("experiment=planted_noise")
    assert kinds("experiment=scorer_stability")["adapter"] == 1
    assert "outcomes" not in kinds("experiment=scorer_stability")


def test_a_tuned_scorer_scores_with_its_adapter():
    stages = plan(compose(["experiment=scorer_stability"]))
    study = stages[-1]
    before, after = (study.inputs[f"scores/{name}/chat"] for name in ("strong", "strong-tuned"))
    assert set(after.inputs) == {"pairs", "adapter"}
    assert before.key != after.key


def test_a_twin_differs_in_precision_alone():
    study = plan(compose(["experiment=failure_modes", "study.twins=[weak]"]))[-1]
    twin = study.inputs["scores/weak-float32/chat"].config.model
    assert twin.dtype == "float32"
    assert replace(twin, dtype="auto").id == study.inputs["scores/weak/chat"].config.model.id


EXPERIMENTS = sorted(file.stem for file in (Path(conf_dir()) / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("scale", ["small", "paper"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_plans_at_both_scales(experiment, scale, tmp_path):
    (tmp_path / "rows.json").write_text("[]")
    pool = (
        [f"data.path={tmp_path}/rows.json"]
        if experiment.startswith(("small_code", "coder"))
        else []
    )
    config = compose([f"experiment={experiment}", f"scale={scale}", *pool])
    with tolerant():  # the Hub's commits and EvalPlus's files may not be looked up here
        stages = plan(config)
    assert stages[-1].kind == ("study" if config.study else "report")
    assert stages[-1].name == experiment


def test_every_rule_comes_once_at_each_ratio_with_each_seed():
    found = plan(compose(["experiment=ratio_sweep", "ratios=[0.1,0.5]", "seeds=[1,2]"]))
    arms = {a.name: (a.ratio, a.seeds) for a in found[-1].config.arms}
    assert arms == {
        "full": (None, (1, 2)),
        **{
            f"{rule}-{r:g}": (r, (1, 2))
            for rule in ("random", "rmi_band", "ifd")
            for r in (0.1, 0.5)
        },
    }
    assert sum(s.kind == "adapter" for s in found) == 7 * 2
    shares = {s.config.share for s in found if s.kind == "adapter"}
    assert shares == {0.1, 0.5, 1.0}


def test_an_arm_may_have_scorers_of_its_own():
    stages = plan(compose(["experiment=model_pairs", "seeds=[1]"]))
    subsets = {s.name: s for s in stages if s.kind == "subset"}
    usual, exchanged = subsets["diff_high-0.25"], subsets["diff_high_exchanged-0.25"]
    assert usual.inputs["strong"].key == exchanged.inputs["weak"].key
    assert usual.inputs["weak"].key == exchanged.inputs["strong"].key
    assert usual.key != exchanged.key
    assert sum(s.kind == "scores" for s in stages) == 2
    assert "read/diff_high_exchanged/strong" in stages[-1].inputs


def test_a_model_that_is_to_write_the_pool_and_cannot_be_looked_up_has_no_key(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ["data=synthetic", "data.synthesis.questioner.id=foo/bar", "train=none"]
    asked += ["data.synthesis.questioner.dtype=float32", "selector=random"]
    with tolerant():
        stages = plan(compose(asked))
    assert [bool(stage.unresolved) for stage in stages] == [True] * len(stages)
