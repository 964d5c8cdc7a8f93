"""Fixtures that several rooms share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark and instruction files, where a machine has one."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("QAQ_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("the real data files are not on this machine (set QAQ_SHARED_DATA)")
    return folder
