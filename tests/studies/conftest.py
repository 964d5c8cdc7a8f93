"""A scored pool with known truths: damage shifts RMI by a stated number of standard deviations."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from qaq.host.runtime import RuntimeConfig
from qaq.store.jobs import Job
from qaq.store.tables import PAIRS, SCORES, SPANS, write_json, write_rows, write_table
from qaq.studies.config import StudyStage
from qaq.studies.data import read

SHIFTS = {"swapped_answer": -3.0, "echo": 4.0, "wrong_constant_or_operator": 0.0}


class World:
    """Rows, clean and damaged, and models that see the same truth with noise of their own."""

    def __init__(self, folder, clean=300, each=60, seed=0):
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        kinds = [None] * clean + [kind for kind in SHIFTS for _ in range(each)]
        self.defect = np.array(kinds, dtype=object)
        self.n = len(kinds)
        self.ids = [hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in range(self.n)]
        self.truth = self.rng.normal(size=self.n)
        self.shift = np.array([SHIFTS.get(kind, 0.0) for kind in kinds])
        self.question = self.rng.gamma(9, 0.3, self.n) + 1
        self.tokens = {s: self.rng.integers(10, 60, self.n) for s in ("q", "a")}
        self.inputs = {}
        rows = [
            {"row_id": i, "question": f"q {i}", "answer": f"a {i}", "source": "t", "defect": d}
            for i, d in zip(self.ids, kinds, strict=True)
        ]
        place = self.place("pairs", "pairs")
        write_rows(place / "pairs.parquet", rows, PAIRS)

    def place(self, role, kind, **config):
        place = self.folder / role.replace("/", "-")
        place.mkdir(parents=True)
        model = {"name": role, "dtype": "float32"}
        manifest = {"kind": kind, "name": role, "key": hashlib.sha256(role.encode()).hexdigest()}
        write_json(place / "manifest.json", manifest | {"full_config": {"model": model}} | config)
        self.inputs[role] = place
        return place

    def rmi(self, noise=0.3):
        """What a model says of the truth; two calls differ by the noise."""
        return self.truth + self.shift + noise * self.rng.normal(size=self.n)

    def add(self, scorer, rmi, framing="chat", spread=None, unscored=()):
        """Write one score table; `spread` scales RMI row by row."""
        place = self.place(f"scores/{scorer}/{framing}", "scores")
        rmi = 0.2 * rmi * (1.0 if spread is None else spread)
        answer = self.rng.gamma(9, 0.12, self.n) + 0.1
        means = {
            "q": self.question,
            "q_given_a": self.question - rmi,
            "a": answer,
            "a_given_q": answer * self.rng.normal(0.75, 0.1, self.n),
        }
        table = {"row_id": self.ids}
        gone = np.isin(np.arange(self.n), unscored)
        for span in SPANS:
            tokens = self.tokens[span[0]]
            table[f"nll_{span}"] = pa.array(means[span] * tokens, mask=gone)
            table[f"tokens_{span}"] = pa.array(tokens.astype(np.int32), mask=gone)
            table[f"bytes_{span}"] = pa.array(tokens.astype(np.int32), mask=gone)
        table["truncated"] = [False] * self.n
        table["reason"] = pa.array(np.where(gone, "no room", None), pa.string())
        (place / "shards").mkdir()
        write_table(place / "shards" / "0.parquet", pa.table(table), SCORES)
        return self

    def ask(self, yes):
        """Write what the strong model answers when asked about each pair, as probabilities."""
        place = self.place("asked", "scores")
        empty = {name: [None] * self.n for name in SCORES.names}
        table = pa.table(empty | {"row_id": self.ids, "nll_a_given_q": -np.log(yes)})
        (place / "shards").mkdir()
        write_table(place / "shards" / "0.parquet", table, SCORES)
        return self

    def spec(self, kind, arms=None, **study):
        return {
            "experiment": "test",
            "study": {"kind": kind, **study},
            "framing": "chat",
            "ratio": 0.25,
            "arms": arms or {"rmi_band": {"method": "rmi_band"}},
        }

    def job(self, kind, arms=None, **study):
        for name in ("out", "scratch"):
            (self.folder / name).mkdir(exist_ok=True)
        return Job(
            kind="study",
            name="test",
            key="0" * 64,
            config=self.spec(kind, arms, **study),
            inputs=self.inputs,
            out=self.folder / "out",
            scratch=self.folder / "scratch",
            runtime=RuntimeConfig(),
        )

    def data(self, kind, arms=None, **study):
        return read(self.job(kind, arms, **study).parse(StudyStage), self.inputs)

    def in_pool_order(self, values):
        """Values of the rows in the order of their ids, as a study has them."""
        return np.asarray(values)[np.argsort(self.ids)]


@pytest.fixture
def world(tmp_path):
    def make(**size):
        return World(tmp_path / "world", **size)

    return make
