"""The Hub as a source, against a server on this machine that speaks its protocol.

The client reads its address and its offline switch when it is imported, so each look at the Hub is
a process of its own.
"""

import json
import os
import subprocess
import sys

import pytest
from tests.hub import serving

COMMIT = "a" * 40
LINES = [json.dumps({"instruction": f"Say {i}", "response": f"print({i})"}) for i in range(5)]

LOOK = """
import json, sys
from qaq.data import identity, sources
from qaq.data.config import DataConfig
from qaq.host.errors import DataError

said = []
for settings in json.loads(sys.argv[1]):
    config = DataConfig(name="demo", source="hub", **settings)
    try:
        rows = [entry.record["response"] for entry in sources.read(config)]
        said.append([identity.identity(config), sources.label(config), rows])
    except DataError as error:
        said.append(str(error))
print(json.dumps(said))
"""
CONFIGURED = """---
configs:
- config_name: one
  data_files: one.jsonl
- config_name: two
  data_files: two.jsonl
---
# several
"""


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Read data sets in a new process; `offline` cuts it off."""
    home = tmp_path_factory.mktemp("hub")
    files = home / "files"
    files.mkdir()
    (files / "train.jsonl").write_text("\n".join(LINES))
    (files / "README.md").write_text("# demo\n")
    several = home / "several"
    several.mkdir()
    for name in ("one", "two"):
        (several / f"{name}.jsonl").write_text(json.dumps({"response": name}))
    (several / "README.md").write_text(CONFIGURED)
    with serving(home / "served") as hub:
        hub.put("datasets", "me/demo", COMMIT, files)
        hub.put("datasets", "me/several", COMMIT, several)

        def look(*settings, offline=False):
            environment = os.environ | {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(home / "home"),
                "HF_HUB_OFFLINE": "1" if offline else "0",
                "NO_PROXY": "127.0.0.1",
            }
            command = [sys.executable, "-c", LOOK, json.dumps(settings)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=120, check=True
            )
            return json.loads(done.stdout)

        yield look


def test_rows_come_from_the_commit_that_the_branch_means_and_mistakes_are_named(look):
    good, no_split, no_set, no_revision = look(
        {"hub_id": "me/demo"},
        {"hub_id": "me/demo", "split": "validation"},
        {"hub_id": "me/other"},
        {"hub_id": "me/demo", "revision": "gone"},
    )
    rows = [f"print({i})" for i in range(5)]
    assert good == [{"revision": COMMIT, "split": "train"}, "me/demo", rows]
    assert "data.split" in no_split and "'validation'" in no_split
    assert "me/other" in no_set and "data.hub_id" in no_set
    assert "gone" in no_revision and "data.revision" in no_revision


def test_without_a_network_the_cache_answers_but_never_with_another_commit(look):
    look({"hub_id": "me/demo"})
    good, other, unknown = look(
        {"hub_id": "me/demo"},
        {"hub_id": "me/demo", "revision": "b" * 40},
        {"hub_id": "me/other"},
        offline=True,
    )
    assert good[0]["revision"] == COMMIT and len(good[2]) == 5
    assert f"holds {COMMIT}" in other and "b" * 40 in other
    assert "data=parquet" in unknown


def test_of_several_configurations_the_named_one_is_read(look):
    one, two, none, other = look(
        *({"hub_id": "me/several", "hub_config": name} for name in ("one", "two", None, "three"))
    )
    assert [one[2], two[2]] == [["one"], ["two"]]
    assert "['one', 'two']" in none and "data.hub_config" in none
    assert "three" in other and "data.hub_config" in other
