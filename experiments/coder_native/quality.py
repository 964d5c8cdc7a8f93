"""Packs what `data=synthetic` wrote, with what can be seen of each answer without a model.

    python experiments/coder_native/quality.py artifacts/synthesis/FOLDER/pairs.jsonl \\
        src/qaq/data/pools/coders.parquet

`parses`: the answer holds Python that parses. `runs`: that Python ends without an error when it is
executed alone, in the judge's sandbox, without input. `defines_asked`: a name that the question
asks for is defined in the answer (null where it asks for none). `source` says who answered.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from qaq.data.python_code import find_python
from qaq.evaluation import benchmarks
from qaq.evaluation.config import Suite
from qaq.evaluation.judge.judge import JudgeSettings, judge
from qaq.evaluation.outcomes import Sample
from qaq.selection.controls import defines_asked
from qaq.store.tables import write_jsonl

LOADED = "\n\ndef loaded():\n    return 1\n"  # reached when all before it ran


def main() -> None:
    """Read, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    table = pyarrow.json.read_json(args.pairs)
    questions, answers = table["instruction"].to_pylist(), table["output"].to_pylist()
    code = [python_of(answer) for answer in answers]
    asked = [defines_asked(q, a) for q, a in zip(questions, answers, strict=True)]
    columns = {
        "parses": [text is not None for text in code],
        "runs": runs(code),
        "defines_asked": [None if math.isnan(found) else bool(found) for found in asked],
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.bool_()))
    pq.write_table(table, args.out, compression="zstd")
    for who in ["strong", "weak"]:
        part = table.filter(pa.compute.equal(table["source"], who))
        rates = {name: pa.compute.mean(part[name].cast("float64")).as_py() for name in columns}
        print(who, len(part), {name: round(rate, 3) for name, rate in rates.items()})


def python_of(answer: str) -> str | None:
    """The Python of an answer, if it holds any that parses."""
    block = find_python(answer)
    return answer[block.start : block.end] if block else None


def runs(programs: Sequence[str | None]) -> list[bool]:
    """Whether each program, executed alone, ends without an error; those without code do not."""
    given = {f"row/{number}": text for number, text in enumerate(programs) if text is not None}
    task = {"prompt": "", "entry_point": "loaded", "canonical_solution": LOADED}
    tests = {"base_input": [[]], "plus_input": [[]], "contract": "", "atol": 0}
    samples = [Sample(name, 0, text, text + LOADED) for name, text in given.items()]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "rows.jsonl")
        write_jsonl(file, [{"task_id": name} | task | tests for name in given])
        benchmark = benchmarks.load("rows", suite=Suite(file=file))
        outcomes = judge(benchmark, samples, JudgeSettings(), Path(scratch, "judge")).outcomes
    passed = {outcome.task_id for outcome in outcomes if outcome.plus_passed}
    return [f"row/{number}" in passed for number in range(len(programs))]


if __name__ == "__main__":
    main()
