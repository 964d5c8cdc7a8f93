"""What the harness itself costs: starting, planning, storing, and reporting what is there already.

    python experiments/performance/overheads.py prepare /tmp/overheads    # a store of 1,000 arms
    python experiments/performance/overheads.py measure /tmp/overheads

`prepare` writes artifacts with generated content (a pool of 1,000 rows, 48 tasks, adapters of 1 MB)
under the keys that a sweep of 10 selectors, 10 ratios and 10 seeds has; `--ratios 100 --seeds 1`
makes 1,000 arms of one seed instead of 100 of ten. `measure` prints and saves to
`results/performance/overheads.json` and `.md`:

- `qaq --help` and `qaq plan` of a 100-arm sweep, beside Python's own start (alternating, medians);
- what the store adds to a stage: finding nothing, a lease, the lock, publishing (hashes, flush to
  disk, rename), finding it; beside writing and flushing the same bytes without a store;
- what the runner adds to a stage that does nothing, beside that stage's process;
- the sweep with every arm cached and no report, until the report is there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from qaq.host import hardware
from qaq.run.comparison import combine
from qaq.run.pipeline import plan
from qaq.run.runner import code_revision
from qaq.run.stage import Stage, in_order
from qaq.run.sweep import jobs_of
from qaq.store.keys import content_key
from qaq.store.store import Store
from qaq.store.tables import PAIRS, PER_PROBLEM, SCORES, SPANS, SUBSET, write_json, write_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "performance"
QAQ = [sys.executable, "-m", "qaq.cli"]
SELECTORS = (
    "random,rmi_top,rmi_bottom,rmi_band,ifd_cherry,longest,diff_high,diff_low,sum_high,sum_low"
)
ROWS, TASKS, STEPS, ADAPTER_BYTES = 1_000, 48, 30, 1_000_000
TARGETS = {"help": 0.5, "plan": 5.0, "store": 0.05, "report": 30.0}


def sweep(store: Path, ratios: int, seeds: int) -> list[str]:
    """The overrides of 10 selectors at so many ratios and seeds."""
    shares = ",".join(f"{(n + 1) / (ratios + 1):.4f}" for n in range(ratios))
    numbers = ",".join(str(n + 1) for n in range(seeds))
    return [
        f"selector={SELECTORS}", f"ratio={shares}", f"seed={numbers}",
        f"runtime.store={store}", "tracking=disabled",
    ]  # fmt: skip


def prepare(folder: Path, ratios: int, seeds: int) -> None:
    """Publish generated artifacts for every stage of the sweep but the report."""
    overrides = sweep(folder / "store", ratios, seeds)
    store = Store(folder / "store")
    chance = np.random.default_rng(0)
    configs = combine(jobs_of(overrides))
    todo = [s for s in in_order(s for c in configs for s in plan(c)) if s.kind != "report"]
    for stage in todo:
        if store.find(stage.kind, stage.key):
            continue
        out = store.work(stage.kind, stage.key) / "out"
        facts = WRITERS[stage.kind](stage, out, chance)
        manifest = stage.identity | {
            "summary": facts, "seconds": 1.0, "peak_rss_mib": 500, "packages": {"torch": "2"},
            "full_config": stage.tree, "created": "2026-01-01T00:00:00+00:00", "qaq": "0",
            "revision": "generated", "hardware": hardware.describe(),
        }  # fmt: skip
        store.publish(stage.kind, stage.name, stage.key, manifest)
    write_json(folder / "sweep.json", {"overrides": overrides, "ratios": ratios, "seeds": seeds})
    print(f"{len(todo)} artifacts under {store.root}")


IDS = [content_key(n)[:16] for n in range(ROWS)]


def write_pairs(stage: Stage, out: Path, chance: np.random.Generator) -> dict[str, Any]:
    columns = {
        "row_id": IDS,
        "question": [f"Write function number {n}." for n in range(ROWS)],
        "answer": [f"def f{n}():\n    return {n}\n" for n in range(ROWS)],
        "source": ["generated"] * ROWS,
        "defect": ["echo" if n % 20 == 0 else None for n in range(ROWS)],
        "input_start": [None] * ROWS,
    }
    write_table(out / "pairs.parquet", pa.table(columns, schema=PAIRS), PAIRS)
    return {"rows": ROWS}


def write_scores(stage: Stage, out: Path, chance: np.random.Generator) -> dict[str, Any]:
    (out / "shards").mkdir(exist_ok=True)
    columns: dict[str, Any] = {"row_id": IDS}
    columns |= {f"nll_{span}": chance.gamma(4, 10, ROWS) for span in SPANS}
    columns |= {f"tokens_{span}": chance.integers(10, 60, ROWS) for span in SPANS}
    columns |= {f"bytes_{span}": chance.integers(40, 240, ROWS) for span in SPANS}
    columns |= {"truncated": [False] * ROWS, "reason": [None] * ROWS}
    write_table(out / "shards" / "part-000000.parquet", pa.table(columns), SCORES)
    return {"rows": ROWS, "unscored": 0, "truncated": 0}


def write_subset(stage: Stage, out: Path, chance: np.random.Generator) -> dict[str, Any]:
    score = chance.random(ROWS)
    kept = score < (stage.config.ratio or 1.0)
    columns = {
        "row_id": IDS, "score": score, "stratum": [None] * ROWS, "rank": score, "kept": kept,
        "reason": np.where(kept, "kept: drawn", "dropped: not drawn"),
    }  # fmt: skip
    write_table(out / "rows.parquet", pa.table(columns), SUBSET)
    return {"rows": ROWS, "kept": int(kept.sum())}


def write_adapter(stage: Stage, out: Path, chance: np.random.Generator) -> dict[str, Any]:
    (out / "adapter_model.safetensors").write_bytes(chance.bytes(ADAPTER_BYTES))
    lines = [
        json.dumps({"step": n, "loss": 2.0 / (n + 1), "learning_rate": 1e-4}) for n in range(STEPS)
    ]
    (out / "training.jsonl").write_text("\n".join(lines) + "\n")
    return {"tokens": 50_000, "frozen": 134_515_008, "trainable": 2_442_240, "steps": STEPS}


def write_outcomes(stage: Stage, out: Path, chance: np.random.Generator) -> dict[str, Any]:
    passed = chance.random(TASKS) < 0.4
    columns = {
        "benchmark": ["mini"] * TASKS,
        "task_id": [f"Mini/{n}" for n in range(TASKS)],
        "sample": [0] * TASKS,
        "base_passed": passed,
        "plus_passed": passed & (chance.random(TASKS) < 0.9),
        "failure": np.where(passed, None, "wrong"),
        "suspect": [False] * TASKS,
        "prompt_sha": ["0" * 16] * TASKS,
        "completion_sha": ["1" * 16] * TASKS,
        "new_tokens": chance.integers(10, 100, TASKS),
        "solution_bits_per_byte": 0.8 + 0.01 * chance.standard_normal(TASKS),
    }
    write_table(out / "per_problem.parquet", pa.table(columns), PER_PROBLEM)
    write_json(out / "scores.json", {"problems": TASKS})
    return {"problems": TASKS}


WRITERS: dict[str, Callable[[Stage, Path, np.random.Generator], dict[str, Any]]] = {
    "pairs": write_pairs,
    "scores": write_scores,
    "subset": write_subset,
    "adapter": write_adapter,
    "outcomes": write_outcomes,
}


def seconds(command: list[str]) -> float:
    """Wall time of a command that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


def commands(repeats: int) -> dict[str, list[float]]:
    """Starting and planning, alternating with Python's own start."""
    ratios = ",".join(f"{n / 20:g}" for n in range(1, 11))
    hundred = ["plan", "-m", f"selector={SELECTORS}", f"ratio={ratios}"]
    sides = {
        "python": [sys.executable, "-c", "pass"],
        "help": [*QAQ, "--help"],
        "plan": [*QAQ, *hundred],
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, command in sides.items():
            times[name].append(seconds(command))
    return times


def storing(repeats: int) -> dict[str, list[float]]:
    """The store's part of a stage, alternating with writing the same bytes without it."""
    payload = [os.urandom(300_000) for _ in range(3)]
    times: dict[str, list[float]] = {"store": [], "bare": [], "manifest": []}
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        store = Store(Path(folder) / "store")
        for number in range(repeats):
            key = content_key(number)
            started = time.perf_counter()
            with store.lease([key]):
                store.find("thing", key)
                with store.lock("thing", key):
                    store.find("thing", key)
                    work = store.work("thing", key)
                    spent = time.perf_counter() - started
                    write_files(work / "out", payload, flush=False)  # the stage's own work
                    started = time.perf_counter()
                    store.publish("thing", "thing", key, {"summary": {}})
                store.find("thing", key)
            times["store"].append(spent + time.perf_counter() - started)
            bare = Path(folder) / f"bare-{number}"
            bare.mkdir()
            started = time.perf_counter()
            write_files(bare, payload, flush=True)
            times["bare"].append(time.perf_counter() - started)
            started = time.perf_counter()
            code_revision()
            times["manifest"].append(time.perf_counter() - started)
    return times


def write_files(folder: Path, payload: list[bytes], flush: bool) -> None:
    for number, content in enumerate(payload):
        with (folder / f"file-{number}").open("wb") as file:
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())


def reporting(folder: Path, repeats: int) -> dict[str, Any]:
    """The sweep with everything cached but the report."""
    told = json.loads((folder / "sweep.json").read_text())
    times, stages = [], []
    for _ in range(repeats):
        store = Store(folder / "store")
        for artifact in store.all():
            if artifact.manifest["kind"] == "report":
                store.discard(artifact.path)
        times.append(seconds([*QAQ, "run", "-m", *told["overrides"]]))
        [report] = [a for a in store.all() if a.manifest["kind"] == "report"]
        stages.append(float(report.manifest["seconds"]))
    again = seconds([*QAQ, "run", "-m", *told["overrides"]])
    arms = 10 * told["ratios"]
    return {"arms": arms, "seeds": told["seeds"], "report": times, "stage": stages, "again": again}


def measure(folder: Path, repeats: int) -> None:
    """Measure all of it, print and save."""
    found: dict[str, Any] = {"machine": hardware.describe(), "targets": TARGETS}
    found["commands"] = commands(repeats)
    found["storing"] = storing(10 * repeats)
    found["reporting"] = reporting(folder, max(1, repeats // 3))
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / "overheads.json", found)
    text = markdown(found)
    (RESULTS / "overheads.md").write_text(text)
    print(text)


def markdown(found: dict[str, Any]) -> str:
    """The medians as a table, with what they are to be below."""
    middle = statistics.median
    run, put, report = found["commands"], found["storing"], found["reporting"]
    jobs = report["arms"] * report["seeds"]
    machine = found["machine"]
    rows = [
        ("`qaq --help`", middle(run["help"]), TARGETS["help"],
         f"`python -c pass`: {middle(run['python']):.3f} s"),
        ("`qaq plan` of a sweep of 100 arms, estimates included", middle(run["plan"]),
         TARGETS["plan"], "as above"),
        ("the store, per stage (three files, 0.9 MB)", middle(put["store"]), TARGETS["store"],
         f"write and flush the same bytes: {middle(put['bare']):.4f} s"),
        ("the manifest's code revision, per stage", middle(put["manifest"]), TARGETS["store"],
         "two calls of git"),
        (f"{jobs:,} cached jobs ({report['arms']:,} arms, {report['seeds']} seeds) reported anew",
         middle(report["report"]), TARGETS["report"],
         f"the report's own process: {middle(report['stage']):.1f} s"),
        ("the same sweep with its report there", report["again"], TARGETS["report"], ""),
    ]  # fmt: skip
    lines = [
        "# Overheads", "",
        f"{machine['cores']} cores, {machine['cpu']}; medians of {len(run['help'])} (commands), "
        f"{len(put['store'])} (store) and {len(report['report'])} (report). Made by "
        "`experiments/performance/overheads.py`.", "",
        "| what | seconds | to stay below | beside it |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {what} | {s:.3f} | {limit:g} | {beside} |" for what, s, limit, beside in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["prepare", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratios", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    if given.what == "prepare":
        prepare(given.folder.absolute(), given.ratios, given.seeds)
    else:
        measure(given.folder.absolute(), given.repeats)


if __name__ == "__main__":
    main()
