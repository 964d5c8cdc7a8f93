"""The documentation does what it says: its commands compose, its messages stand in the code."""

import re
import shlex
from pathlib import Path

import pytest

from qaq.arguments import parse
from qaq.run.compose import compose_all, expand

ROOT = Path(__file__).parents[1]
PROBE = ROOT / "docs" / "extending.md"  # whose commands `test_extending.py` carries out
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "experiments").glob("*/README.md"))


def commands(page: Path) -> list[str]:
    """The lines that begin with qaq in shell blocks, fenced or indented, without their comments."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    lines = [line for block in fenced for line in block.splitlines()]
    lines += re.findall(r"^    (qaq .*)$", text, re.M)
    parts = [part.strip() for line in lines for part in re.split(r"[;&|] ", line.split(" # ")[0])]
    return [part for part in parts if part.startswith("qaq ") and "…" not in part]


SHOWN = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}: {command[:70]}")
    for page in PAGES
    if page != PROBE
    for command in dict.fromkeys(commands(page))
]


@pytest.mark.parametrize("command", SHOWN)
def test_every_command_of_the_documentation_is_one_and_composes(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pairs.jsonl", "mbpp.jsonl", "HumanEvalPlus.jsonl", "MbppPlus.jsonl"):
        Path(name).write_text("{}\n")
    Path("codegen-instruct.json").write_text("[]")
    words = [re.sub(r"^FILE$|=FILE$", lambda m: m[0].replace("FILE", "pairs.jsonl"), word)
             for word in shlex.split(command)[1:]]  # fmt: skip
    parse(words)
    if words[0] in ("run", "plan", "show", "fetch", "gc"):
        if "hydra/launcher=" in command:
            pytest.importorskip("submitit", reason="needs the extra slurm")
        for part in " ".join(words).split(" --keep ")[1:] or [" ".join(words)]:
            overrides = [word for word in part.split() if re.match(r"[+]?[\w/@.]+=", word)]
            assert not overrides or compose_all(expand(overrides))


def test_the_pages_show_commands_at_all():
    assert len(SHOWN) > 60


def test_every_message_of_the_troubleshooting_page_stands_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 15
    code = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # strings that are written over several lines
    assert [m for m in messages if m not in joined] == []
