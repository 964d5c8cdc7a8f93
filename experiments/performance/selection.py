"""Seconds and peak memory of every selection rule on a pool of generated scores.

    python experiments/performance/selection.py --rows 310000
    python experiments/performance/selection.py --rows 10000000 --methods rmi_band diff_high
    python experiments/performance/selection.py --rds-rows 310000 --rds-width 2048

Each rule runs as the stage runs it, in a process of its own: tables are read from Parquet, joined
by row id, the rule decides, the audited table is written. `rule` is the decision alone, `stage` all
of it but the start of Python and its imports, `cpu` the processor time of the stage; `peak` is the
process's largest resident memory, and `base` what the imports alone took. For RDS+ the peak counts
the mapped file of embeddings too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qaq.artifacts import PAIRS, SCORES, SPANS, SUBSET, write_table
from qaq.config import RuntimeConfig
from qaq.job import Job
from qaq.selection.inputs import load_pool
from qaq.selection.rules import select
from qaq.stages import SubsetStage

METHODS = [
    *("full", "random", "longest", "perplexity_high", "perplexity_middle"),
    *("ifd_cherry", "ifd_superfiltering", "rmi_top", "rmi_bottom", "rmi_band"),
    *("diff_high", "diff_low", "sum_high", "sum_low"),
]
SHARD_ROWS = 100_000
UNSCORED = 0.005
RATIO = 0.25


@dataclass(frozen=True)
class Cost:
    """What one rule took."""

    method: str
    rows: int
    kept: int
    rule_seconds: float
    stage_seconds: float
    stage_cpu_seconds: float
    base_mib: int
    peak_mib: int


def main() -> None:
    """Generate the inputs, run each rule in a fresh process, print and save the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=310_000)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--rds-rows", type=int, default=0, help="also run RDS+ on so many rows")
    parser.add_argument("--rds-width", type=int, default=2048)
    parser.add_argument("--rds-queries", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="keep the generated inputs here, and use them")
    parser.add_argument("--only-generate", action="store_true")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asdict(measure(given.one, given.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        work = []
        if given.methods:
            inputs = folder / f"scores-{given.rows}"
            generate(inputs, given.rows)
            work += [(method, inputs) for method in given.methods]
        if given.rds_rows:
            inputs = folder / f"embeddings-{given.rds_rows}"
            embed(inputs, given.rds_rows, given.rds_width, given.rds_queries)
            work.append(("rds_plus", inputs))
        costs = [] if given.only_generate else [in_process(*one) for one in work]
    if given.out:
        given.out.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")


def in_process(method: str, folder: Path) -> Cost:
    """Run one rule in a fresh interpreter and print its line."""
    command = [sys.executable, __file__, "--one", method, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cost = Cost(**json.loads(done.stdout))
    print(
        f"{cost.method:<20}{cost.rows:>11,} rows  rule {cost.rule_seconds:6.2f} s  "
        f"stage {cost.stage_seconds:6.2f} s (cpu {cost.stage_cpu_seconds:6.2f})  "
        f"peak {cost.peak_mib:6,} MiB (base {cost.base_mib})",
        flush=True,
    )
    return cost


def measure(method: str, folder: Path) -> Cost:
    """Do what the stage does, with a clock around the rule."""
    base = resident_mib()
    (folder / "out").mkdir(exist_ok=True)
    job = Job(
        kind="subset",
        name=method,
        key="0" * 64,
        config={"selector": {"method": method}, "ratio": RATIO, "seed": 1},
        inputs={role: folder / role for role in ("pairs", "strong", "weak", "embeddings")},
        out=folder / "out",
        scratch=folder,
        runtime=RuntimeConfig(),
    )
    stage = job.parse(SubsetStage)
    start, start_cpu = time.perf_counter(), time.process_time()
    pool, row_ids = load_pool(stage.selector, job.inputs)
    loaded = time.perf_counter()
    decision = select(stage.selector, pool, ratio=stage.ratio, seed=stage.seed)
    decided = time.perf_counter()
    write_table(job.out / "rows.parquet", decision.table(row_ids), SUBSET)
    end = time.perf_counter()
    return Cost(
        method=method,
        rows=len(pool),
        kept=int(decision.kept.sum()),
        rule_seconds=round(decided - loaded, 3),
        stage_seconds=round(end - start, 3),
        stage_cpu_seconds=round(time.process_time() - start_cpu, 3),
        base_mib=base,
        peak_mib=resident_mib(),
    )


def resident_mib() -> int:
    """The largest resident memory of this process so far (Linux; not inherited, unlike rusage)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def generate(folder: Path, rows: int) -> None:
    """A pairs artifact and two score artifacts; the models share most of what they see."""
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    for name in ("pairs", "strong/shards", "weak/shards"):
        (folder / name).mkdir(parents=True)
    with pq.ParquetWriter(folder / "pairs" / "pairs.parquet", PAIRS) as pairs:
        for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
            n = min(SHARD_ROWS, rows - start)
            ids = row_ids(rng, n)
            text = pa.array(["x"] * n)
            nothing = pa.nulls(n, pa.string())
            pairs.write_table(pa.Table.from_arrays([ids, text, text, text, nothing], schema=PAIRS))
            shared = rng.normal(size=n)
            for role in ("strong", "weak"):
                table = scores(rng, ids, shared)
                pq.write_table(table, folder / role / "shards" / f"{shard:05d}.parquet")


def row_ids(rng: np.random.Generator, n: int) -> pa.Array:
    """Random row ids: 16 hex digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[rng.integers(0, 16, (n, 16))]
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(digits)])
    return fixed.cast(pa.binary()).cast(pa.string())


def scores(rng: np.random.Generator, ids: pa.Array, shared: np.ndarray) -> pa.Table:
    """A score table; RMI spreads with log PPL(Q), a few rows have no score."""
    n = len(ids)
    tokens_q, tokens_a = rng.integers(8, 200, n), rng.integers(20, 900, n)
    log_ppl = rng.gamma(9, 0.3, n) + 0.5
    rmi = 0.2 * log_ppl * (1 + 0.8 * shared + 0.5 * rng.normal(size=n))
    answer = rng.gamma(9, 0.12, n) + 0.1
    columns = {
        "nll_q": log_ppl * tokens_q,
        "nll_q_given_a": np.maximum(log_ppl - rmi, 0.01) * tokens_q,
        "nll_a": answer * tokens_a,
        "nll_a_given_q": answer * rng.normal(0.75, 0.12, n) * tokens_a,
    }
    missing = rng.random(n) < UNSCORED
    table: dict[str, pa.Array] = {"row_id": ids}
    for span in SPANS:
        tokens = tokens_q if span.startswith("q") else tokens_a
        table[f"nll_{span}"] = pa.array(columns[f"nll_{span}"], mask=missing)
        table[f"tokens_{span}"] = pa.array(tokens.astype(np.int32), mask=missing)
        table[f"bytes_{span}"] = pa.array((4 * tokens).astype(np.int32), mask=missing)
    table["truncated"] = pa.array(np.zeros(n, np.bool_))
    table["reason"] = pa.array(np.where(missing, "the answer leaves no room", None), pa.string())
    return pa.table([table[name] for name in SCORES.names], schema=SCORES)


def embed(folder: Path, rows: int, width: int, queries: int) -> None:
    """A pairs artifact and an embeddings artifact whose rows gather in a hundred clusters."""
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    for name in ("pairs", "embeddings"):
        (folder / name).mkdir(parents=True)
    ids = row_ids(rng, rows)
    text, nothing = pa.array(["x"] * rows), pa.nulls(rows, pa.string())
    table = pa.Table.from_arrays([ids, text, text, text, nothing], schema=PAIRS)
    pq.write_table(table, folder / "pairs" / "pairs.parquet")
    pq.write_table(pa.table({"row_id": ids}), folder / "embeddings" / "row_ids.parquet")
    centres = rng.normal(size=(100, width)).astype(np.float32)
    path = folder / "embeddings" / "rows.npy"
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    for start in range(0, rows, 10_000):
        n = min(10_000, rows - start)
        noise = rng.normal(size=(n, width)).astype(np.float32)
        vectors[start : start + n] = centres[rng.integers(0, 100, n)] + 2 * noise
    vectors.flush()
    near = centres[rng.integers(0, 100, queries)] + rng.normal(size=(queries, width))
    np.save(folder / "embeddings" / "queries.npy", near.astype(np.float32))


if __name__ == "__main__":
    main()
