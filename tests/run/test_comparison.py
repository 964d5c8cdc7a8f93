"""What the jobs of a sweep are compared as."""

import pytest

from qaq.host.errors import ConfigError
from qaq.reporting.family import contrasts
from qaq.run.comparison import combine
from qaq.run.pipeline import plan
from qaq.run.sweep import jobs_of
from qaq.run.validation import impossible


def comparisons(*overrides: str):
    jobs = jobs_of(list(overrides))
    return jobs, combine(jobs)


def made(configs) -> set[str]:
    """Keys of everything but the reports."""
    return {stage.key for config in configs for stage in plan(config)[:-1]}


def test_selectors_ratios_and_seeds_become_one_comparison_with_the_seeds_of_an_arm_as_one_result():
    jobs, [config] = comparisons("selector=rmi_band,random", "ratio=0.1,0.25", "seed=1,2,3")
    assert len(jobs) == 12
    assert {name: arm.seeds for name, arm in config.arms.items()} == {
        "random-0.1": (1, 2, 3),
        "random-0.25": (1, 2, 3),
        "rmi_band-0.1": (1, 2, 3),
        "rmi_band-0.25": (1, 2, 3),
    }


def test_a_sweep_over_lists_of_seeds_keeps_the_experiment_s_own_names():
    jobs, [config] = comparisons("experiment=table1_main", "seeds=[1],[2],[3]")
    assert len(jobs) == 3
    assert {name: arm.seeds for name, arm in config.arms.items()} == dict.fromkeys(
        ["full", "ifd", "random", "rmi_band_50_75", "rmi_top50"], (1, 2, 3)
    )


def test_the_comparison_needs_exactly_what_the_jobs_make():
    jobs, configs = comparisons("selector=rmi_band,random,full", "ratio=0.1,0.25", "seed=1,2")
    assert made(configs) == made([job.config for job in jobs])


def test_the_pool_is_scored_once_for_each_model_whatever_the_number_of_jobs():
    _, [config] = comparisons(
        "selector=rmi_band,ifd_cherry,random", "ratio=0.05,0.1,0.25,0.5", "seed=1,2,3"
    )
    stages = plan(config)
    counts = {kind: sum(s.kind == kind for s in stages) for kind in ("pairs", "scores", "report")}
    assert counts == {"pairs": 1, "scores": 1, "report": 1}
    assert sum(s.kind == "adapter" for s in stages) == 36


def test_full_is_one_arm_at_every_ratio():
    _, [config] = comparisons("selector=full,random", "ratio=0.1,0.25")
    assert sorted(config.arms) == ["full", "random-0.1", "random-0.25"]


def test_options_of_one_method_keep_their_own_names():
    _, [config] = comparisons("selector=rmi_band_25_50,rmi_band_50_75")
    assert sorted(config.arms) == ["rmi_band_25_50", "rmi_band_50_75"]


def test_a_swept_recipe_is_an_arm_and_a_swept_pool_is_another_comparison():
    _, [config] = comparisons("selector=random", "train.learning_rate=1e-4,5e-4")
    assert sorted(config.arms) == ["random-learning_rate=0.0001", "random-learning_rate=0.0005"]
    rates = {plan_.config.train.learning_rate for plan_ in plan(config) if plan_.kind == "adapter"}
    assert rates == {1e-4, 5e-4}
    _, configs = comparisons("selector=random,full", "data.limit=100,200", "ratio=0.5")
    assert len(configs) == 2
    assert all(len(config.arms) == 2 for config in configs)


def family(config) -> list[tuple[str, str]]:
    """The comparisons that the report tests."""
    report = plan(config)[-1].config
    return contrasts(report.primary, report.arms)


def test_what_an_experiment_declares_is_compared_at_each_swept_value():
    jobs, [config] = comparisons("experiment=table1_main", "train.learning_rate=1e-4,2e-4")
    assert not impossible(config)
    rates = ("learning_rate=0.0001", "learning_rate=0.0002")
    own = jobs[0].config.primary
    assert config.primary.comparisons == tuple(
        (f"{a}-{rate}", f"{b}-{rate}") for rate in rates for a, b in own.comparisons
    )
    assert config.primary.as_good == tuple(f"{a}-{rate}" for rate in rates for a in own.as_good)
    jobs, [config] = comparisons("experiment=table1_main", "seeds=[1],[2]")
    assert config.primary == jobs[0].config.primary  # over seeds an arm is one
    _, [config] = comparisons("experiment=table1_main", "ratio=0.1,0.25")
    assert not impossible(config)
    assert ("random-0.1", "full") in config.primary.comparisons


def test_a_sweep_keeps_one_assay_and_is_refused_where_it_would_make_several():
    sweep = ["experiment=coder_noisy", "train.learning_rate=1e-4,2e-4"]
    with pytest.raises(ConfigError, match=r"run each value by itself, or add primary\.assay=null"):
        comparisons(*sweep)
    _, [config] = comparisons(*sweep, "primary.assay=null")
    assert len(config.primary.comparisons) == 12 and config.primary.as_good == ()
    _, [config] = comparisons("experiment=coder_noisy", "seeds=[2],[3]")
    assert config.primary.assay == ("undamaged", "random")


def test_arms_are_held_against_all_rows_and_chance_of_their_own_recipe():
    _, [config] = comparisons("selector=full,random,ifd_cherry", "train.learning_rate=1e-4,2e-4")
    found = family(config)
    assert len(found) == len(set(found)) == 6
    assert all(a.split("=")[1] == b.split("=")[1] for a, b in found)
    [job] = jobs_of(["experiment=table1_main", "rivals=equal_steps", "primary.comparisons=null"])
    expected = [("ifd", "random"), ("ifd_steps", "random_steps")]
    expected += [(arm, "full") for arm in ("ifd", "ifd_steps", "random_steps")]
    assert set(expected) <= set(family(job.config))


def test_an_experiment_with_arms_can_be_swept():
    jobs, [config] = comparisons("experiment=quickstart", "ratio=0.1,0.25")
    assert {"full", "random-0.1", "random-0.25", "ifd-0.1"} <= set(config.arms)
    assert made([config]) == made([job.config for job in jobs])


def test_a_command_is_quoted_for_the_shell():
    [job] = jobs_of(["data.limit=5", 'system_prompt="say it"'])
    assert job.command == "qaq run data.limit=5 'system_prompt=\"say it\"'"
