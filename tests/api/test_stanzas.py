"""What `--for` writes is what the trainer reads: by documented form, and nightly by its own code.

LLaMA-Factory documents dataset_info.json in its data/README.md; its parser forgets the defaults of
columns and tags once some are given. Axolotl documents `datasets:` under "Dataset Formats".
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from qaq.api.stanzas import form_of_records, stanza_file, write_stanza
from qaq.data import sources
from qaq.data.config import DataConfig, Fields
from qaq.host.errors import UserError

ALPACA = [
    {"instruction": "Add.", "input": "1, 2", "output": "3"},
    {"instruction": "Say a.", "input": "", "output": "a"},
]
CHATS = [
    {
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": f"q{n}"},
            {"from": "gpt", "value": f"a{n}"},
        ]
    }
    for n in range(3)
]
OWN = [{"task": "t", "solved": "s", "qaq": {"rmi": 1.0}}]


@pytest.fixture
def written(tmp_path):
    """Write records and a trainer's part for them; returns where that is."""

    def write(trainer, records, name="best.jsonl", fields=None):
        out = tmp_path / name
        if name.endswith("csv"):
            cells = [json.dumps(list(r.values()))[1:-1].replace('", "', '","') for r in records]
            out.write_text("\n".join([",".join(records[0]), *cells]))
        else:
            out.write_text("\n".join(map(json.dumps, records)))
        source = "csv" if name.endswith("csv") else "jsonl"
        config = DataConfig(name="test", source=source, path=out)
        form = form_of_records(sources.read(config), fields)
        return write_stanza(trainer, out, form, source, force=True)

    return write


@pytest.mark.parametrize("name", ["best.jsonl", "best.csv"])
def test_trl_gets_conversations_of_prompt_and_completion(written, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = list(runpy.run_path(str(written("trl", ALPACA, name)))["dataset"]())
    assert rows[0] == {
        "prompt": [{"role": "user", "content": "Add.\n\n1, 2"}],
        "completion": [{"role": "assistant", "content": "3"}],
    }
    assert rows[1]["prompt"] == [{"role": "user", "content": "Say a."}]


def test_trl_gets_turns_under_its_own_names(written):
    rows = list(runpy.run_path(str(written("trl", CHATS)))["dataset"]())
    assert [set(row) for row in rows] == [{"messages"}] * 3
    assert [t["role"] for t in rows[1]["messages"]] == ["system", "user", "assistant"]
    assert [t["content"] for t in rows[1]["messages"]] == ["Be kind.", "q1", "a1"]


def test_fields_of_ones_own_are_named_to_every_trainer(written):
    fields = Fields(question="task", answer="solved")
    rows = list(runpy.run_path(str(written("trl", OWN, fields=fields)))["dataset"]())
    assert rows[0]["prompt"][0]["content"] == "t"
    info = json.loads(written("llamafactory", OWN, fields=fields).read_text())
    assert info["best"]["columns"] == {"prompt": "task", "response": "solved"}
    entry = OmegaConf.load(written("axolotl", OWN, fields=fields)).datasets[0]
    assert (entry.type.field_instruction, entry.type.field_output) == ("task", "solved")


def test_llamafactory_gets_an_entry_beside_those_that_are_there(written, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "mine.json"}}')
    info = json.loads(written("llamafactory", ALPACA).read_text())
    assert info["mine"] == {"file_name": "mine.json"}
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    assert info["best"] == {"file_name": "best.jsonl", "formatting": "alpaca", "columns": columns}
    info = json.loads(written("llamafactory", CHATS).read_text())
    assert info["best"]["formatting"] == "sharegpt"
    assert info["best"]["columns"] == {"messages": "conversations"}
    tags = info["best"]["tags"]
    assert (tags["role_tag"], tags["content_tag"]) == ("from", "value")
    assert (tags["user_tag"], tags["assistant_tag"], tags["system_tag"]) == (
        *("human", "gpt"),
        "system",
    )
    form = form_of_records(ALPACA, None)
    with pytest.raises(UserError, match="has an entry best already"):
        write_stanza("llamafactory", tmp_path / "best.jsonl", form, "jsonl", force=False)


SYSTEMS = [ALPACA[0] | {"system": "Be kind."}, ALPACA[1] | {"system": None}]


def test_a_column_of_system_turns_is_named_to_every_trainer(written):
    info = json.loads(written("llamafactory", SYSTEMS).read_text())
    assert info["best"]["columns"]["system"] == "system"
    entry = OmegaConf.load(written("axolotl", SYSTEMS)).datasets[0]
    assert entry.type.field_system == "system"
    rows = list(runpy.run_path(str(written("trl", SYSTEMS)))["dataset"]())
    assert [[t["role"] for t in row["prompt"]] for row in rows] == [["system", "user"], ["user"]]
    assert rows[0]["prompt"][0]["content"] == "Be kind."
    chats = [{"system": "Be kind.", "conversations": CHATS[0]["conversations"][1:]}]
    info = json.loads(written("llamafactory", chats).read_text())
    assert info["best"]["columns"] == {"messages": "conversations", "system": "system"}
    (row,) = runpy.run_path(str(written("trl", chats)))["dataset"]()
    assert [t["role"] for t in row["messages"]] == ["system", "user", "assistant"]


def test_axolotl_gets_its_documented_fields(written, tmp_path):
    entry = OmegaConf.load(written("axolotl", ALPACA)).datasets[0]
    assert (entry.path, entry.ds_type) == (str(tmp_path / "best.jsonl"), "json")
    parts = {"instruction": "Add.", "input": "1, 2"}
    assert entry.type.format.format(**parts) == "Add.\n\n1, 2\n\n"
    assert entry.type.no_input_format.format(**parts) == "Add.\n\n"
    entry = OmegaConf.load(written("axolotl", CHATS)).datasets[0]
    assert (entry.type, entry.field_messages) == ("chat_template", "conversations")
    assert entry.message_property_mappings == {"role": "from", "content": "value"}


@pytest.mark.parametrize(
    "records",
    [
        [ALPACA[0], CHATS[0]],
        [{"text": "### Instruction:\na\n\n### Response:\nb"}],
        [
            CHATS[0],
            {"conversations": [{"from": "user", "value": "q"}, {"from": "gpt", "value": "a"}]},
        ],
        [ALPACA[0], {"instruction": "a", "context": "b", "output": "c"}],
    ],
)
def test_records_that_no_names_describe_are_refused(records):
    with pytest.raises(UserError, match="--for: "):
        form_of_records(records, None)


def test_a_file_that_the_trainer_does_not_read_is_refused(tmp_path):
    for name in ("best.jsonl.gz", "best.jsonl.GZ"):
        with pytest.raises(UserError, match="no packed files"):
            stanza_file("llamafactory", tmp_path / name)
    assert stanza_file("trl", tmp_path / "best.jsonl.gz").name == "best.trl.py"
    for name in ("best.tsv", "best.jl"):
        with pytest.raises(UserError, match=r"\.jsonl or \.csv"):
            stanza_file("axolotl", tmp_path / name)
    out = tmp_path / "best.csv"
    out.write_text("instruction;output\na;b\n")
    form = form_of_records([{"instruction": "a", "output": "b"}], None)
    with pytest.raises(UserError, match="reads CSV with commas"):
        write_stanza("trl", out, form, "csv", force=False)


TRAINERS = ["llamafactory==0.9.5", "axolotl==0.19.0"]


@pytest.mark.nightly
def test_the_trainers_own_code_reads_it(written, tiny_model, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    done = subprocess.run([*pip, str(tmp_path / "trainers"), *TRAINERS], check=False)
    if done.returncode:
        pytest.skip("LLaMA-Factory and Axolotl cannot be installed here")

    def read(trainer, records, folder):
        stanza = written(trainer, records, f"{folder}.jsonl")
        script = Path(__file__).with_name("trainers.py")
        command = [sys.executable, str(script), str(tmp_path / "trainers"), trainer, str(stanza)]
        run = subprocess.run(
            [*command, str(tiny_model)], capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        stanza.unlink()
        return json.loads(run.stdout.splitlines()[-1])

    assert read("llamafactory", ALPACA, "one") == [["Add.\n1, 2", "3"], ["Say a.", "a"]]
    assert read("llamafactory", CHATS, "two") == [[f"Be kind.q{n}", f"a{n}"] for n in range(3)]
    pairs = read("axolotl", ALPACA, "three")
    assert [learnt.removesuffix("<|im_end|>") for _, learnt in pairs] == ["3", "a"]
    assert pairs[0][0].startswith("Add.\n\n1, 2\n\n3") and pairs[1][0].startswith("Say a.\n\na")
    turns = read("axolotl", CHATS, "four")
    assert [learnt.strip().removesuffix("<|im_end|>") for _, learnt in turns] == ["a0", "a1", "a2"]
    assert "system\nBe kind." in turns[0][0] and "user\nq0" in turns[0][0]
