"""Fixtures that several rooms share."""

import gc
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qaq.models.forward import proven


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_search() -> None:
    """Imported libraries hold millions of objects, which each collection of garbage goes through.

    Loading a large tokenizer at the end of the suite took a minute and more because of that.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests change a model or the code around it behind the back of what is remembered of both."""
    monkeypatch.setattr(proven, "_case", lambda model, way: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark and instruction files, where a machine has one."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("QAQ_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real data files are not on this machine (set QAQ_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def doctor() -> dict[str, bool]:
    """What `qaq doctor --json` finds on this machine: whether each of its checks is well."""
    command = [sys.executable, "-m", "qaq.cli", "doctor", "--json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return {check["name"]: check["ok"] for check in json.loads(found.stdout)}


def load_tiny() -> ModuleType:
    """The module `tests/tiny.py`, which is on no import path."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny randomly initialised Llama with a ChatML tokenizer."""
    folder: Path = load_tiny().build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return folder


@pytest.fixture(scope="session")
def other_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture and tokenizer with other weights: a second scorer."""
    folder: Path = load_tiny().build_tiny_model(tmp_path_factory.mktemp("tiny") / "other", seed=1)
    return folder
