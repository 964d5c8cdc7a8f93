"""docs/extending.md to the letter: its files into a folder, its commands by the command line."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^<!-- (?P<where>[^\n]+?) -->\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
SHELL = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
COMMANDS = [line for block in SHELL for line in block.splitlines()]


@pytest.fixture(scope="module")
def stranger(tiny_model, other_tiny_model, tmp_path_factory):
    """A folder with the page's files, and a shell in it whose models are tiny."""
    folder = tmp_path_factory.mktemp("stranger")
    for block in BLOCK.finditer(PAGE.read_text()):
        file = folder / block["where"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block["text"])
    models = {"strong": tiny_model, "weak": other_tiny_model, "target": tiny_model}
    common = [
        *(f"models.{role}.id={path}" for role, path in models.items()),
        *(f"models.{role}.chat_template=null" for role in models),
        *(f"models.{role}.dtype=float32" for role in models),
        "runtime.device=cpu",
        "runtime.store=store",
        "tracking=disabled",
    ]

    def run(command: str, *more: str, check=True):
        words = shlex.split(command)
        name = words[1]
        if name in ("run", "plan"):
            own = "data=" in command
            more = (*more, *common, *(() if own else ("data.limit=40",)))
        elif name != "judge":
            more = (*more, "--store", "store")
        done = subprocess.run(
            [sys.executable, "-m", "qaq.cli", *words[1:], *more],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    run.folder = folder
    return run


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_the_page_has_one_file_for_each_thing():
    files = [block["where"] for block in BLOCK.finditer(PAGE.read_text())]
    assert len(files) == len(set(files)) > 7
    assert not [f for f in files if f.startswith(("src/", "conf/", "tests/"))]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_does_what_the_page_says(stranger, command):
    if command.startswith("QAQ_PATH"):
        environment = os.environ | {"QAQ_PATH": str(stranger.folder / "mine")}
        words = shlex.split(command)[1:]
        assert words[:3] == ["python", "-m", "pytest"]
        quiet = ["-v", "-k", "shortest or nats_per_byte_a"]
        done = subprocess.run(
            [sys.executable, *words[1:], *quiet],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 9
        return
    said = stranger(command).stdout
    if " plan " in command:
        assert "to run" in said
    if "selector=shortest" in command:
        report = only(stranger.folder, "store/report/*/results.json")
        results = json.loads(report.read_text())
        assert [arm["method"] for arm in results["arms"]] == ["shortest"]
        assert {"nats per byte of A", "RMI"} <= {m["title"] for m in results["metrics"]}
        page = report.with_name("index.html").read_text()
        assert "nats per byte of A" in page and "shortest" in page
    if " judge " in command:
        assert "2 tasks, 2 samples\npass@1 base 0.500, plus 0.500\nfailures: wrong 1" in said
        assert (stranger.folder / "answers_eval_results.json").is_file()
    if " audit " in command:
        assert "keeps 4 of 40 rows" in said
    for name, rows in (("forum", 3), ("csv_pairs", 2)):
        if f"data={name}" in command:
            counts = only(stranger.folder, f"store/pairs/{name}-*/counts.json")
            assert json.loads(counts.read_text())["kept"] == rows


def test_an_edited_rule_chooses_anew_and_an_edited_metric_reports_anew(stranger):
    command = next(c for c in COMMANDS if "selector=shortest" in c)
    assert " ran " not in stranger(command).stdout
    rule = stranger.folder / "mine" / "shortest.py"
    text = rule.read_text()
    rule.write_text(text.replace("length >= config.least", "length >= config.least + 1"))
    said = stranger(command).stdout
    assert re.findall(r"^ *\d+ of \d+ +(\w+) .* ran ", said, re.M) == ["subset", "report"]
    rule.write_text(text)
    metric = stranger.folder / "mine" / "bytes_of_answer.py"
    text = metric.read_text()
    metric.write_text(text + "# a note\n")
    said = stranger(command).stdout
    assert re.findall(r"^ *\d+ of \d+ +(\w+) .* ran ", said, re.M) == ["report"]
    metric.write_text(text)


@pytest.mark.parametrize(
    ("file", "old", "new", "arguments", "message"),
    [
        ("shortest.py", "score = np.where", "score = np.wherever", "", "AttributeError"),
        ("shortest.py", "label = cut_highest", "label = 1 / 0 or cut_highest", "", "ZeroDivision"),
        ("shortest.py", "class Shortest", "class Shortest(", "", "SyntaxError"),
        ("bytes_of_answer.py", '"bytes_a"', '"bytes_b"', "", "KeyError"),
        ("arrow.py", "=start,\n        q_to", "=1 / 0,\n        q_to", "framing=arrow", "ZeroDiv"),
        ("csv_pairs.py", '"task"', '"tusk"', "data=csv_pairs data.path=pairs.csv", "KeyError"),
    ],
)
def test_a_fault_in_a_file_is_named_with_its_line_and_exit_code_2(
    stranger, file, old, new, arguments, message
):
    command = next(c for c in COMMANDS if "selector=shortest" in c)
    path = stranger.folder / "mine" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        done = stranger(f"{command} {arguments}", check=False)
    finally:
        path.write_text(text)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(rf"{re.escape(file)}:\d+: .*{message}", done.stdout + done.stderr)
    assert "Traceback (most" not in done.stdout + done.stderr


def test_code_blocks_of_the_page_are_formatted_and_clean():
    for block in BLOCK.finditer(PAGE.read_text()):
        if not block["where"].endswith(".py"):
            continue
        for check in (["check", "-"], ["format", "--check", "-"]):
            done = subprocess.run(
                [Path(sys.executable).with_name("ruff"), *check],
                input=block["text"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, block["where"] + done.stdout + done.stderr
