"""Running the pairs stage as a worker would, and a pool of real pairs."""

import json

import pytest

from qaq.data import stage
from qaq.data.rows import Pair
from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, PLANTED, QUARANTINE, read_json, read_table


class Result:
    """What the stage left behind."""

    def __init__(self, out, summary):
        self.summary = summary
        self.pairs = read_table(out / "pairs.parquet", PAIRS).to_pylist()
        self.quarantine = read_table(out / "quarantine.parquet", QUARANTINE).to_pylist()
        self.planted = read_table(out / "planted.parquet", PLANTED).to_pylist()
        self.counts = read_json(out / "counts.json")


def run_stage(folder, data, noise=None):
    """Run the stage on a data config (and a noise config) given as plain trees."""
    out, scratch = folder / "out", folder / "scratch"
    for path in (out, scratch):
        path.mkdir(exist_ok=True)
    config = {"data": {"name": "test", **data}, "noise": noise or {}}
    job = Job("pairs", "test", "0" * 64, config, {}, out, scratch, RuntimeConfig())
    return Result(out, stage.run(job))


@pytest.fixture
def run_pairs(tmp_path):
    """Run the stage in a folder of the test's own."""
    return lambda data, noise=None: run_stage(tmp_path, data, noise)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The stage's result on the whole of this Python's library; made once, it takes seconds."""
    return run_stage(tmp_path_factory.mktemp("library"), {"source": "stdlib"})


@pytest.fixture(scope="session")
def mined(library):
    """Every pair that this Python's library gives."""
    return [Pair(row["question"], row["answer"], row["source"]) for row in library.pairs]


@pytest.fixture
def write_jsonl(tmp_path):
    """Write lines (objects, or bytes as they are) to a file."""

    def write(*lines, name="pool.jsonl"):
        path = tmp_path / name
        encoded = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
        path.write_bytes(b"".join(line + b"\n" for line in encoded))
        return path

    return write
