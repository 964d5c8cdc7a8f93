"""Fixtures for judging: a cache of its own and small benchmarks made on the spot."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qaq.evaluation.benchmarks import Benchmark, load


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QAQ_CACHE", str(folder))
        yield folder


@pytest.fixture
def make_benchmark(tmp_path: Path, own_cache: Path) -> Callable[..., Benchmark]:
    """Build a benchmark of `f(x) = x + 1` tasks, one per name."""

    def make(names: list[str], **changes: Any) -> Benchmark:
        rows = []
        for i, _ in enumerate(names):
            row = {
                "task_id": f"Own/{i}",
                "prompt": "def f(x):\n",
                "entry_point": "f",
                "canonical_solution": "    return x + 1\n",
                "base_input": [[1], [2], [40]],
                "plus_input": [[5], [-3]],
                "contract": "",
                "atol": 0,
            }
            rows.append(json.dumps(row | changes))
        file = tmp_path / "own.jsonl"
        file.write_text("\n".join(rows) + "\n")
        return load("mini", file)

    return make
