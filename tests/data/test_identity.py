import hashlib
import subprocess
import sys

import pytest

from qaq.data import stdlib
from qaq.data.config import DataConfig
from qaq.data.identity import identity
from qaq.host.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))


def test_a_file_is_its_bytes_wherever_it_lies(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"rows")
        config = DataConfig(name=name, source="jsonl", path=tmp_path / name)
        assert identity(config) == {"sha256": hashlib.sha256(b"rows").hexdigest()}


def test_an_edited_file_is_another(tmp_path):
    path = tmp_path / "a.jsonl"
    config = DataConfig(name="a", source="jsonl", path=path)
    path.write_bytes(b"one")
    before = identity(config)
    path.write_bytes(b"one and two")
    assert identity(config) != before


def test_a_missing_file_is_an_error_with_its_path(tmp_path):
    config = DataConfig(name="a", source="parquet", path=tmp_path / "nowhere.parquet")
    with pytest.raises(DataError, match=r"no such file: .*nowhere\.parquet"):
        identity(config)


def test_the_library_is_the_contents_of_its_files_in_order():
    digest = hashlib.sha256()
    for path in stdlib.files():
        name = path.relative_to(stdlib.library()).as_posix()
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    expected = {"sha256": digest.hexdigest()}
    assert identity(DataConfig(name="a", source="stdlib")) == expected


def test_a_pinned_commit_of_the_hub_needs_no_network():
    config = DataConfig(name="a", source="hub", hub_id="o/n", revision=COMMIT, split="test")
    assert identity(config) == {"revision": COMMIT, "split": "test"}


def test_planning_loads_neither_torch_nor_datasets():
    code = (
        "import sys; from qaq.data import identity, stage; from qaq.data.config import DataConfig\n"
        "identity.identity(DataConfig(name='a', source='stdlib'))\n"
        "print({'torch', 'datasets', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
