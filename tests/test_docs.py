"""The documentation does what it says: its commands compose, its examples are carried out."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qaq.run.compose import compose_all, expand

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^<!-- (?P<where>[^\n]+?) -->\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
PROBE = ROOT / "docs" / "extending.md"


def commands(page: Path) -> list[str]:
    shell = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)
    return [line for block in shell for line in block.splitlines() if line.startswith("qaq ")]


def overrides(command: str) -> list[str]:
    words = shlex.split(command.split(" & ", maxsplit=1)[0])
    return [word for word in words if re.match(r"[\w/@.]+=", word)]


RUNS = [
    pytest.param(command, id=command[:60])
    for page in DOCS
    if page != PROBE
    for command in commands(page)
    if "=" in command
]


@pytest.mark.parametrize("command", RUNS)
def test_every_command_of_the_docs_composes(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("{}\n")
    if "hydra/launcher=" in command:
        pytest.importorskip("submitit", reason="needs the extra slurm")
    for part in command.split(" --keep ")[1:] or [command]:
        assert compose_all(expand(overrides(part)))


def test_every_message_of_the_troubleshooting_page_stands_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 15
    code = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # strings that are written over several lines
    assert [m for m in messages if m not in joined] == []


def apply(where: str, text: str, root: Path) -> None:
    """Carry out one step of the worked examples on a copy of the project."""
    path, _, place = where.partition(", ")
    file = root / path
    if not place:
        file.write_text(text)
        return
    content = file.read_text()
    how, _, anchor = place.partition(": ")
    assert not anchor or anchor in content, f"{where}: there is no such place"
    if how == "before":
        content = content.replace(anchor, text + anchor, 1)
    elif how == "after every":
        content = content.replace(f"{anchor}\n", f"{anchor}\n{text}")
    elif how == "after":
        content = content.replace(f"{anchor}\n", f"{anchor}\n{text}", 1)
    elif how == "instead of":
        content = content.replace(anchor, text.rstrip("\n"), 1)
    else:
        assert how == "after the last line", where
        content += text
    file.write_text(content)


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the project in which every step of docs/extending.md has been taken."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, root / folder)
    steps = list(BLOCK.finditer(PROBE.read_text()))
    assert len(steps) > 10
    for step in steps:
        apply(step["where"], step["text"], root)
    return root


def python(root: Path, code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *(["-c", code] if code else []), *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", commands(PROBE))
def test_the_commands_of_the_worked_examples_plan(extended, command):
    out = python(extended, "", "-m", "qaq.cli", "plan", *overrides(command))
    assert "to run" in out


SELECT = """
import pyarrow as pa
from qaq.store.tables import SCORES
from qaq.scoring.metrics import METRICS
from qaq.selection.config import Shortest
from qaq.selection.pool import build_pool
from qaq.selection.rules import select

ids = [f"{n:016x}" for n in range(6)]
tokens = [3, 9, 40, 8, 12, 90]
scores = [
    dict.fromkeys(SCORES.names) | {"row_id": i, "tokens_q": 10, "tokens_a": t, "nll_a": 1.0}
    for i, t in zip(ids, tokens)
]
table = pa.Table.from_pylist(scores, schema=SCORES)
pool, _ = build_pool(pa.table({"row_id": ids}), {"strong": table})
print([bool(k) for k in select(Shortest(least=8), pool, ratio=0.4).kept])
print(METRICS["share_q"](pool.scores["strong"]).round(2).tolist())
"""


def test_the_new_selector_keeps_what_it_says_and_the_new_metric_counts(extended):
    kept, shares = python(extended, SELECT).splitlines()
    assert kept == "[False, True, False, True, False, False]"
    assert shares == "[0.77, 0.53, 0.2, 0.56, 0.45, 0.1]"


def test_the_new_data_set_is_read_whole(extended):
    code = (
        "from qaq.run.compose import compose; from qaq.data import sources;"
        "from qaq.data.rows import Pair, read_row;"
        "rows = [read_row(e, 'mine') for e in sources.read(compose(['data=mine']).data)];"
        "print(len(rows), all(isinstance(r, Pair) for r in rows))"
    )
    assert python(extended, code).split() == ["3", "True"]


def test_the_canonical_solutions_of_the_new_benchmark_pass(extended, doctor):
    if not doctor["sandbox"]:
        pytest.skip("no sandbox holds on this machine, and programs are not run without one")
    code = (
        "from pathlib import Path; from qaq.evaluation.judge.judge import canonical_check;"
        "c = canonical_check('mini', Path('strings.jsonl')); print(c.plus_passed, c.tasks)"
    )
    assert python(extended, code).split() == ["2", "2"]
