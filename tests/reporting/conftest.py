"""A small world of artifacts with known truths, written as the stages would write them.

Nothing here uses another stage: passes are drawn from per-task chances, scores from normal
distributions shifted by defect, so every number that a report shows can be worked out in a test.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qaq.host.runtime import RuntimeConfig
from qaq.reporting.assemble import assemble
from qaq.reporting.collect import collect
from qaq.reporting.config import ReportStage
from qaq.reporting.schema import Results
from qaq.reporting.stage import run
from qaq.store.jobs import Job
from qaq.store.tables import (
    PAIRS,
    PER_PROBLEM,
    SCORES,
    SUBSET,
    write_json,
    write_jsonl,
    write_rows,
)

DEFECTS = {
    "swapped_answer": 0.06,
    "echo": 0.06,
    "invented_terms": 0.06,
    "truncated": 0.06,
    "not_code": 0.06,
}
# Mean shift of RMI and of IFD by defect, in standard deviations.
RMI_SHIFT = {"swapped_answer": -2.0, "echo": 3.0, "invented_terms": -0.8, "not_code": -1.2}
IFD_SHIFT = {"swapped_answer": 2.0, "echo": -1.0, "not_code": 1.0}
GEMMA, SMOLLM = (
    {"name": "gemma3_270m", "dtype": "float32"},
    {"name": "smollm2_135m", "dtype": "float32"},
)
FRAMING = {"kind": "chat", "max_tokens": 2048, "reverse_instruction": "Write it: {answer}"}
CONFIGS: dict[str, Any] = {
    "pairs": {
        "data": {"name": "stdlib", "source": "stdlib", "limit": 600},
        "noise": {"name": "planted", "shares": DEFECTS},
    },
    "strong": {"model": GEMMA, "framing": FRAMING, "system_prompt": None},
    "weak": {"model": SMOLLM, "framing": FRAMING, "system_prompt": None},
    "adapter": {
        "model": GEMMA,
        "train": {
            "lora": {"rank": 8, "alpha": 16},
            "batch_size": 16,
            "learning_rate": 2e-4,
            "by_share": [{"share": 0.25, "batch_size": 8, "learning_rate": 1e-4}],
            "epochs": 3,
            "match": "epochs",
            "cutoff_tokens": 1024,
        },
    },
    "outcomes": {
        "model": GEMMA,
        "eval": {
            "prompt": "chat",
            "judge": "repaired",
            "min_time_limit": 4,
            "max_new_tokens": 768,
        },
    },
}
READS = {"ifd": ("strong",), "rmi_band": ("strong",), "diff_high": ("strong", "weak")}


def key_of(role: str) -> str:
    """The key of the artifact in a role."""
    return hashlib.sha256(role.encode()).hexdigest()


@dataclass
class World:
    """What to build. `lift` adds to an arm's chance on every task; `bits` to its bits per byte."""

    folder: Path
    methods: dict[str, str] = field(
        default_factory=lambda: {
            "full": "full",
            "random": "random",
            "ifd": "ifd_cherry",
            "rmi_band": "rmi_band",
            "diff_high": "diff_high",
        }
    )
    seeds: tuple[int, ...] = (1, 2, 3)
    suites: dict[str, int] = field(default_factory=lambda: {"humaneval": 164, "mbpp": 378})
    lift: dict[str, float] = field(default_factory=dict)
    bits: dict[str, float] = field(default_factory=dict)
    rows: int = 600
    noise: bool = True
    scored: bool = True
    untuned: bool = True
    spans: tuple[str, ...] = ("q", "q_given_a", "a", "a_given_q")
    settings: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    inputs: dict[str, Path] = field(default_factory=dict)

    def build(self) -> Job:
        """Write every artifact and return the report's job."""
        self.rng = np.random.default_rng(7)
        self._pairs()
        if self.scored:
            for role in ("strong", "weak"):
                self._scores(role)
        for arm in self.methods:
            for seed in self.seeds:
                self._subset(arm, seed)
                self._adapter(arm, seed)
        self._outcomes()
        out, scratch = self.folder / "out", self.folder / "scratch"
        out.mkdir()
        scratch.mkdir()
        return Job(
            kind="report",
            name="known_truth",
            key="f" * 64,
            config={
                "experiment": "known_truth",
                "arms": [
                    {
                        "name": name,
                        "method": method,
                        "ratio": None if method == "full" else 0.25,
                        "seeds": list(self.seeds),
                    }
                    for name, method in self.methods.items()
                ],
                "suites": list(self.suites),
                "untuned": self.untuned,
                "reference": self.reference,
                "settings": self.settings,
            },
            inputs=self.inputs,
            out=out,
            scratch=scratch,
            runtime=RuntimeConfig(),
        )

    def _artifact(self, role: str, kind: str, name: str, **facts: Any) -> Path:
        folder = self.folder / "store" / role.replace("/", "-")
        folder.mkdir(parents=True)
        manifest = {
            "kind": kind,
            "name": name,
            "key": key_of(role),
            "seconds": 12.5,
            "peak_rss_mib": 2048,
            "summary": {},
            "full_config": CONFIGS.get(role.split("/", maxsplit=1)[0], {}),
            "packages": {"python": "3.11.7", "torch": "2.13.0"},
            "hardware": {"machine": "x86_64", "cpu": "Some CPU", "cores": 2, "cuda": []},
            "inputs": {},
            "files": {},
        }
        write_json(folder / "manifest.json", manifest | facts)
        self.inputs[role] = folder
        return folder

    def _pairs(self) -> None:
        kinds = [k for k, share in DEFECTS.items() for _ in range(round(share * self.rows))]
        kinds = kinds if self.noise else []
        self.defects = np.array(kinds + [None] * (self.rows - len(kinds)), dtype=object)
        self.rng.shuffle(self.defects)
        self.ids = [hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in range(self.rows)]
        rows = [
            {
                "row_id": row_id,
                "question": "q" * int(self.rng.integers(20, 200)),
                "answer": "a" * int(self.rng.integers(40, 900)),
                "source": "stdlib",
                "defect": defect,
            }
            for row_id, defect in zip(self.ids, self.defects, strict=True)
        ]
        folder = self._artifact("pairs", "pairs", "stdlib")
        write_rows(folder / "pairs.parquet", rows, PAIRS)

    def _scores(self, role: str) -> None:
        folder = self._artifact(role, "scores", role, seconds=60.0 if role == "strong" else 30.0)
        rows = []
        for row_id, defect in zip(self.ids, self.defects, strict=True):
            log_ppl = float(self.rng.gamma(9, 0.3)) + 0.5
            rmi = 0.35 * log_ppl + 0.25 * (self.rng.normal() + RMI_SHIFT.get(defect, 0.0))
            ifd = 0.8 + 0.08 * (self.rng.normal() + IFD_SHIFT.get(defect, 0.0))
            row: dict[str, Any] = {"row_id": row_id, "truncated": False, "reason": None}
            values = {"q": log_ppl, "q_given_a": log_ppl - rmi, "a": 1.5, "a_given_q": 1.5 * ifd}
            for span, mean in values.items():
                known = span in self.spans
                row |= {f"nll_{span}": mean * 50 if known else None}
                row |= {f"tokens_{span}": 50 if known else None}
                row |= {f"bytes_{span}": 200 if known else None}
            rows.append(row)
        rows[0] |= {f"nll_{s}": None for s in ("q", "q_given_a", "a", "a_given_q")}
        rows[0]["reason"] = "empty span"
        (folder / "shards").mkdir()
        write_rows(folder / "shards" / "0000.parquet", rows[: self.rows // 2], SCORES)
        write_rows(folder / "shards" / "0001.parquet", rows[self.rows // 2 :], SCORES)

    def _subset(self, arm: str, seed: int) -> None:
        reads = {r: key_of(r) for r in ("pairs", *READS.get(arm, ()))}
        config = {"selector": {"method": self.methods[arm]}}
        role = f"subset/{arm}/{seed}"
        folder = self._artifact(role, "subset", arm, inputs=reads, full_config=config)
        rng = np.random.default_rng([seed, *arm.encode()])
        chance = rng.random(self.rows)
        if arm == "rmi_band":  # keeps neither mismatched pairs nor echoes
            chance += np.isin(self.defects, ["swapped_answer", "echo"])
        if arm == "ifd":  # keeps every mismatched pair
            chance -= np.isin(self.defects, ["swapped_answer"])
        keep = self.rows if arm == "full" else self.rows // 4
        kept = np.argsort(np.argsort(chance)) < keep
        rows = [
            {
                "row_id": row_id,
                "score": float(value),
                "stratum": None,
                "rank": float(value % 1),
                "kept": bool(k),
                "reason": "kept" if k else "not kept",
            }
            for row_id, value, k in zip(self.ids, chance, kept, strict=True)
        ]
        write_rows(folder / "rows.parquet", rows, SUBSET)

    def _adapter(self, arm: str, seed: int) -> None:
        seconds = 400.0 if arm == "full" else 100.0
        summary = {"tokens": 400_000 if arm == "full" else 100_000, "steps": 40}
        summary |= {"frozen": 268_000_000, "trainable": 2_000_000}
        role = f"adapter/{arm}/{seed}"
        folder = self._artifact(role, "adapter", arm, seconds=seconds, summary=summary)
        steps = 120 if arm == "full" else 40
        curve = [
            {
                "time": 1e9 + i,
                "step": i,
                "loss": 1.2 + np.exp(-i / 15) + 0.03 * float(self.rng.normal()),
                "learning_rate": 1e-4 * (1 - i / steps),
            }
            for i in range(1, steps + 1)
        ]
        write_jsonl(folder / "training.jsonl", curve)

    def _outcomes(self) -> None:
        arms = dict.fromkeys(self.methods, self.seeds)
        if self.untuned:
            arms["untuned"] = (0,)
        for suite, n in self.suites.items():
            ease = self.rng.beta(0.4, 1.2, n)
            bits = self.rng.gamma(20, 0.03, n)
            for arm, seeds in arms.items():
                for seed in seeds:
                    chance = np.clip(ease + self.lift.get(arm, 0.0), 0, 1)
                    base = self.rng.random(n) < chance
                    plus = base & (self.rng.random(n) < 0.9)
                    noise = self.rng.normal(self.bits.get(arm, 0.0), 0.004, n)
                    self._judged(suite, arm, seed, base, plus, bits + noise)

    def _judged(self, suite: str, arm: str, seed: int, base: Any, plus: Any, bits: Any) -> None:
        folder = self._artifact(f"outcomes/{arm}/{seed}/{suite}", "outcomes", f"{arm}-{suite}")
        rows = [
            {
                "benchmark": suite,
                "task_id": f"{suite}/{i}",
                "sample": 0,
                "base_passed": bool(base[i]),
                "plus_passed": bool(plus[i]),
                "failure": None if plus[i] else "wrong",
                "suspect": False,
                "prompt_sha": f"{i:064x}",
                "completion_sha": f"{i + seed:064x}",
                "new_tokens": 40,
                "solution_bits_per_byte": None if np.isnan(bits[i]) else float(bits[i]),
            }
            for i in range(len(base))
        ]
        write_rows(folder / "per_problem.parquet", rows, PER_PROBLEM)
        counts = {"at_limit": 2, "no_code": seed, "cut": 7, "finish": {"length": 2, "stop": 7}}
        write_json(folder / "scores.json", counts)


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., World]:
    """A world to be built in the test's own folder; arguments are the fields of `World`."""
    return lambda **fields: World(folder=tmp_path, **fields)


SMALL: dict[str, Any] = {"suites": {"mini": 80}, "seeds": (1, 2), "rows": 300}


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished report on arms of which two are truly above, one truly below random."""
    folder = tmp_path_factory.mktemp("told")
    lift = {"rmi_band": 0.35, "full": 0.35, "ifd": -0.5}
    job = World(folder=folder, lift=lift, bits={"ifd": 0.02}, **SMALL).build()
    run(job)
    return job


def assembled(job: Job) -> Results:
    """The results of a job without drawing and writing them."""
    return assemble(collect(job.parse(ReportStage), job.inputs))
