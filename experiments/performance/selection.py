"""Seconds and peak memory of every selection rule on a pool of generated scores.

    python experiments/performance/selection.py --rows 310000
    python experiments/performance/selection.py --rows 10000000 --methods rmi_band diff_high
    python experiments/performance/selection.py --text-rows 310000 --methods
    python experiments/performance/selection.py --rds-rows 310000 --rds-width 2048 --methods

Each rule runs as the stage runs it, in a process of its own: tables are read from Parquet, joined
by row id, the rule decides, the audited table is written. `rule` is the decision alone, `stage` all
of it but the start of Python and its imports, which are `start`, `cpu` the processor time of the
stage; `files` is what no implementation can save: reading the same columns and writing the same
table, measured in the same process afterwards. `peak` is the process's largest resident memory, and
`base` what the imports alone took. `rmi_band_clean` reads the questions and answers as well, while
it decides, so there `rule` contains their reading: made-up texts of 80 words, a row in twenty a
near-duplicate of another one, a thousand contaminated. For RDS+ the peak counts the mapped file of
embeddings too. Medians of `--repeats` runs, peaks are the largest of them; rules alternate. Results
are merged into results/performance/selection.json by rule and number of rows, with a table beside
it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from qaq.data.stage import GROUP_ROWS
from qaq.host.runtime import RuntimeConfig
from qaq.selection.config import SelectorConfig, SubsetStage
from qaq.selection.inputs import SCORERS, load_pool, read_scores
from qaq.selection.rules import select
from qaq.store.jobs import Job
from qaq.store.tables import OVERLAPS, PAIRS, SCORES, SPANS, SUBSET, read_table, write_table

METHODS = [
    *("full", "random", "longest", "perplexity_high", "perplexity_middle"),
    *("ifd_cherry", "ifd_superfiltering", "rmi_top", "rmi_bottom", "rmi_band"),
    *("diff_high", "diff_low", "sum_high", "sum_low"),
    *("diff_high_authors", "diff_high_threshold", "ifd_then_rmi_band"),
]
ROLES = ("pairs", "strong", "weak", "overlaps", "embeddings", "queries")
SHARD_ROWS = 100_000
UNSCORED = 0.005
RATIO = 0.25
TIMES = ("rule", "stage", "stage_cpu", "files", "start")
HEADINGS = (
    *("rule", "rows", "runs", "rule s", "stage s", "cpu s", "files alone s", "start s"),
    *("peak MiB", "imports MiB"),
)
CONF = Path(__file__).parents[2] / "conf" / "selector"
RESULTS = Path(__file__).parents[2] / "results" / "performance" / "selection.json"


@dataclass(frozen=True)
class Cost:
    """What one rule took."""

    method: str
    rows: int
    kept: int
    rule_seconds: float
    stage_seconds: float
    stage_cpu_seconds: float
    files_seconds: float
    start_seconds: float
    base_mib: int
    peak_mib: int
    repeats: int = 1


def main() -> None:
    """Generate the inputs, run each rule in a fresh process, print and save the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=310_000)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--text-rows", type=int, default=0, help="also run rmi_band_clean")
    parser.add_argument("--rds-rows", type=int, default=0, help="also run RDS+ on so many rows")
    parser.add_argument("--rds-width", type=int, default=2048)
    parser.add_argument("--rds-queries", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="keep the generated inputs here, and use them")
    parser.add_argument("--only-generate", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="a JSON file for the results")
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
        if given.text_rows:
            inputs = folder / f"texts-{given.text_rows}"
            generate(inputs, given.text_rows, texts=True)
            work.append(("rmi_band_clean", inputs))
        if given.rds_rows:
            inputs = folder / f"embeddings-{given.rds_rows}"
            embed(inputs, given.rds_rows, given.rds_width, given.rds_queries)
            work.append(("rds_plus", inputs))
        if given.only_generate:
            return
        runs = [in_process(*one) for _ in range(given.repeats) for one in work]
    save(given.out, [median([r for r in runs if r.method == method]) for method, _ in work])


def median(runs: list[Cost]) -> Cost:
    """One cost of several runs: medians of the times, the largest of the peaks."""
    times = {
        name: round(statistics.median(getattr(run, name) for run in runs), 3)
        for name in (f"{part}_seconds" for part in TIMES)
    }
    peak = max(run.peak_mib for run in runs)
    return replace(runs[0], **times, peak_mib=peak, repeats=len(runs))


def save(path: Path, costs: list[Cost]) -> None:
    """Merge into the JSON file and write the table beside it."""
    known = json.loads(path.read_text())["costs"] if path.exists() else []
    table = {(c["rows"], c["method"]): c for c in [*known, *map(asdict, costs)]}
    ordered = [table[key] for key in sorted(table)]
    machine = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "costs": ordered}, indent=1) + "\n")
    lines = [
        "# Selection: time and memory",
        "",
        f"{machine['processor']}, {machine['cores']} cores. Generated scores; "
        "`experiments/performance/selection.py` says what the columns are.",
        "",
        "Asked for: 310,000 rows in under 2 s and 1 GiB, 10,000,000 in under 60 s and 8 GiB; "
        "RDS+ on 310,000 vectors of 2,048 numbers (here for 320 queries) within 4 GiB.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|---|{'--:|' * (len(HEADINGS) - 1)}",
    ]
    for c in ordered:
        times = (c[f"{part}_seconds"] for part in TIMES)
        cells = [c["method"], f"{c['rows']:,}", c["repeats"], *(f"{t:.2f}" for t in times)]
        cells += [f"{c['peak_mib']:,}", c["base_mib"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def in_process(method: str, folder: Path) -> Cost:
    """Run one rule in a fresh interpreter and print its line."""
    command = [sys.executable, __file__, "--one", method, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cost = Cost(**json.loads(done.stdout))
    print(
        f"{cost.method:<20}{cost.rows:>11,} rows  rule {cost.rule_seconds:6.2f} s  "
        f"stage {cost.stage_seconds:6.2f} s (cpu {cost.stage_cpu_seconds:6.2f}, "
        f"files {cost.files_seconds:.2f})  peak {cost.peak_mib:6,} MiB (base {cost.base_mib})",
        flush=True,
    )
    return cost


def measure(method: str, folder: Path) -> Cost:
    """Do what the stage does, with a clock around the rule."""
    (folder / "out").mkdir(exist_ok=True)
    job = Job(
        kind="subset",
        name=method,
        key="0" * 64,
        config={"selector": selector(method), "ratio": RATIO, "seed": 1},
        inputs={role: folder / role for role in ROLES},
        out=folder / "out",
        scratch=folder,
        runtime=RuntimeConfig(),
    )
    stage = job.parse(SubsetStage)
    import pandas  # noqa: F401  (pyarrow imports it with its first array)

    if getattr(stage.selector, "near_duplicates", False):
        import qaq.selection.duplicates  # noqa: F401  (imported when it is needed)
    base, before = resident_mib(), running_seconds()
    start, start_cpu = time.perf_counter(), time.process_time()
    pool, row_ids = load_pool(stage.selector, job.inputs)
    loaded = time.perf_counter()
    decision = select(stage.selector, pool, ratio=stage.ratio, seed=stage.seed)
    decided = time.perf_counter()
    write_table(job.out / "rows.parquet", decision.table(row_ids), SUBSET)
    end, end_cpu = time.perf_counter(), time.process_time()
    peak = resident_mib()
    return Cost(
        method=method,
        rows=len(pool),
        kept=int(decision.kept.sum()),
        rule_seconds=round(decided - loaded, 3),
        stage_seconds=round(end - start, 3),
        stage_cpu_seconds=round(end_cpu - start_cpu, 3),
        files_seconds=round(files_alone(stage.selector, job), 3),
        start_seconds=round(before, 3),
        base_mib=base,
        peak_mib=peak,
    )


def selector(name: str) -> dict[str, object]:
    """The rule of that name in `conf/selector`."""
    tree: dict[str, object] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return tree


def files_alone(selector: SelectorConfig, job: Job) -> float:
    """Seconds to read what the rule reads and to write what it wrote, and nothing else."""
    table = read_table(job.out / "rows.parquet", SUBSET)
    start = time.perf_counter()
    texts = ["question", "answer"] if getattr(selector, "near_duplicates", False) else []
    read_table(job.inputs["pairs"] / "pairs.parquet", PAIRS, ["row_id", *texts])
    for role in selector.needs:
        if role in SCORERS:
            read_scores(job.inputs[role])
        elif role == "embeddings":
            rows = np.load(job.inputs[role] / "rows.npy", mmap_mode="r")
            for at in range(0, len(rows), 4096):
                np.asarray(rows[at : at + 4096]).sum()
    write_table(job.out / "rows.parquet", table, SUBSET)
    return time.perf_counter() - start


def running_seconds() -> float:
    """Seconds since this process was started (Linux, to a hundredth)."""
    started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def resident_mib() -> int:
    """The largest resident memory of this process so far (Linux; not inherited, unlike rusage)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def generate(folder: Path, rows: int, *, texts: bool = False) -> None:
    """A pairs artifact and two score artifacts; the models share most of what they see.

    With texts, the rows have some, and a thousand overlap with a benchmark.
    """
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    for name in ("pairs", "overlaps", "strong/shards", "weak/shards"):
        (folder / name).mkdir(parents=True)
    with pq.ParquetWriter(folder / "pairs" / "pairs.parquet", PAIRS, compression="zstd") as pairs:
        for shard, start in enumerate(range(0, rows, SHARD_ROWS)):
            n = min(SHARD_ROWS, rows - start)
            ids = row_ids(rng, n)
            x, nothing = pa.array(["x"] * n), pa.nulls(n, pa.string())
            question, answer = (text(rng, n, 20), text(rng, n, 60)) if texts else (x, x)
            columns = [ids, question, answer, x, nothing, pa.nulls(n, pa.int32())]
            table = pa.Table.from_arrays(columns, schema=PAIRS)
            pairs.write_table(table, row_group_size=GROUP_ROWS)
            if start == 0:
                write_table(
                    folder / "overlaps" / "overlaps.parquet", overlaps(ids[:1000]), OVERLAPS
                )
            shared = rng.normal(size=n)
            for role in ("strong", "weak"):
                table = scores(rng, ids, shared)
                write_table(folder / role / "shards" / f"{shard:05d}.parquet", table, SCORES)


def text(rng: np.random.Generator, n: int, words: int) -> pa.Array:
    """Texts of so many words by Zipf's law; the last in twenty repeat others with one word new."""
    vocabulary = np.array([f"w{'x' * (rank % 9)}{rank}" for rank in range(20_000)])
    drawn = vocabulary[np.minimum(rng.zipf(1.2, (n, words)), len(vocabulary)) - 1]
    again = n // 20
    drawn[n - again :] = drawn[:again]
    drawn[n - again :, 0] = "other"
    return pa.array([" ".join(row) for row in drawn])


def overlaps(ids: pa.Array) -> pa.Table:
    """Those rows overlap with a benchmark."""
    given = ("humaneval", "HumanEval/0", "prompt_run", "a run of words")
    others = [pa.array([one] * len(ids)) for one in given]
    return pa.Table.from_arrays([ids, *others], schema=OVERLAPS)


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
    for name in ("pairs", "embeddings", "queries"):
        (folder / name).mkdir(parents=True)
    ids = row_ids(rng, rows)
    text, nothing = pa.array(["x"] * rows), pa.nulls(rows, pa.string())
    starts = pa.nulls(rows, pa.int32())
    table = pa.Table.from_arrays([ids, text, text, text, nothing, starts], schema=PAIRS)
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
    np.save(folder / "queries" / "rows.npy", near.astype(np.float32))


if __name__ == "__main__":
    main()
