"""The whole pipeline on a tiny random model: every stage is real, only the model knows nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

QAQ = [sys.executable, "-m", "qaq.cli"]


def write_pool(path: Path, rows: int = 48) -> Path:
    chance = random.Random(0)
    lines = []
    for i in range(rows):
        a, b = chance.sample(["list", "number", "string", "file", "tree", "queue", "matrix"], 2)
        question = f"Write function number {i} that turns a {a} into a {b} and says what it did."
        answer = f"def {a}_to_{b}_{i}({a}):\n    {b} = convert({a}, {i})\n    return {b}\n"
        lines.append(json.dumps({"instruction": question, "output": answer}))
    lines.insert(7, '{"instruction": "broken')
    path.write_text("\n".join(lines) + "\n")
    return path


def overrides(tiny_model: Path, folder: Path) -> list[str]:
    roles = [f"models.{role}.id={tiny_model}" for role in ("strong", "weak", "target")]
    plain = [f"models.{role}.chat_template=null" for role in ("strong", "weak", "target")]
    return [
        "selector=diff_high",
        "noise=planted",
        "data=jsonl",
        f"data.path={write_pool(folder / 'pool.jsonl')}",
        "data.limit=48",
        "data.max_unreadable=0.05",  # one line in fifty is broken on purpose
        *roles,
        *plain,
        "models.strong.dtype=float32",
        "models.weak.dtype=float32",
        "models.target.dtype=float32",
        "benchmark.limit=3",
        "eval.max_new_tokens=8",
        f"runtime.store={folder / 'store'}",
        "runtime.device=cpu",
        "runtime.shard_rows=16",
        "tracking=disabled",
        "ratio=0.5",
    ]


def qaq(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*QAQ, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def tables(store: Path) -> dict[str, list]:
    """Everything measured, without times: scores, subsets, adapters' bytes, outcomes."""
    found = {}
    for kind, pattern in (
        ("scores", "*/shards/*.parquet"),
        ("subset", "*/rows.parquet"),
        ("outcomes", "*/per_problem.parquet"),
    ):
        for file in sorted((store / kind).glob(pattern)):
            found[str(file.relative_to(store))] = pq.read_table(file).to_pylist()
    for file in sorted((store / "adapter").glob("*/adapter_model.safetensors")):
        found[str(file.relative_to(store))] = [file.read_bytes()]
    return found


@pytest.fixture(scope="module")
def first(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    command = ["run", *overrides(tiny_model, folder)]
    return folder, command, qaq(*command, folder=folder)


def test_one_command_runs_every_stage_and_prints_the_table(first):
    folder, _, result = first
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("diff_high", "untuned", "swapped answer", "AUROC"):
        assert word in result.stdout
    page = next((folder / "store" / "report").glob("*/index.html"))
    assert str(page) in result.stdout
    assert json.loads((page.parent / "results.json").read_text())


def test_the_broken_line_is_quarantined_with_its_number_and_counts_add_up(first):
    folder, _, _ = first
    pairs = next((folder / "store" / "pairs").iterdir())
    quarantine = pq.read_table(pairs / "quarantine.parquet").to_pylist()
    assert [row["position"] for row in quarantine] == [8]
    assert "broken_json" in quarantine[0]["reason"]
    counts = json.loads((pairs / "counts.json").read_text())
    assert counts["read"] == 49


def test_the_second_run_reuses_everything(first):
    folder, command, _ = first
    started = time.monotonic()
    result = qaq(*command, folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " ran " not in result.stdout
    assert result.stdout.count(" reused ") == 8  # strong and weak are one model here: one table
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_with_the_same_tables(first, tiny_model, tmp_path):
    expected = tables(first[0] / "store")
    command = ["run", *overrides(tiny_model, tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    chance = random.Random(1)
    for _ in range(8):
        process = subprocess.Popen(
            [*QAQ, *command], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(chance.uniform(3, 14))
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = qaq(*command, folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert tables(tmp_path / "store") == expected


def test_why_names_the_field_that_differs_and_status_lists_the_store(first):
    folder, _, _ = first
    store = ["--store", "store"]
    names = sorted(p.name for p in (folder / "store" / "outcomes").iterdir())
    differ = qaq("why", *names, *store, folder=folder)
    assert differ.returncode == 0
    assert differ.stdout.startswith("inputs.adapter: ")
    status = qaq("status", *store, folder=folder)
    assert all(kind in status.stdout for kind in ("pairs", "scores", "adapter", "report"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["selector=nonsense"], "known:"),
        (["ratio=0"], "ratio: found 0"),
        (["ratio=1.5"], "ratio: found 1.5"),
        (["data=jsonl", "data.path=missing.jsonl"], "no such file"),
        (["models.strong.id=./empty"], "holds no weights"),
        (["ratio=0.1,0.2"], "add -m"),
    ],
)
def test_a_user_s_mistake_is_one_message_and_exit_code_2(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    result = qaq("run", *arguments, folder=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "artifacts").exists()


def test_a_tokenizer_without_a_template_is_refused_with_the_way_out(tiny_model, tmp_path):
    import shutil

    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    command = overrides(tiny_model, tmp_path)
    result = qaq("run", *command, f"models.strong.id={bare}", folder=tmp_path)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "has no chat template" in result.stderr
    assert "framing=plain" in result.stderr
