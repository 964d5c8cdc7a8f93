"""Every framing goes to the report with every rule that fits it, through the command line.

The rules come from `conf/selector`: what is added there is run here. A framing fits a rule if it
scores the spans that the rule reads; the others must say so in one sentence, with exit code 2.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

CONF = Path(__file__).parents[1] / "conf"
FRAMINGS = sorted(file.stem for file in (CONF / "framing").iterdir())
# need weights, queries, a benchmark, damage: own tests
ELSEWHERE = {"scar", "rds_plus", "rmi_band_clean", "undamaged"}
RULES = {file.stem for file in (CONF / "selector").iterdir()} - ELSEWHERE
UNSCORED = {"full", "random", "random_parsing", "word_overlap", "compression"}
UNSCORED |= {"k_center", "random_clusters", "ask_llm"}  # which asks in a framing of its own
ANSWER = {"longest", "ifd", "ifd_cherry", "ifd_superfiltering", "ifd_clusters", "diff_high_ifd"}
QUESTION = {name for name in RULES if name.startswith(("rmi", "r_ifd", "diff", "sum"))} - ANSWER
CEILED = {name for name in RULES if name.startswith("ifd")} - {"ifd_clusters"}
FITTING = {
    name: UNSCORED | (QUESTION | {"random_matched_perplexity"} if name == "authors" else ANSWER)
    for name in FRAMINGS
    if name.startswith(("cherry", "superfiltering", "authors"))
}


@pytest.fixture(scope="module")
def qaq(tiny_model, other_tiny_model, tmp_path_factory):
    """Run `qaq run` on a pool of which every third row has an input part."""
    folder = tmp_path_factory.mktemp("framings")
    chance, rows = random.Random(0), []
    for i in range(36):
        a, b = chance.sample(["list", "number", "string", "file", "tree", "queue"], 2)
        row = {"instruction": f"Turn a {a} into a {b}, number {i}, and say what you did."}
        row |= {"input": f"the {a} is {i}"} if i % 3 == 0 else {}
        answer = f"def {a}_to_{b}_{i}({a}):\n    return convert({a}, {i})"
        rows.append(row | {"output": answer + "\n    # done" * chance.randrange(9)})
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    models = {"strong": tiny_model, "weak": other_tiny_model, "target": tiny_model}
    common = [
        *(f"models.{role}.id={path}" for role, path in models.items()),
        *(f"models.{role}.chat_template=null" for role in models),
        *(f"models.{role}.dtype=float32" for role in models),
        "data=jsonl",
        "data.path=pool.jsonl",
        "train=none",
        "runtime.device=cpu",
        "runtime.store=store",
        "tracking=disabled",
    ]

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "qaq.cli", "run", *arguments, *common],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    run.store = folder / "store"
    return run


def goes_to_the_report(qaq, framing, rules):
    arms = [f"+selector@arms.{rule}.selector={rule}" for rule in rules]
    # random weights find answers no easier after their question
    arms += [f"arms.{rule}.selector.ceiling=10" for rule in rules if rule in CEILED]
    arms = [arm.replace("band.selector.c", "band.selector.filter.c") for arm in arms]
    before = set((qaq.store / "report").glob("*"))
    done = qaq(f"framing={framing}", *arms)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (report,) = set((qaq.store / "report").glob("*")) - before
    assert (report / "index.html").stat().st_size > 0
    subsets = [folder.name for folder in (qaq.store / "subset").iterdir()]
    assert all(any(name.startswith(rule) for name in subsets) for rule in rules)


@pytest.mark.parametrize(
    ("framing", "rules"),
    [
        ("authors", ["full", "rmi_authors"]),
        ("cherry", ["full", "ifd_cherry"]),
        ("superfiltering", ["full", "ifd_superfiltering"]),
        ("r_ifd", ["full", "r_ifd_low", "ifd"]),
    ],
)
@pytest.mark.slow
def test_a_published_framing_goes_to_the_report_with_its_own_rule(qaq, framing, rules):
    goes_to_the_report(qaq, framing, rules)


@pytest.mark.nightly
@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_rule_that_fits_a_framing_goes_to_the_report(qaq, framing):
    goes_to_the_report(qaq, framing, sorted(FITTING.get(framing, RULES)))


def test_a_rule_that_does_not_fit_its_framing_says_which_spans_are_missing(qaq):
    done = qaq("framing=cherry", "selector=rmi_band")
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert "no row has a score of q, q_given_a: if the rule reads that" in said, said
