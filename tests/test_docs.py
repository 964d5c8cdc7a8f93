"""The documentation does what it says: its commands run, its messages stand in the code.

What trains or scores for minutes is planned, stage by stage, as `qaq plan` does; every other
command is executed as it is written, in a folder with a user's files and a filled store. Its models
are tiny; `test_the_readme_…` has the embedded ones (slow).
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qaq.arguments import parse
from qaq.models import embedded
from qaq.plan.planning import plan_lines
from qaq.run import runner
from qaq.run.compose import compose
from qaq.run.pipeline import Run
from qaq.store.store import Store
from qaq.store.tables import PER_PROBLEM, write_json, write_rows

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


def shown() -> dict[str, str]:
    """Every command by itself, with the page that shows it first."""
    found: dict[str, str] = {}
    for page in PAGES:
        if page != PROBE:
            for command in commands(page):
                found.setdefault(command, str(page.relative_to(ROOT)))
    return found


SHOWN = shown()
PLANNED = ("run", "plan", "fetch")  # fetch takes what the same run would
REFUSED = ("sync", "doctor")  # a server and a key; a session's fixture runs it (test_doctor.py)
WHOLE_SUITES = "MbppPlus.jsonl"  # 378 prompts to count
SLOW = (WHOLE_SUITES, "qaq judge")


def marked(command: str, page: str):
    slow = any(part in command for part in SLOW)
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(command, id=f"{page}: {command[:70]}", marks=marks)


def write_files(folder: Path) -> None:
    """The files that the pages speak of."""
    words = ("sum", "product", "largest", "mean")
    rows = [
        {"instruction": f"Return the {w} of {n} numbers.", "output": f"return {w}(x[:{n}])"}
        for n in range(2, 14)
        for w in words
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "codegen-instruct.json").write_text(json.dumps(rows))
    (folder / "mbpp.jsonl").write_text(
        "".join(
            json.dumps({"task_id": n, "text": f"Add {n}.", "code": f"def f(x): return x + {n}"})
            + "\n"
            for n in range(9)
        )
    )


@pytest.mark.parametrize(
    "command", [marked(c, p) for c, p in SHOWN.items() if shlex.split(c)[1] in PLANNED]
)
def test_what_takes_long_is_planned_with_every_stage(command, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_files(tmp_path)
    if WHOLE_SUITES in command:
        for file in ("HumanEvalPlus", "MbppPlus"):
            (found,) = request.getfixturevalue("shared_data").glob(f"evalplus/{file}*.jsonl")
            shutil.copy(found, f"{file}.jsonl")
    if "hydra/launcher=" in command:
        pytest.importorskip("submitit", reason="needs the extra slurm")
    given = parse(shlex.split(command)[1:])
    options = (getattr(given, name, None) for name in ("device", "price", "rows", "tokens"))
    lines = plan_lines(given.overrides, *options)
    kinds = {line.split()[0] for line in lines if line[:1].strip()}
    assert {"pairs", "report"} <= kinds or {"pairs", "study"} <= kinds, "\n".join(lines)


@pytest.fixture(scope="module")
def place(tiny_model, other_tiny_model, tmp_path_factory):
    """A folder with files and a store, and `qaq` in it; `models` are overrides for tiny models."""
    folder = tmp_path_factory.mktemp("docs")
    write_files(folder)
    samples = ({"task_id": f"HumanEval/{n}", "solution": "def f(): pass\n"} for n in range(164))
    (folder / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
    passed = {"base_passed": True, "plus_passed": True}
    row = dict.fromkeys(PER_PROBLEM.names) | passed
    row |= {"benchmark": "humaneval", "task_id": "HumanEval/53", "sample": 0}
    write_rows(folder / "per_problem.parquet", [row], PER_PROBLEM)
    write_json(folder / "results.json", {"arms": []})
    verdict = [{"task_id": "HumanEval/53", "base_status": "pass", "plus_status": "fail"}]
    write_json(folder / "other_eval_results.json", {"eval": {"HumanEval/53": verdict}})
    tiny = {"strong": tiny_model, "weak": other_tiny_model, "target": tiny_model}
    models = [
        *(f"models.{role}.id={path}" for role, path in tiny.items()),
        *(f"models.{role}.chat_template=null" for role in tiny),
        *(f"models.{role}.dtype=float32" for role in tiny),
        "runtime.device=cpu",
    ]

    def qaq(words, cwd=folder, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "qaq.cli", *words],
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    for rule in ("rmi_band", "random"):
        own = ["data=jsonl", "data.path=pairs.jsonl", f"selector={rule}", "ratio=0.25"]
        qaq(["run", *own, "name=quickstart", "train=none", *models])
    return folder, models, qaq


@pytest.mark.parametrize(
    "command",
    [marked(c, p) for c, p in SHOWN.items() if shlex.split(c)[1] not in (*PLANNED, *REFUSED)],
)
def test_everything_else_is_executed(command, place, tmp_path, request, monkeypatch):
    folder, models, qaq = place
    here = tmp_path / "here"
    shutil.copytree(folder, here)
    words = shlex.split(command)[1:]
    if words[0] == "why":
        words[1:] = [folder.name for folder in (here / "artifacts" / "subset").iterdir()]
    if "5000" in words:  # more rows than the file has
        words[words.index("5000")] = "5"
    if words[0] in ("select", "score"):
        words += [*models, "runtime.shard_rows=16"]
    if words[0] == "gc":  # something of what is to be kept has to be there
        run = Run(compose(["experiment=quickstart", f"runtime.store={here / 'artifacts'}"]))
        pool = [stage for stage in run.stages if stage.kind == "pairs"]
        runner.make(pool, Store(here / "artifacts"), run.config.runtime, print)
    if words[0] == "judge":
        (file,) = request.getfixturevalue("shared_data").glob("evalplus/HumanEvalPlus*.jsonl")
        monkeypatch.setenv("HUMANEVAL_OVERRIDE_PATH", str(file))
    said = qaq(words, here)
    assert said.strip()
    for flag in ("-o", "--page"):
        if flag in words:
            assert (here / words[words.index(flag) + 1]).stat().st_size


@pytest.mark.slow
def test_the_readme_selects_with_the_embedded_models_as_it_says(place, tmp_path, monkeypatch):
    if not embedded.is_converted("gemma3-270m"):
        pytest.skip("the embedded models are not unpacked")
    *_, qaq = place
    write_files(tmp_path)
    for command in commands(ROOT / "README.md"):
        if shlex.split(command)[1] in ("select", "score"):
            qaq(shlex.split(command.replace("5000", "5"))[1:], tmp_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    names: dict[str, object] = {}
    exec(code, names)
    assert len(names["best"].positions) == 12


def test_the_pages_show_commands_at_all():
    assert len(SHOWN) > 60


def test_every_message_of_the_troubleshooting_page_stands_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 15
    code = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # strings that are written over several lines
    assert [m for m in messages if m not in joined] == []
