"""What the command line accepts and what it refuses, through real Hydra composition."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from qaq.arguments import parse
from qaq.host.errors import ConfigError
from qaq.host.plugins import conf_dir
from qaq.models.config import ModelConfig
from qaq.run import sweep
from qaq.run.compose import compose, expand
from qaq.run.config import arms_of


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (conf_dir() / group).glob("*.yaml"))


# Options that need a field of their own before they make sense.
NEEDS = {
    ("data", "jsonl"): ["data.path={file}"],
    ("data", "json"): ["data.path={file}"],
    ("data", "csv"): ["data.path={file}"],
    ("data", "gpteacher"): ["data.path={file}"],
    ("data", "parquet"): ["data.path={file}"],
    ("data", "hub"): ["data.hub_id=owner/name"],
    ("experiment", "small_code"): ["data.path={file}"],
    ("experiment", "small_code_noisy"): ["data.path={file}"],
}


def needed(group: str, option: str, folder: Path) -> list[str]:
    file = folder / "rows.jsonl"
    file.write_text("{}\n")
    return [text.format(file=file) for text in NEEDS.get((group, option), [])]


GROUPS = [
    "data",
    "noise",
    "framing",
    "selector",
    "train",
    "benchmark",
    "eval",
    "tracking",
    "runtime",
    "scale",
    "rivals",
]


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group in GROUPS for option in options(group)]
)
def test_every_option_of_every_group_composes(group, option, tmp_path):
    compose([f"{group}={option}", *needed(group, option, tmp_path)])


@pytest.mark.parametrize("role", ["strong", "weak", "target"])
@pytest.mark.parametrize("model", options("model"))
def test_every_model_composes_in_every_role(role, model):
    own = [f"models.{role}.id=hub"] if model == "hub" else []
    config = compose([f"model@models.{role}={model}", *own])
    assert getattr(config.models, role).name == model


@pytest.mark.parametrize("role", ["strong", "weak", "target"])
@pytest.mark.parametrize("chosen", [[], ["scale=paper"], ["experiment=quickstart"], ["model=hub"]])
def test_another_id_keeps_nothing_of_the_preset(role, chosen):
    model = getattr(compose([*chosen, f"models.{role}.id=/models/Other-1B"]).models, role)
    assert model == ModelConfig(id="/models/Other-1B", name="Other-1B")


def test_what_is_set_beside_another_id_stays():
    own = ["models.weak.id=owner/Own", "models.weak.chat_template=chatml", "models.weak.name=mine"]
    for chosen in ([], ["model@models.weak=qwen3_0_6b"]):
        weak = compose([*chosen, *own, "models.weak.dtype=float32"]).models.weak
        assert weak == ModelConfig(
            id="owner/Own", name="mine", chat_template="chatml", dtype="float32"
        )


def test_the_presets_own_id_changes_nothing():
    same = compose(["models.strong.id=embedded:gemma3-270m"]).models.strong
    assert same == compose([]).models.strong


def test_a_run_is_named_and_the_name_is_all_that_changes():
    named = compose(["experiment=quickstart", "name=my_experiment"])
    plain = compose(["experiment=quickstart"])
    assert (named.experiment, plain.experiment) == ("my_experiment", "quickstart")
    assert replace(named, experiment=plain.experiment) == plain
    assert compose(["name=2024"]).experiment == "2024"
    with pytest.raises(ConfigError, match="name: found ''; expected a name"):
        compose(["name="])


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"models\.weak\.name.*called out"):
        compose(["models.strong.id=/a/out", "models.weak.id=/b/out"])


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_composes(experiment, tmp_path):
    extra = needed("experiment", experiment, tmp_path)
    assert compose([f"experiment={experiment}", *extra]).experiment == experiment


ONE_SIZE = {"coder_noisy", "coder_pilot", "quickstart", "small_code", "small_code_noisy"}
FEW_ROWS = {"controlled_noise": 260}  # at every scale, since it says so


@pytest.mark.parametrize("experiment", sorted(set(options("experiment")) - ONE_SIZE))
def test_every_other_experiment_composes_at_the_papers_size(experiment):
    config = compose([f"experiment={experiment}", "scale=paper"])
    pool = "magpie_coder" if experiment == "transfer_magpie" else "warriorcoder"
    assert config.data.name == pool and config.data.limit == FEW_ROWS.get(experiment)
    assert config.models.strong.name == "deepseek_coder_6_7b"
    assert config.system_prompt is not None
    assert config.system_prompt.startswith("You are an AI programming assistant, utilizing the ")
    assert config.system_prompt.endswith("computer science questions, you will refuse to answer.\n")


@pytest.mark.parametrize("experiment", sorted(set(options("experiment")) - ONE_SIZE))
def test_every_other_experiment_composes_with_a_model_that_can_code(experiment):
    config = compose([f"experiment={experiment}", "scale=coder"])
    assert config.data.source == "coders" and config.system_prompt is None
    names = (config.models.strong.name, config.models.weak.name, config.models.target.name)
    assert names == ("qwen2_5_coder_1_5b_instruct", *["qwen2_5_coder_0_5b_instruct"] * 2)
    assert list(config.benchmark.suites) == ["humaneval", "mbpp"]


def test_the_command_line_outweighs_the_scale():
    config = compose(["experiment=planted_noise", "data.limit=7", "train=paper"])
    assert (config.data.limit, config.train.name) == (7, "paper")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=scorer_stability", "train=none"], "study.tuned: a scorer is to be"),
        (
            ["experiment=failure_modes", "study.framings.plain.name=other"],
            "study.framings.plain: it must have the name of its key",
        ),
        (["experiment=failure_modes", "framing=plain"], "study.framings.plain"),
        (
            ["experiment=planted_noise", "noise=none"],
            "noise.shares: planted_noise looks for damage",
        ),
        (
            ["experiment=failure_modes", "noise=none"],
            "noise.shares: failure_modes looks for damage",
        ),
        (
            ["experiment=planted_noise", "+model@arms.ifd.strong=smollm2_135m"],
            "arms.ifd.strong: a study reads every arm's scores from models.strong",
        ),
        (
            ["experiment=planted_noise", "+model@arms.diff_low.weak=gemma3_270m"],
            "arms.diff_low.weak: a study reads every arm's scores from models.weak",
        ),
        (["experiment=coder_noisy", "primary.assay=[full,random]"], "primary.assay: it must be"),
        (["experiment=coder_noisy", "primary.assay=[gone,random]"], "there is no arm gone"),
        (["+selector@arms.untuned.selector=random"], "the model before training is called"),
    ],
)
def test_a_study_that_cannot_run_is_refused_by_field(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ratio=0", "ratio: found 0; input should be greater than 0"),
        ("ratio=1.5", "ratio: found 1.5; input should be less than or equal to 1"),
        ("ratio=much", "ratio: found 'much'"),
        ("data.limit=0", "data.limit: found 0"),
        ("selector=nonsense", "nonsense"),
        ("train.nonsense=1", "nonsense"),
        ("data.limt=5", "limt"),
        ("data=jsonl", "data.path: source=jsonl needs a file"),
        ("data=jsonl data.path=missing.jsonl", "no such file: missing.jsonl"),
        ("eval.samples=5", "eval.temperature"),
        ("noise.shares={echo:0.6,truncated:0.5}", "they add up to 1.1"),
        ("framing.reverse_instruction=nothing", "must hold {answer}"),
        ("reference=none.csv", "reference: neither a file nor an experiment"),
    ],
)
def test_a_mistake_is_refused_by_name(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(override.split(" "))


def test_numbers_that_are_none_are_refused_together():
    limits = ["train.max_grad_norm", "train.loss_bound", "eval.min_time_limit", "train.lora.alpha"]
    with pytest.raises(ConfigError) as caught:
        compose([f"{limit}=inf" for limit in limits])
    found = [problem.partition(": found inf; expected a finite number") for problem in
             caught.value.problems]  # fmt: skip
    assert {path for path, said, _ in found if said} == set(limits) and len(found) == 4
    with pytest.raises(ConfigError) as caught:
        compose(["train.loss_rise=nan", "noise.shares={echo:inf}", *(f"{x}=inf" for x in limits)])
    assert len(caught.value.problems) == 6


def test_the_home_of_the_user_may_be_written_within_quotes(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("rows.jsonl", "more.jsonl", "problems.jsonl"):
        (tmp_path / name).write_text("{}\n")
    data = ["data=jsonl", 'data.path=["~/rows.jsonl","~/more.jsonl"]']
    given = compose(['runtime.store="~/store"', 'benchmark.files={mini:"~/problems.jsonl"}', *data])
    assert given.runtime.store == tmp_path / "store"
    assert given.data.path == (tmp_path / "rows.jsonl", tmp_path / "more.jsonl")
    assert given.benchmark.resolved["mini"].file == tmp_path / "problems.jsonl"
    assert parse(["status", "--store=~/store"]).store == tmp_path / "store"
    [job] = sweep.jobs_of(['runtime.store="~/a store"', "selector=random"])
    assert compose(sweep._handed(job)).runtime.store == tmp_path / "a store"
    assert f'runtime.store="{tmp_path}/a store"' in sweep._handed(job)  # for Hydra's own folder


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        compose(["ratio=2", "seed=x", "train.epochs=-1", "data.limit=nothing"])
    assert len(caught.value.problems) == 4


def test_all_misspelt_overrides_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        compose(["raito=0.2", "data.limt=5", "train.epoks=2", "seed=2"])
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert all(name in text for name in ("mean ratio?", "mean limit?", "mean epochs?"))


def test_all_wrong_choices_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        compose(["data=nonsense", "selector=rmi_bnad"])
    assert len(caught.value.problems) == 2
    assert "did you mean rmi_band?" in str(caught.value)


def test_a_selector_that_does_not_exist_is_told_with_those_that_do():
    with pytest.raises(ConfigError, match="rmi_band"):
        compose(["selector=nonsense"])


def test_a_sweep_expands_to_one_list_of_overrides_per_job():
    jobs = expand(["selector=random,full", "ratio=0.1,0.2", "seed=3"])
    assert len(jobs) == 4
    assert ["selector=random", "ratio=0.1", "seed=3"] in jobs


def test_the_yaml_files_hold_no_absolute_path():
    for file in Path(conf_dir()).rglob("*.yaml"):
        assert not re.search(r"[:\s]/(home|root|work|Users)/", file.read_text()), file


def test_quarters_at_equal_steps_stand_beside_those_at_equal_epochs():
    before = arms_of(compose(["experiment=table1_main"]))
    arms = arms_of(compose(["experiment=table1_main", "rivals=equal_steps"]))
    added = {name: arm for name, arm in arms.items() if name not in before}
    assert {name: arms[name] for name in before} == before
    assert set(added) == {
        f"{rule}_steps" for rule in ("random", "rmi_band_50_75", "ifd", "diff_high")
    }
    for name, arm in added.items():
        assert arm.train == replace(before["full"].train, match="steps")
        assert (arm.ratio, arm.seeds) == (0.25, (1, 2, 3))
        if name.removesuffix("_steps") in before:
            assert arm.selector == before[name.removesuffix("_steps")].selector


@pytest.mark.parametrize("left_out", ["~arms.k_center", "~selector@arms.k_center.selector"])
def test_an_arm_of_an_experiment_can_be_left_out(left_out):
    arms = compose(["experiment=planted_noise"]).arms
    assert set(compose(["experiment=planted_noise", left_out]).arms) == set(arms) - {"k_center"}


def test_a_study_of_agreement_needs_no_damage():
    assert compose(["experiment=metric_agreement", "noise=none"]).noise.shares == {}


def test_a_layout_of_a_study_can_be_left_out_as_its_page_says():
    study = compose(["experiment=metric_agreement", "~study.framings.cherry"]).study
    assert set(study.framings) == {"plain", "authors"}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["arms={rmi/top:{selector:{method:random}}}"], "arms: .* found rmi/top, take rmi_top"),
        (
            ["experiment=planted_noise", "framing.name=my/plain"],
            "framing.name: .* found my/plain, take my_plain",
        ),
    ],
)
def test_a_name_with_a_slash_is_refused_before_anything_runs(overrides, name):
    with pytest.raises(ConfigError, match=name):
        compose(overrides)
