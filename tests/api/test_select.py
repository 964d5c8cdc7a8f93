"""`qaq select` and `qaq score` through the command line; real stages, a tiny model."""

import io
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qaq.api.select import nearest
from qaq.api.source import form_of, gathered
from qaq.api.work import Keep, metrics_named, override
from qaq.arguments import parse
from qaq.cli import main
from qaq.host.errors import UserError
from qaq.run.compose import compose
from qaq.scoring.metrics import METRICS

WORDS = ["sum", "product", "largest", "first", "mean", "length"]
ROWS = [
    {"instruction": f"Return the {w} of {n} numbers.", "output": f"return {w}(x[:{n}])", "n": n}
    for n in range(2, 9)
    for w in WORDS
]


@pytest.fixture(scope="module")
def place(tiny_model, tmp_path_factory):
    """`qaq(…)` in a folder with pairs.jsonl: two lines of it are no rows of the pool."""
    folder = tmp_path_factory.mktemp("select")
    lines = [json.dumps(row, separators=(",", ": ")) for row in ROWS]
    lines[3:3] = [lines[0], json.dumps({"instruction": "Nothing.", "output": ""})]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    tiny = [f"models.strong.id={tiny_model}", "models.strong.chat_template=null"]
    tiny += ["models.strong.dtype=float32", "runtime.device=cpu", "runtime.shard_rows=16"]

    def qaq(*arguments, code=0, given=None):
        done = subprocess.run(
            [sys.executable, "-m", "qaq.cli", *arguments],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return SimpleNamespace(folder=folder, qaq=qaq, tiny=tiny, lines=lines)


def read_lines(path):
    return path.read_text().splitlines()


def test_the_command_that_goes_on_reads_the_kept_records_as_all_were_read(place):
    renamed = [{"the task": row["instruction"], "code": row["output"]} for row in ROWS]
    (place.folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in renamed))
    fields = ["--fields", "question=the task,answer=code", "data.system=drop"]
    said = place.qaq("select", "own.jsonl", "--keep", "9", "-o", "own9.jsonl", *fields, *place.tiny)
    command = said.split("        qaq run ")[1].split("   # fine-tune")[0]
    data = [word for word in shlex.split(command) if word.startswith("data")]
    shown = place.qaq("show", *data)
    assert "fields:\n    question: the task\n    answer: code" in shown
    assert "system: drop" in shown
    assert "9 rows, 0 quarantined" in place.qaq("run", *data, "selector=full", "train=none")


def test_the_better_part_is_written_as_it_came_and_a_second_size_reads_the_same_scores(place):
    scored = ["--scores", "scores.parquet"]
    said = place.qaq(
        "select", "pairs.jsonl", "--keep", "25%", "-o", "a.jsonl", *scored, *place.tiny
    )
    kept = read_lines(place.folder / "a.jsonl")
    assert len(kept) == 10  # round(0.25 * 42)
    assert kept == [line for line in place.lines if line in kept]
    assert "read 44, unreadable 0" in said
    assert "2 of 44 rows of the source are not in the pool: 1 duplicate, 1 empty_answer" in said
    assert "kept 10: 23.8% of the 42 that the rule can choose from" in said
    assert said.count("\n  kept ") == said.count("\n  dropped ") == 2
    assert said.splitlines()[1].startswith("3 stages, 3 to make: about ")
    assert "qaq audit pairs-rmi_middle-0.25-" in said
    table = pd.read_parquet(place.folder / "scores.parquet")
    assert table["position"].tolist() == [*range(1, 45)]
    assert set(table["file"]) == {"pairs.jsonl"}
    assert [place.lines[i] for i in table.index[table["kept"]]] == kept
    outputs = ["-o", "b.jsonl", "--for", "trl"]
    said = place.qaq("select", "pairs.jsonl", "--keep", "7", *outputs, *place.tiny)
    assert "3 stages, 1 to make" in said
    assert len(read_lines(place.folder / "b.jsonl")) == 7
    assert set(read_lines(place.folder / "b.jsonl")) <= set(kept)  # the middle of the middle
    assert "trl: b.trl.py" in said
    assert '"b.jsonl"' in (place.folder / "b.trl.py").read_text().replace("'", '"')


def test_artifacts_that_were_damaged_are_named_and_made_again_to_the_same_choice(place):
    choose = ["select", "pairs.jsonl", "--keep", "8", "-o", "c.jsonl", "--force", *place.tiny]
    choose += ["--store", "damaged"]
    place.qaq(*choose)
    before = (place.folder / "c.jsonl").read_bytes()
    store = place.folder / "damaged"
    files = [next(store.glob(f"{kind}/*/**/*.parquet")) for kind in ("pairs", "scores", "subset")]
    for file in files:
        file.write_bytes(bytes(file.stat().st_size))
    said = place.qaq(*choose)
    assert all(f"damaged: {file}; making it again" in said for file in files)
    assert (place.folder / "c.jsonl").read_bytes() == before
    assert "damaged:" not in place.qaq(*choose)


def test_a_table_of_scores_has_a_row_for_every_record_and_says_why_one_has_none(place):
    place.qaq("score", "pairs.jsonl", "-o", "all.parquet", *place.tiny)
    table = pd.read_parquet(place.folder / "all.parquet")
    assert len(table) == len(place.lines)
    assert {"file", "position", "row_id", "truncated", "reason", *METRICS} <= set(table.columns)
    unscored = table[table["reason"].notna()]
    assert unscored["position"].tolist() == [4, 5]
    assert unscored["reason"].iloc[0] == "duplicate: question and answer are those of row 1"
    assert unscored["reason"].iloc[1].startswith("empty_answer")
    assert unscored["rmi"].isna().all()
    scored = table.drop(unscored.index)
    assert scored[["rmi", "r_ifd", "ifd_loss_ratio", "ifd_ppl_ratio"]].notna().all(axis=None)
    assert scored["r_ifd"].to_numpy() == pytest.approx(np.exp(-scored["rmi"].to_numpy()))


def test_standard_input_patterns_and_folders_are_read(place):
    text = "\n".join(json.dumps([row["instruction"], row["output"]])[1:-1] for row in ROWS)
    text = "prompt,completion\n" + text.replace('", "', '","') + "\n"
    place.qaq("select", "-", "--by", "random", "--keep", "50%", "-o", "r.csv", given=text)
    kept = read_lines(place.folder / "r.csv")
    assert kept == [line for line in text.splitlines() if line in kept]
    assert len(kept) == 1 + 21
    shards = place.folder / "shards"
    shards.mkdir()
    for number in (0, 1):
        (shards / f"{number}.jsonl").write_text("\n".join(place.lines[number::2]))
    ordered = [*place.lines[0::2], *place.lines[1::2]]
    for name in ("shards", "shards/*.jsonl"):
        out = ["-o", "s.jsonl", "--force"]
        place.qaq("select", name, "--by", "full", *out, "data.max_unreadable=0.1")
        kept = read_lines(place.folder / "s.jsonl")
        assert kept == [line for line in dict.fromkeys(ordered) if "Nothing" not in line]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pairs.jsonl", "-o", "x.jsonl"], "how much is to be kept"),
        (["pairs.jsonl", "--keep", "0", "-o", "x.jsonl"], "expected a share"),
        (["pairs.jsonl", "--keep", "half", "-o", "x.jsonl"], "expected a share"),
        (["pairs.jsonl", "--keep", "2.5", "-o", "x.jsonl"], "expected a share"),
        (["pairs.jsonl", "--keep", "25%"], "add -o FILE"),
        (["--keep", "25%", "-o", "x.jsonl"], "which records"),
        (["none.jsonl", "--keep", "25%", "-o", "x.jsonl"], "no such file: none.jsonl"),
        (["pairs.jsonl", "--keep", "25%", "-o", "no/x.jsonl"], "there is no folder no"),
        (["pairs.jsonl", "--keep", "25%", "-o", "x.parquet"], "the records are JSONL"),
        (["pairs.jsonl", "--keep", "25%", "-o", "pairs.jsonl", "--force"], "one of the files"),
        (["pairs.jsonl", "--keep", "9", "--by", "full", "-o", "x.jsonl"], "a size of its own"),
        (["pairs.jsonl", "--keep", "9", "--by", "rmi_ban", "-o", "x.jsonl"], "did you mean"),
        (["pairs.jsonl", "--keep", "99", "--by", "random", "-o", "x.jsonl"], "only 42 can be"),
        (["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "data.path=y"], "stand by themselves"),
        (["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "data.turns=each"], "one row here"),
        (["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--fields", "q=a"], "question=NAME"),
        (
            ["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--fields", "question=a,answer=a"],
            "each once",
        ),
        (["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--scores", "x.csv"], "in .parquet"),
        (
            ["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--page", "x.jsonl"],
            "named for two outputs",
        ),
        (
            ["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--page", "pairs.jsonl", "--force"],
            "one of the files",
        ),
        (["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--by", "[1]"], "no name of a rule"),
        (["", "--keep", "9", "-o", "x.jsonl"], "name is empty"),
        (
            ["pairs.jsonl", "--keep", "9", "-o", "x.jsonl", "--fields", "question=q,answer=a"],
            "data.fields names q",
        ),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_file(place, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(place.folder)
    assert main(["select", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (place.folder / "x.jsonl").exists()


def test_an_override_may_be_longer_than_a_files_name():
    long = "system_prompt=" + "a" * 999
    given = parse(["select", "pairs.jsonl", long])
    assert (given.files, given.overrides) == (["pairs.jsonl"], [long])


@pytest.mark.parametrize("text", ["best (25%).jsonl", "a,b.jsonl", "lr=1/best.jsonl", "1", "null"])
def test_any_name_can_stand_in_an_override(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path(text).parent.mkdir(exist_ok=True)
    Path(text).touch()
    fields = ["data.fields.question=q", override("data.fields.answer", text)]
    data = compose(["data=jsonl", override("data.path", text), *fields]).data
    assert (str(data.path), data.fields.answer) == (text, text)


def test_files_of_several_forms_or_of_none_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"a": 1}')
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "notes").write_text("hello")
    with pytest.raises(UserError, match=r"a\.jsonl is jsonl, b\.json is json"):
        gathered([str(tmp_path)]).__enter__()
    (tmp_path / "POOL.CSV").write_text("[a],b")
    assert form_of(tmp_path / "POOL.CSV") == "csv"
    with pytest.raises(UserError, match="neither a name in"):
        gathered([str(tmp_path / "notes")]).__enter__()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'[{"a": 1}]')))
    with gathered(["-"]) as (form, files):
        assert (form, files[0].read_bytes()) == ("json", b'[{"a": 1}]')
    assert not files[0].exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25%", Keep(ratio=0.25)),
        ("0.25", Keep(ratio=0.25)),
        (" 2.5 %", Keep(ratio=0.025)),
        ("1.0", Keep(ratio=1.0)),
        ("1", Keep(count=1)),
        ("5000", Keep(count=5000)),
    ],
)
def test_how_much_is_a_share_or_a_number(text, expected):
    assert Keep.of(text) == expected


def test_all_metrics_are_every_one_under_its_own_name():
    assert metrics_named(["all"]) == {name: name for name in METRICS}
    assert metrics_named(["rmi", "ifd"]) == {"rmi": "rmi", "ifd": "ifd_loss_ratio"}


@pytest.mark.parametrize(
    "command", [["select", "--keep", "9", "-o", "9.jsonl"], ["score", "-o", "scores.parquet"]]
)
def test_a_card_that_is_not_here_is_refused_before_anything_is_made(
    place, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("qaq.host.hardware.cuda_devices", lambda: ())
    models = [text for text in place.tiny if "device" not in text]
    words = [command[0], str(place.folder / "pairs.jsonl"), *command[1:]]
    assert main([*words, *models, "runtime.device=cuda"]) == 2
    assert "runtime.device=cuda: the installed PyTorch" in capsys.readouterr().err
    assert not list(tmp_path.glob("artifacts/*/*/manifest.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "k_center", "--model", "own/x"], "what it reads: models.target.id=own/x"),
        (["--by", "k_center", "--model", "qwen3_0_6b"], "model@models.target=qwen3_0_6b"),
        (["--by", "ifd_superfiltering", "--model", "own/x"], "what it reads: --weak own/x"),
        (["--by", "ifd_clusters", "--weak", "own/x"], "--model own/x or models.target.id=own/x"),
        (["--by", "rmi_middle", "--weak", "own/x"], "--weak: rmi_middle does not read it"),
        (["--by", "longest", "--weak", "own/x"], "what it reads: --model own/x"),
        (["--by", "random", "--model", "own/x"], "random reads neither scores nor vectors"),
    ],
)
def test_a_model_that_the_rule_does_not_read_is_refused(tmp_path, capsys, words, said):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    keep = ["--keep", "1", "-o", str(tmp_path / "kept.jsonl")]
    assert main(["select", str(path), *keep, *words, "--store", str(tmp_path / "store")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_the_model_that_makes_the_vectors_is_named(place, tiny_model):
    target = [f"models.target.id={tiny_model}", "models.target.chat_template=null"]
    command = ["select", "pairs.jsonl", "--by", "k_center", "--keep", "9", "-o", "far.jsonl"]
    said = place.qaq(*command, *target, "models.target.dtype=float32", "runtime.device=cpu")
    assert f"{tiny_model.name} (vectors)" in said
    assert len(read_lines(place.folder / "far.jsonl")) == 9


def test_the_examples_are_those_next_to_the_cuts():
    assert nearest(np.array([True, True, True, False, False, False])) == [1, 2, 3, 4]
    assert nearest(np.array([False, False, True, True, True, True, False])) == [2, 5, 1, 6]
    assert nearest(np.array([True, True, True])) == [0, 1]
    assert nearest(np.array([], bool)) == []


def compared(kept: list[bool]) -> list[int]:
    """The same by comparing every row with every change."""
    cuts = [at for at in range(1, len(kept)) if kept[at] != kept[at - 1]]

    def distance(at: int) -> int:
        return min((abs(2 * at + 1 - 2 * cut) for cut in cuts), default=at)

    sides = ([at for at, yes in enumerate(kept) if yes is side] for side in (True, False))
    return [at for side in sides for at in sorted(sorted(side, key=distance)[:2])]


def test_rows_nearest_to_a_change_are_those_that_a_comparison_of_all_finds():
    chance = np.random.default_rng(0)
    for size in range(60):
        for share in (0.1, 0.5, 0.9):
            kept = chance.random(size) < share
            assert nearest(kept) == compared(kept.tolist())


def test_rows_scattered_over_a_large_pool_take_no_second():
    kept = np.arange(300_000) % 2 == 0
    started = time.monotonic()
    assert nearest(kept) == [0, 2, 1, 3]
    assert time.monotonic() - started < 1


def test_system_turns_are_in_the_prompts_or_said_to_be_left_out_and_records_stay(place):
    records = [row | {"system": f"Count to {i % 3}."} for i, row in enumerate(ROWS[:24])]
    lines = [json.dumps(record) for record in records]
    (place.folder / "spoken.jsonl").write_text("\n".join(lines) + "\n")
    found = {}
    for way in ("framing=chat", "framing=plain"):
        outputs = ["-o", "spoken_best.jsonl", "--force"]
        said = place.qaq("select", "spoken.jsonl", "--keep", "25%", *outputs, way, *place.tiny)
        kept = read_lines(place.folder / "spoken_best.jsonl")
        assert len(kept) == 6
        assert set(kept) < set(lines)
        found[way] = said
    chat, plain = found.values()
    assert "24 rows bring a system turn of their own; the framing has them in their prompts" in chat
    assert "24 rows have a system turn of their own; framing=plain with" in plain
    assert "the framing has no place for them: left out" in plain
