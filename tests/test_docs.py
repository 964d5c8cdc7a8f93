"""The documentation does what it says: its commands compose, its messages stand in the code."""

import re
import shlex
from pathlib import Path

import pytest

from qaq.run.compose import compose_all, expand

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
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
