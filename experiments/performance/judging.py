"""Seconds and memory of a full judgement, sandbox included, beside EvalPlus 0.3.1's own.

    python experiments/performance/judging.py --data FOLDER --cache FOLDER --rounds 3 \
        --out results/performance/judging.json

Judged are the canonical solutions of HumanEval+ and MBPP+ (`--data` holds EvalPlus's two files),
with the same limits (4 s, 8 GiB), as many workers, and both ground truths made beforehand: a round
that is not counted makes them where `--cache` does not hold them yet. Each side runs in a fresh
process, in turn; the seconds are of the whole process, imports included. Rounds are added to those
in the output file.
EvalPlus alone is spared the up to 20 s for which a thread of its own holds its exit. `memory` is
the largest sum of resident sizes over the process and all below it (shared pages count in each).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from qaq.evaluation.benchmarks import Benchmark, load
from qaq.evaluation.judge.judge import JudgeSettings, canonical_check
from qaq.evaluation.judge.truth import override

ALONE = Path(__file__).parents[2] / "tests" / "evaluation" / "reference_evalplus.py"
FILES: dict[str, str] = {"humaneval": "HumanEvalPlus.jsonl", "mbpp": "MbppPlus.jsonl"}
LOOK_EVERY = 0.1  # seconds between looks at the memory


@dataclass(frozen=True)
class Cost:
    """What one judgement took and found."""

    seconds: float
    memory_gib: float
    passed: int


def main() -> None:
    """Warm both caches, then judge in turn, and print and save the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".judging-cache"))
    parser.add_argument("--suites", nargs="*", default=list(FILES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="a JSON file for all measurements")
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.cache = given.cache.resolve()
    given.cache.mkdir(parents=True, exist_ok=True)
    if given.judge:
        settings = JudgeSettings(workers=given.workers)
        check = canonical_check(given.judge, given.data / FILES[given.judge], settings)
        print(json.dumps({"passed": check.plus_passed}))
        return
    found = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    for suite in given.suites:
        benchmark = load(suite, given.data / FILES[suite])
        rows = found.setdefault(suite, {"evalplus": [], "qaq": []})
        warm = (given.cache / "evalplus" / f"{benchmark.md5}.pkl").exists()
        for number in range(warm, given.rounds + 1):
            costs = {
                "evalplus": evalplus_alone(benchmark, given.cache, given.workers),
                "qaq": judged(suite, given.data, given.workers),
            }
            for side, cost in costs.items():
                print(f"{suite:<10} {number} {side:<9} {cost}", file=sys.stderr, flush=True)
                if number > 0:
                    rows[side].append(asdict(cost))
            if given.out and number > 0:
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps(found, indent=1) + "\n")
                given.out.with_suffix(".md").write_text(page(found, given.workers))
    print(table(found))


def evalplus_alone(benchmark: Benchmark, cache: Path, workers: int) -> Cost:
    """EvalPlus's `evaluate` with the same limits, without a sandbox."""
    folder = Path(tempfile.mkdtemp(dir=cache))
    samples = folder / "samples.jsonl"
    with samples.open("w") as file:
        for p in benchmark.problems:
            solution = p.prompt + p.canonical_solution
            file.write(json.dumps({"task_id": p.task_id, "solution": solution}) + "\n")
    environment = os.environ | {
        **override(benchmark),
        "XDG_CACHE_HOME": str(cache),
        "EVALPLUS_MAX_MEMORY_BYTES": str(8 << 30),
    }
    command = [sys.executable, str(ALONE), "repaired", benchmark.format, str(samples), str(workers)]
    seconds, memory, _ = watched(command, environment, folder)
    result = json.loads((folder / "samples_eval_results.json").read_text())["eval"]
    passed = sum(s["base_status"] == s["plus_status"] == "pass" for t in result.values() for s in t)
    return Cost(seconds, memory, passed)


def judged(suite: str, data: Path, workers: int) -> Cost:
    """The judge of this project, with its sandbox."""
    command = [sys.executable, __file__, "--judge", suite, "--data", str(data)]
    command += ["--workers", str(workers)]
    seconds, memory, printed = watched(command, dict(os.environ), Path.cwd())
    return Cost(seconds, memory, json.loads(printed)["passed"])


def watched(command: list[str], environment: dict[str, str], cwd: Path) -> tuple[float, float, str]:
    """Run a command; its seconds, the peak of its tree's memory in GiB, what it printed."""
    started = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=cwd, stdout=out, stderr=subprocess.DEVNULL
        )
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, tree_memory(root))
            time.sleep(LOOK_EVERY)
        seconds = time.perf_counter() - started
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        return round(seconds, 2), round(peak / 2**30, 2), out.read()


def tree_memory(root: psutil.Process) -> int:
    """Resident bytes of a process and all below it."""
    total = 0
    try:
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def page(found: dict[str, dict[str, list[dict[str, float]]]], workers: int) -> str:
    """The figures as a short page."""
    rounds = ", ".join(f"{len(sides['qaq'])} rounds of {suite}" for suite, sides in found.items())
    return (
        "# Judging\n\nSeconds of a whole process that judges the canonical solutions, sandbox and "
        f"all, beside EvalPlus 0.3.1's own `evaluate` without one; {workers} workers, {rounds}, "
        "medians. Conditions stand at the head of `experiments/performance/judging.py`.\n\n"
        f"```text\n{table(found)}\n```\n"
    )


def table(found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Medians of both sides and their ratio."""
    lines = ["benchmark   EvalPlus s   qaq s   ratio   EvalPlus GiB   qaq GiB   passed"]
    for suite, sides in found.items():
        seconds = {s: statistics.median(c["seconds"] for c in each) for s, each in sides.items()}
        memory = {s: statistics.median(c["memory_gib"] for c in each) for s, each in sides.items()}
        passed = {s: {int(c["passed"]) for c in each} for s, each in sides.items()}
        lines.append(
            f"{suite:<11} {seconds['evalplus']:10.1f} {seconds['qaq']:7.1f} "
            f"{seconds['qaq'] / seconds['evalplus']:7.2f} {memory['evalplus']:14.2f} "
            f"{memory['qaq']:9.2f}   {passed['evalplus']} {passed['qaq']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
