"""How far orders of the same rows differ: precisions, and published definitions against ours.

    python experiments/performance/scoring_orders.py --rows 200 --out results/performance

A random sample of the embedded pool (or of a JSONL file) is scored once per framing and
precision; finished tables are kept in `--folder`, so that a stopped run goes on. Reported are
Spearman's rank correlations over the rows that both sides could score.
"""

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qaq.evidence.estimate import Estimate
from qaq.evidence.ranking import spearman
from qaq.host.progress import Progress
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.metrics import METRICS
from qaq.scoring.stage import score_rows
from qaq.store.tables import SCORES, write_rows
from scoring import pairs

MAX_TOKENS = {"cherry": 512, "superfiltering": 1024}
COMPARED = [  # (metric, framing, precision) on both sides
    (("rmi", "chat", "bfloat16"), ("rmi", "chat", "float32")),
    (("ifd_ppl_ratio", "chat", "bfloat16"), ("ifd_ppl_ratio", "chat", "float32")),
    (("rmi", "chat", "bfloat16"), ("rmi_authors", "authors", "bfloat16")),
    (("rmi", "chat", "bfloat16"), ("rmi", "plain", "bfloat16")),
    (("ifd_loss_ratio", "chat", "bfloat16"), ("ifd_loss_ratio", "cherry", "bfloat16")),
    (("ifd_ppl_ratio", "chat", "bfloat16"), ("ifd_ppl_ratio", "superfiltering", "bfloat16")),
]


def table(
    folder: Path, model: str, framing: str, dtype: str, rows: list[dict[str, Any]]
) -> pa.Table:
    """The scores of `rows`, made if `folder` does not hold them."""
    path = folder / f"{framing}-{dtype}-{len(rows)}.parquet"
    if not path.exists():
        config = ModelConfig(name="model", id=model)
        tokenizer = load_tokenizer(config)
        kind = FramingConfig(
            name=framing,
            kind=framing,  # type: ignore[arg-type]
            max_tokens=MAX_TOKENS.get(framing, 2048),
        )
        engine = Engine(load_model(config, dtype=dtype), take_over=True)
        with Progress(path.stem, len(rows), "rows") as progress:
            framer = make_framer(kind, config, tokenizer, None)
            budget = RuntimeConfig().token_budget
            write_rows(path, score_rows(rows, framer, engine, budget, progress), SCORES)
    return pq.read_table(path)


def agreement(one: tuple[str, pa.Table], other: tuple[str, pa.Table]) -> Estimate | None:
    """Spearman's correlation of two metrics, each of a score table, row for row by id."""
    values = []
    for metric, scores in (one, other):
        frame = scores.to_pandas().set_index("row_id").sort_index()
        columns = {n: frame[n].to_numpy(float) for n in frame if n.startswith(("nll_", "tokens_"))}
        values.append(METRICS[metric](columns))
    return spearman(values[0], values[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--data", type=Path, help="a JSONL file instead of the embedded pool")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("artifacts/orders"))
    parser.add_argument("--out", type=Path, help="folder for scoring_orders.json and .md")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    pool = pairs(options.data, 10**9)
    rows = random.Random(options.seed).sample(pool, options.rows)
    found: list[tuple[str, str, Estimate]] = []
    for sides in COMPARED:
        one, two = (
            (metric, table(options.folder, options.model, framing, dtype, rows))
            for metric, framing, dtype in sides
        )
        names = [f"{metric}, {framing}, {dtype}" for metric, framing, dtype in sides]
        agreed = agreement(one, two)
        if agreed is None:
            raise SystemExit(f"{' and '.join(names)}: too few rows have both, or all are equal")
        found.append((names[0], names[1], agreed))
    command = "python experiments/performance/scoring_orders.py " + " ".join(sys.argv[1:])
    lines = [
        "# Scoring: how far orders differ",
        "",
        f"    {command}",
        "",
        f"{options.model}, {options.rows} of the {len(pool):,} rows of the pool, drawn with seed "
        f"{options.seed}. Intervals are 95%, by Fisher's transformation.",
        "",
        "| one side | other side | rows | Spearman | interval |",
        "|---|---|---|---|---|",
        *(
            f"| {a} | {b} | {x.n} | {x.value:.4f} | {x.low:.4f} to {x.high:.4f} |"
            for a, b, x in found
        ),
        "",
    ]
    print("\n".join(lines))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        listed = [{"one": a, "other": b, **asdict(x)} for a, b, x in found]
        result = {"command": command, "model": options.model, "comparisons": listed}
        (options.out / "scoring_orders.json").write_text(json.dumps(result, indent=1) + "\n")
        (options.out / "scoring_orders.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
