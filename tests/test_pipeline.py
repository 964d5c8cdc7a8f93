"""Plans: which stages, in which order, and what enters their keys."""

from dataclasses import replace
from pathlib import Path

from qaq.compose import compose
from qaq.models.identity import conf_dir
from qaq.pipeline import plan


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
        "pairs": 1, "scores": 2, "subset": 5, "adapter": 5, "outcomes": 6, "report": 1,
    }  # fmt: skip


def test_the_same_command_has_the_same_keys():
    assert keys("experiment=quickstart") == keys("experiment=quickstart")


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
