"""Peak memory of the scoring stage over pools of two sizes.

    python experiments/performance/scoring_memory.py --rows 10000 100000 --out results/performance

Each pool is scored by the stage's own worker process, with a tiny random model, so that what is
measured is what grows with the pool and not the weights.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.host.runtime import RuntimeConfig
from qaq.store import jobs
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, read_json

TINY = Path(__file__).parents[2] / "tests" / "tiny.py"


def write_pool(path: Path, rows: int) -> None:
    """Short pairs, all different, in row groups as the data stage writes them."""
    with pq.ParquetWriter(path, PAIRS, compression="zstd") as file:
        for start in range(0, rows, 1000):
            made = [
                {
                    "row_id": f"{i:016x}",
                    "question": f"Add {i} to it.",
                    "answer": f"return x + {i}",
                    "source": "made",
                    "defect": None,
                }
                for i in range(start, min(start + 1000, rows))
            ]
            file.write_table(pa.Table.from_pylist(made, schema=PAIRS))


def score(folder: Path, model: Path, rows: int) -> dict[str, Any]:
    """Run the worker; what it reported."""
    for part in ("pairs", "out", "scratch"):
        (folder / part).mkdir(parents=True)
    write_pool(folder / "pairs" / "pairs.parquet", rows)
    job = Job(
        kind="scores",
        module="qaq.scoring.stage",
        name="memory",
        key="0" * 64,
        config={
            "model": {"name": "tiny", "id": str(model), "dtype": "float32"},
            "framing": {"name": "plain", "kind": "plain"},
            "system_prompt": None,
        },
        inputs={"pairs": folder / "pairs"},
        out=folder / "out",
        scratch=folder / "scratch",
        runtime=RuntimeConfig(device="cpu", token_budget=4096, shard_rows=512),
    )
    jobs.save(job, folder / "job.json")
    command = [sys.executable, "-m", "qaq.run.worker", str(folder / "job.json")]
    subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    done: dict[str, Any] = read_json(folder / "done.json")
    return {"rows": rows, "seconds": done["seconds"], "peak_rss_mib": done["peak_rss_mib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path, help="folder for scoring_memory.json and .md")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("tiny", TINY)
    assert spec and spec.loader
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.build_tiny_model(Path(folder) / "model")
        runs = [score(Path(folder) / str(rows), model, rows) for rows in options.rows]
    least, most = (f(run["peak_rss_mib"] for run in runs) for f in (min, max))
    command = "python experiments/performance/scoring_memory.py " + " ".join(sys.argv[1:])
    result = {"command": command, "runs": runs, "largest_to_smallest": most / least}
    lines = [
        "# Scoring: peak memory against the size of the pool",
        "",
        f"    {command}",
        "",
        "A tiny random model, the stage's own worker process.",
        "",
        "| rows | peak MiB | seconds |",
        "|---|---|---|",
        *(f"| {r['rows']:,} | {r['peak_rss_mib']} | {r['seconds']:.0f} |" for r in runs),
        "",
        f"Largest to smallest peak: {most / least:.3f}.",
        "",
    ]
    print("\n".join(lines))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "scoring_memory.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "scoring_memory.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
