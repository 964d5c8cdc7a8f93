"""What unpacking a packaged model to bfloat16 changes of its scores.

    python experiments/unpacked_precision.py --model qwen2.5-coder-0.5b-instruct --rows 40 \
        --out results/unpacked_precision.json

The same pairs of the embedded pool are scored three times: with the GGUF file's weights as
Transformers reads them, in float32; with the unpacked bfloat16 weights, computed in float32; and
with these in bfloat16, as the experiments run. Differences are per span, in nats a token, against
the first.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from qaq.data import stdlib
from qaq.host.progress import Progress
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer
from qaq.scoring.config import FramingConfig
from qaq.scoring.engine import Engine
from qaq.scoring.framing import make_framer
from qaq.scoring.stage import score_rows

SPANS = ("q", "q_given_a", "a", "a_given_q")


def from_gguf(name: str) -> PreTrainedModel:
    """The model with the packed file's weights, in float32."""
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "model.gguf"
        joined.write_bytes(b"".join(file.read_bytes() for file in embedded.packaged_files(name)))
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=joined.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    return model.eval()


def main() -> None:
    """Score three times and write the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = ModelConfig(name=given.model, id=f"embedded:{given.model}", dtype="float32")
    narrow = ModelConfig(name=given.model, id=f"embedded:{given.model}", dtype="bfloat16")
    tokenizer = load_tokenizer(config)
    framer = make_framer(FramingConfig(name="chat", kind="chat"), config, tokenizer, None, None)
    entries = [entry.record for entry in stdlib.read()]
    entries = entries[:: max(1, len(entries) // given.rows)][: given.rows]
    pairs = [
        {"row_id": f"{i:016x}", "question": e["instruction"], "answer": e["response"]}
        for i, e in enumerate(entries)
    ]
    makers = {
        "packed weights, float32": lambda: from_gguf(given.model),
        "bfloat16 weights, float32": lambda: load_model(config, "cpu"),
        "bfloat16 weights, bfloat16": lambda: load_model(narrow, "cpu"),
    }
    scored = {}
    for way, make in makers.items():
        engine = Engine(make(), ways=["padded"])
        with Progress(way, len(pairs), "rows") as progress:
            scored[way] = score_rows(pairs, framer, engine, 1024, progress)
    found = {"model": given.model, "rows": len(pairs), "against": "packed weights, float32"}
    exact = scored.pop("packed weights, float32")
    for way, rows in scored.items():
        report = {}
        for span in SPANS:
            deltas = [
                (a[f"nll_{span}"] - b[f"nll_{span}"]) / b[f"tokens_{span}"]
                for a, b in zip(rows, exact, strict=True)
            ]
            report[f"nats a token of {span}"] = {
                "mean": round(statistics.mean(deltas), 5),
                "largest": round(max(map(abs, deltas)), 5),
            }
        rmi = [[r["nll_q"] - r["nll_q_given_a"] for r in side] for side in (rows, exact)]
        report["Spearman of RMI"] = round(float(spearmanr(*rmi).statistic), 5)
        found[way] = report
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
