"""Seconds and peak memory from a file of pairs to the report, without a model, against rows.

    python experiments/performance/scale.py --rows 10000 100000 310000 --out results/performance

Each size runs in a process of its own, through the run's own stages, each of them again a process:
reading (JSONL up to 310,000 rows, above that Parquet shards of 100,000), overlaps with a benchmark,
near-duplicates and the rule (`rmi_band_clean`), report. Scores are made up and put into the store
where a model's would be; making them and the file is not counted. Pairs of made-up texts, 30 and 80
words; a row in fifty is a near-duplicate of another one. The table has the largest resident memory
of each stage's process, `peak` is that of the largest one. A process begins with the peak of the
one that started it, so what makes the file and the scores has a process of its own.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.host.hardware import cores
from qaq.run import runner
from qaq.run.compose import compose
from qaq.run.pipeline import Run
from qaq.run.stage import Stage, in_order
from qaq.store.manifest import Artifact
from qaq.store.store import Store
from qaq.store.tables import PAIRS, read_json, read_table, write_json

sys.path.insert(0, str(Path(__file__).parent))
from selection import scores

SHARD, MOST_JSONL, WORDS = 100_000, 310_000, 20_000
KINDS = ("pairs", "overlaps", "subset", "report")


def shards(rows: int) -> Iterator[tuple[list[str], list[str]]]:
    """Questions and answers, a shard at a time."""
    rng = np.random.default_rng(0)
    words = np.array(["".join(map(chr, rng.integers(97, 123, n))) for n in
                      rng.integers(3, 10, WORDS)])  # fmt: skip
    for start in range(0, rows, SHARD):
        n = min(SHARD, rows - start)
        chosen = words[rng.integers(0, WORDS, (n, 110))]
        chosen[1::50, 2:] = chosen[0::50, 2:][: len(chosen[1::50])]  # near-duplicates
        texts = [" ".join(row) for row in chosen]
        cuts = [len(" ".join(row[:30])) for row in chosen]
        yield (
            [t[:c] for t, c in zip(texts, cuts, strict=True)],
            [t[c + 1 :] for t, c in zip(texts, cuts, strict=True)],
        )


def write_pool(folder: Path, rows: int) -> list[str]:
    """The file or files; returns what chooses them."""
    folder.mkdir(parents=True)
    for number, (questions, answers) in enumerate(shards(rows)):
        if rows > MOST_JSONL:
            table = pa.table({"instruction": questions, "output": answers})
            pq.write_table(table, folder / f"part-{number:03d}.parquet")
            continue
        with (folder / "pool.jsonl").open("a", encoding="utf-8") as file:
            for q, a in zip(questions, answers, strict=True):
                file.write(json.dumps({"instruction": q, "output": a}) + "\n")
    if rows > MOST_JSONL:
        return ["data=parquet", f"data.path={folder}"]
    return ["data=jsonl", f"data.path={folder / 'pool.jsonl'}"]


def place_scores(stage: Stage, pairs: Artifact, store: Store) -> None:
    """Made-up scores of the pool under the key that a model's would have."""
    ids = read_table(pairs.path / "pairs.parquet", PAIRS, ["row_id"])["row_id"].combine_chunks()
    rng = np.random.default_rng(1)
    out = store.work(stage.kind, stage.key) / "out" / "shards"
    out.mkdir(parents=True)
    for number, start in enumerate(range(0, len(ids), SHARD)):
        part = ids.slice(start, SHARD)
        table = scores(rng, part, rng.normal(size=len(part)))
        pq.write_table(table, out / f"part-{number:06d}.parquet")
    summary = {"rows": len(ids), "unscored": 0, "truncated": 0}
    made = {"summary": summary, "seconds": 0.0, "full_config": stage.tree}
    store.publish(stage.kind, stage.name, stage.key, {**pairs.manifest, **stage.identity, **made})


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, called in another process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        return processes.submit(function, *arguments).result()


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """One size, from the file to the report."""
    chosen = elsewhere(write_pool, folder / "pool", rows)
    overrides = [*chosen, "selector=rmi_band_clean", "train=none", "benchmark=mini"]
    overrides += ["tracking=disabled", f"runtime.store={folder / 'store'}", "model=smollm2_135m"]
    run = Run(compose(overrides))
    store, said = Store(run.config.runtime.store), print
    started = time.monotonic()
    [first] = runner.make([s for s in run.stages if s.kind == "pairs"], store,
                          run.config.runtime, said)  # fmt: skip
    seconds = time.monotonic() - started
    assert first.artifact is not None, first.error
    for stage in run.stages:
        if stage.kind == "scores":
            elsewhere(place_scores, stage, first.artifact, store)
    started = time.monotonic()
    results = runner.make(in_order(run.stages), store, run.config.runtime, said)
    seconds += time.monotonic() - started
    assert not [r.error for r in results if r.error], [r.error for r in results]
    made = {r.stage.kind: r.artifact.manifest for r in results if r.artifact}
    peaks = {kind: made[kind]["peak_rss_mib"] for kind in KINDS}
    return {
        "rows": rows,
        "seconds": round(seconds, 1),
        "peak_mib": max(peaks.values()),
        "stages": {kind: made[kind]["seconds"] for kind in KINDS},
        "peaks": peaks,
    }


def figure(found: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against rows."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, sides = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    rows = [f["rows"] for f in found]
    for side, name, label in zip(
        sides, ("seconds", "peak_mib"), ("seconds", "peak memory, MiB"), strict=True
    ):
        side.plot(rows, [f[name] for f in found], "o-", color="black")
        side.set(xscale="log", yscale="log", xlabel="rows", ylabel=label)
        side.grid(alpha=0.3)
    drawing.savefig(path, dpi=120)


def page(found: list[dict[str, Any]], machine: str) -> str:
    """The table."""
    names = ["rows", "seconds", "us a row", *(f"{kind} s" for kind in KINDS)]
    names += ["peak MiB", *(f"{kind} MiB" for kind in KINDS)]
    lines = [
        "# From a file to the report, without a model\n",
        f"`python experiments/performance/scale.py`, {machine}.",
        "Reading, overlaps with a benchmark, near-duplicates, rule, report; scores are made up.\n",
        f"| {' | '.join(names)} |\n|{'---|' * len(names)}",
    ]
    for f in found:
        each = [round(f["stages"][kind], 1) for kind in KINDS]
        row = round(1e6 * f["seconds"] / f["rows"])
        cells = [f"{f['rows']:,}", f["seconds"], row, *each]
        peaks = f.get("peaks", {})  # sizes of before have one, with the file's making in it
        cells += [f["peak_mib"], *(peaks.get(kind, "–") for kind in KINDS)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "\n![figure](scale.png)\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 310_000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--beside", default="", help="what else the machine did, for the page")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # one size, in this process
    args = parser.parse_args()
    if args.folder:
        write_json(args.folder / "found.json", measure(args.rows[0], args.folder))
        return
    found = []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--rows", str(rows), "--folder", folder]
            subprocess.run(command, check=True)
            found.append(read_json(Path(folder) / "found.json"))
        print(found[-1])
    if args.out:
        file = args.out / "scale.json"
        known = read_json(file)["sizes"] if file.exists() else []
        sizes = {f["rows"]: f for f in [*known, *found]}
        ordered = [sizes[rows] for rows in sorted(sizes)]
        machine = f"{platform.processor() or platform.machine()}, {cores()} cores"
        machine += f"; {args.beside}" if args.beside else ""
        write_json(file, {"machine": machine, "sizes": ordered})
        (args.out / "scale.md").write_text(page(ordered, machine), encoding="utf-8")
        figure(ordered, args.out / "scale.png")


if __name__ == "__main__":
    main()
