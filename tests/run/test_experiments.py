"""Every experiment at every scale is composed of what its header and its page say."""

import re
from pathlib import Path

import pytest

from qaq.host.plugins import conf_dir
from qaq.run.compose import compose

ROOT = conf_dir().parent
NAMES = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))

# Pool, rows of it, scorers, target, suites
SMALL = ("stdlib", 1000, "embedded:gemma3-270m", "embedded:smollm2-135m-instruct",
         "embedded:gemma3-270m", ["mini"])  # fmt: skip
DEEPSEEK, BOTH = "deepseek-ai/deepseek-coder-6.7b-base", ["humaneval", "mbpp"]
PAPER = ("HuggingMicah/warrior_reproduce", None, DEEPSEEK, "Qwen/Qwen3-0.6B", DEEPSEEK, BOTH)
MAGPIE = ("Magpie-Align/Magpie-Qwen2.5-Coder-Pro-300K-v0.1", *PAPER[1:])
CODE = ("gpteacher", *SMALL[1:5], BOTH)
CODER = "embedded:qwen2.5-coder-0.5b-instruct"
CODERS = ("coders", 600, "embedded:qwen2.5-coder-1.5b-instruct", CODER, CODER, BOTH)
PILOT = (*CODERS[:5], ["humaneval"])
QUICK = ("stdlib", 64, *SMALL[2:4], "embedded:smollm2-135m-instruct", ["mini"])

# What an experiment is where it is not `SMALL` and `PAPER`, and words of its pages that say so.
OTHERS = {
    "transfer_magpie": (SMALL, MAGPIE, "scale=paper takes Magpie-Qwen2.5-Coder-Pro-300K"),
    "controlled_noise": ((SMALL[0], 260, *SMALL[2:]), (PAPER[0], 260, *PAPER[2:]), "260 functions"),
    "quickstart": (QUICK, QUICK, "SmolLM2 is fine-tuned on a quarter"),
    "small_code": (CODE, CODE, "1,000 of the 4,535 code instructions of GPTeacher"),
    "coder_noisy": (CODERS, CODERS, "600 of the 703 packaged pairs"),
    "coder_pilot": (PILOT, PILOT, "600 of the 703 packaged pairs"),
    "small_code_noisy": (CODE, CODE, "1,000 rows of GPTeacher"),
}


def composed(name: str, folder: Path, *overrides: str):
    file = folder / "codegen-instruct.json"
    file.write_text("[]")
    pool = [f"data.path={file}"] if name.startswith("small_code") else []
    return compose([f"experiment={name}", *overrides, *pool])


def facts(config) -> tuple:
    models = (config.models.strong.id, config.models.weak.id, config.models.target.id)
    pool = config.data.hub_id or config.data.name
    return (pool, config.data.limit, *models, list(config.benchmark.suites))


@pytest.mark.parametrize("scale", [None, "small", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_made_of_what_its_pages_say(name, scale, tmp_path):
    config = composed(name, tmp_path, *([f"scale={scale}"] if scale else []))
    small, paper, words = OTHERS.get(name, (SMALL, PAPER, ""))
    assert facts(config) == (paper if scale == "paper" else small)
    assert config.experiment == name
    fixed = small == paper
    assert (config.system_prompt is not None) == (scale == "paper" and not fixed)
    header = (conf_dir() / "experiment" / f"{name}.yaml").read_text().replace("\n# ", " ")
    page = (ROOT / "experiments" / name / "README.md").read_text()
    assert words in header + " ".join(page.split())


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_named_on_the_command_line_is_the_pool_at_every_scale(name, tmp_path):
    for scale in ("small", "paper"):
        config = compose([f"experiment={name}", f"scale={scale}", "data=magpie_coder"])
        assert config.data.hub_id == MAGPIE[0]
        config = compose([f"experiment={name}", f"scale={scale}", "data=stdlib"])
        assert (config.data.source, config.data.hub_id) == ("stdlib", None)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_page_composes(name, tmp_path):
    page = (ROOT / "experiments" / name / "README.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^    qaq (?:run|plan) (experiment=\S+)( scale=\w+)?", page, re.M)
    commands = found or re.findall(r"`qaq run (experiment=\S+?)(`)", page)
    assert commands
    for experiment, scale in commands:
        assert experiment == f"experiment={name}"
        composed(name, tmp_path, *scale.strip("` ").split())
