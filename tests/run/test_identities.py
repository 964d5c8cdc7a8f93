"""What the keys of the experiments' stages are made of, held in `identities.json`.

A refactoring must leave every line as it is: a changed line throws away what users have computed.
Where a change of meaning is wanted, look at the difference and take it over:

    python -m tests.run.test_identities
"""

import json
from pathlib import Path
from typing import Any

import pytest

from qaq.run.compose import compose
from qaq.run.fingerprints import tolerant
from qaq.run.pipeline import plan
from qaq.store.keys import content_key

FILE = Path(__file__).with_name("identities.json")
EXPERIMENTS = {
    "quickstart": [],
    "table1_main": ["scale=small", "seeds=null"],
    "table2_disagreement": ["seeds=null"],
    "transfer_magpie": ["seeds=null"],
    "ratio_sweep": ["seeds=null", "ratios=[0.1,0.5]"],
    "planted_noise": [],
    "metric_agreement": [],
    "failure_modes": [],
}
FIXED = [  # what this machine, or the network, would otherwise decide
    "runtime.device=cpu",
    *(f"models.{role}.dtype=bfloat16" for role in ("strong", "weak", "target")),
]


def identities(experiment: str) -> dict[str, Any]:
    """The identity of each stage, with names for the keys of its inputs; hashes left out.

    So are a report's `settings`, the whole configuration as it will be shown.
    """
    overrides = [f"experiment={experiment}", *EXPERIMENTS[experiment], *FIXED]
    with tolerant():
        stages = plan(compose(overrides))
        named = {stage.key: f"{stage.kind}/{stage.name}" for stage in stages}
        return {
            named[stage.key]: {
                "version": stage.identity["version"],
                "config": {k: v for k, v in stage.identity["config"].items() if k != "settings"},
                "inputs": {role: named[key] for role, key in stage.identity["inputs"].items()},
            }
            for stage in stages
        }


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_what_the_keys_are_made_of_is_what_it_was(experiment):
    expected = json.loads(FILE.read_text())[experiment]
    found = json.loads(json.dumps(identities(experiment)))
    assert sorted(found) == sorted(expected)
    for name, identity in found.items():
        assert identity == expected[name], name


def test_a_key_is_the_hash_of_these_five_parts():
    stage = plan(compose(["data.name=any"]))[0]
    parts = {"stage": "pairs", "version": 2, "inputs": {}}
    rest = {name: stage.identity[name] for name in ("config", "outside")}
    assert stage.key == content_key(parts | rest)
    assert content_key({"b": [1, None], "a": "é"}) == (
        "9b10bedce64e86a275540261fbe95bc6c195bfb10d5def7a5fc12eefcc7d0a87"
    )


def versions(*overrides):
    """What is in the key of a pool beside its configuration and the content of its files."""
    with tolerant():
        found = plan(compose([*overrides, *FIXED]))[0].identity["outside"]
    return {name: v for name, v in found.items() if name not in ("sha256", "unresolved")}


def test_only_pools_that_hold_what_changed_have_other_keys(tmp_path):
    (tmp_path / "pool.json").write_text("[]")
    for noise in ("none", "planted", "all_kinds", "left_to_do", "wrong_answers"):
        for data in ("coders", "stdlib"):
            assert versions(f"data={data}", f"noise={noise}") == {}
    subtle = {"damage_hallucinated": "2", "damage_wrong_code": "2"}
    assert versions("data=coders", "noise=subtle") == subtle
    only = versions("noise=subtle", "noise.shares.wrong_code=0")
    assert only == {"damage_hallucinated": "2"}
    assert versions("data=json", f"data.path={tmp_path}/pool.json") == {"reading": "2"}
    assert versions("data=hub", "data.hub_id=o/n", f"data.revision={'a' * 40}") == {
        "reading": "2",
        "revision": "a" * 40,
        "split": "train",
    }


def test_the_file_that_many_results_rest_on_keeps_its_key(shared_data):
    file = shared_data / "instruct" / "gpteacher_codegen_instruct.json"
    assert versions("data=gpteacher", f"data.path={file}", "noise=planted") == {}


def write() -> None:
    """Take over what the keys are made of now; one line for each stage."""
    blocks = []
    for experiment in EXPERIMENTS:
        lines = [
            f"  {json.dumps(name)}: {json.dumps(identity, sort_keys=True)}"
            for name, identity in identities(experiment).items()
        ]
        blocks.append(f" {json.dumps(experiment)}: {{\n" + ",\n".join(lines) + "\n }")
    FILE.write_text("{\n" + ",\n".join(blocks) + "\n}\n")


if __name__ == "__main__":
    write()
