"""A remembered hash is only used for the bytes that it was taken from."""

import hashlib
import os
import shutil

import pytest

from qaq.store.cache import remembered_sha256


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    assert remembered_sha256(path) == hashlib.sha256(b"one").hexdigest()
    return path


def test_bytes_changed_in_place_under_the_same_size_and_time_are_noticed(file):
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert remembered_sha256(file) == hashlib.sha256(b"two").hexdigest()


def test_another_file_of_the_same_size_and_time_in_its_place_is_noticed(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"two")
    shutil.copystat(file, other)
    other.replace(file)
    assert remembered_sha256(file) == hashlib.sha256(b"two").hexdigest()
