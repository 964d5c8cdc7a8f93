"""Running the pairs stage as a worker would, and a pool of real pairs."""

import json

import pytest

from qaq.artifacts import PAIRS, PLANTED, QUARANTINE, read_json, read_table
from qaq.config import RuntimeConfig
from qaq.data import stage, stdlib
from qaq.data.intake import screen
from qaq.data.rows import Pair
from qaq.job import Job


@pytest.fixture(scope="session")
def mined():
    """Every pair that this Python's library gives."""
    return [row for row in screen(stdlib.read(), "stdlib") if isinstance(row, Pair)]


class Result:
    """What the stage left behind."""

    def __init__(self, out, summary):
        self.summary = summary
        self.pairs = read_table(out / "pairs.parquet", PAIRS).to_pylist()
        self.quarantine = read_table(out / "quarantine.parquet", QUARANTINE).to_pylist()
        self.planted = read_table(out / "planted.parquet", PLANTED).to_pylist()
        self.counts = read_json(out / "counts.json")


@pytest.fixture
def run_pairs(tmp_path):
    """Run the stage on a data config (and a noise config) given as plain trees."""

    def run(data, noise=None):
        for name in ("out", "scratch"):
            (tmp_path / name).mkdir(exist_ok=True)
        config = {"data": {"name": "test", **data}, "noise": noise or {}}
        out, scratch = tmp_path / "out", tmp_path / "scratch"
        job = Job("pairs", "test", "0" * 64, config, {}, out, scratch, RuntimeConfig())
        return Result(out, stage.run(job))

    return run


@pytest.fixture
def write_jsonl(tmp_path):
    """Write lines (objects, or bytes as they are) to a file."""

    def write(*lines, name="pool.jsonl"):
        path = tmp_path / name
        encoded = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
        path.write_bytes(b"".join(line + b"\n" for line in encoded))
        return path

    return write
