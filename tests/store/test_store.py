"""The artifact store: real processes, real kills."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaq.host.errors import StoreError
from qaq.store.keys import content_key
from qaq.store.store import Store

KEY = "ab" * 32


def build(store: Store, key: str = KEY, text: str = "content", name: str = "thing") -> Path:
    work = store.work("pairs", key)
    (work / "out" / "data.txt").write_text(text)
    return store.publish("pairs", name, key, {"summary": {}}).path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_key_does_not_depend_on_the_order_of_fields(tree):
    assert content_key(tree) == content_key(dict(reversed(tree.items())))


def test_true_and_one_are_different_values():
    assert content_key({"x": True}) != content_key({"x": 1})


def test_an_artifact_is_found_by_its_key_and_only_by_it(tmp_path):
    store = Store(tmp_path)
    assert store.find("pairs", KEY) is None
    folder = build(store)
    assert store.find("pairs", KEY).path == folder
    assert store.find("pairs", KEY[:-1] + "c") is None
    assert folder.name == f"thing-{KEY[:8]}"


def test_the_name_is_no_part_of_the_identity(tmp_path):
    store = Store(tmp_path)
    build(store, name="first name")
    assert store.find("pairs", KEY) is not None


def test_a_file_of_another_size_makes_the_artifact_unfound_and_it_can_be_rebuilt(tmp_path):
    store = Store(tmp_path)
    folder = build(store)
    (folder / "data.txt").write_text("con")
    assert store.find("pairs", KEY) is None
    assert (build(store) / "data.txt").read_text() == "content"
    assert store.find("pairs", KEY) is not None


def test_changed_bytes_of_the_same_size_are_named(tmp_path):
    store = Store(tmp_path)
    folder = build(store)
    (folder / "data.txt").write_text("CONTENT")
    assert store.find("pairs", KEY).damage() == ["data.txt"]


def test_unfinished_work_is_not_an_artifact_and_is_kept_for_the_next_try(tmp_path):
    store = Store(tmp_path)
    (store.work("pairs", KEY) / "out" / "half.txt").write_text("half")
    assert store.find("pairs", KEY) is None
    assert list(store.all()) == []
    assert (Store(tmp_path).work("pairs", KEY) / "out" / "half.txt").read_text() == "half"


HOLDER = """
import sys, time
from pathlib import Path
from qaq.store.store import Store
with Store(Path(sys.argv[1])).lock("pairs", sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(root: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), KEY], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_for_the_lock_and_is_told_who_holds_it(tmp_path):
    process = holder(tmp_path)
    told = []

    def waiting(who: str) -> None:
        told.append(who)
        process.kill()  # the holder dies without letting go

    with Store(tmp_path).lock("pairs", KEY, waiting):
        assert told == [f"pid {process.pid} on {os.uname().nodename}"]
    process.wait()


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    with Store(tmp_path).lock("pairs", KEY):
        assert time.monotonic() - started < 1


def test_the_lock_lasts_as_long_as_a_child_that_inherited_it(tmp_path):
    store = Store(tmp_path)
    with store.lock("pairs", KEY) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    told = []

    def waiting(who: str) -> None:
        told.append(who)
        child.kill()
        child.wait()

    with store.lock("pairs", KEY, waiting):
        assert told


def test_what_killed_writers_left_half_written_is_not_published(tmp_path):
    store = Store(tmp_path)
    out = store.work("pairs", KEY) / "out"
    (out / "shards").mkdir()
    (out / "shards" / "part-0.parquet").write_text("whole")
    (out / "shards" / ".part-1.parquet.77.tmp").write_text("ha")
    made = store.publish("pairs", "thing", KEY, {"summary": {}})
    assert set(made.manifest["files"]) == {"shards/part-0.parquet"}
    assert [p.name for p in (made.path / "shards").iterdir()] == ["part-0.parquet"]


def test_a_full_disk_publishes_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    """`/dev/full` answers every write as a full disk does."""
    store = Store(tmp_path)
    work = store.work("pairs", KEY)
    (work / "out" / "data.txt").write_text("content")
    (work / "out" / f".manifest.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="the disk is full"):
        store.publish("pairs", "thing", KEY, {"summary": {}})
    assert store.find("pairs", KEY) is None
    assert (work / "out" / "data.txt").read_text() == "content"


REPLACER = """
import itertools, sys
from pathlib import Path
from qaq.store.store import Store

root, key = Path(sys.argv[1]), sys.argv[2]
store = Store(root)
for number in itertools.count():
    before = store.find("pairs", key)
    (store.work("pairs", key) / "out" / "data.txt").write_text("more" * (number % 2 + 1))
    store.publish("pairs", "another", key, {"summary": {}, "number": number}, replace=before)
    print(flush=True)
"""


def test_an_artifact_that_is_replaced_is_there_at_every_moment_whoever_is_killed(tmp_path):
    store = Store(tmp_path)
    folder = build(store)
    for round_ in range(8):
        command = [sys.executable, "-c", REPLACER, str(tmp_path), KEY]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        until = time.monotonic() + 0.2 + 0.03 * round_
        looks = 0
        while time.monotonic() < until:
            assert store.find("pairs", KEY) is not None
            looks += 1
        process.kill()
        process.communicate()
        found = store.find("pairs", KEY)
        assert found is not None and found.path == folder and not found.damage()
        assert looks > 20
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("missing", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_is_one_sentence_and_nothing_is_taken_for_free(
    tmp_path, monkeypatch, missing
):
    store = Store(tmp_path)
    (tmp_path / ".leases").mkdir()
    lease = tmp_path / ".leases" / "another.json"
    lease.write_text("[]")

    def refused(file, how):
        raise OSError(missing, os.strerror(missing))

    monkeypatch.setattr(fcntl, "flock", refused)
    for held in (store.lease([KEY]), store.lock("pairs", KEY), store.collecting(wait=False)):
        with (
            pytest.raises(StoreError, match=r"its file system has no locks .*runtime\.store"),
            held,
        ):
            raise AssertionError("it was entered")
    for look in (store.leased, lambda: store.busy("pairs", KEY)):
        with pytest.raises(StoreError, match="has no locks"):
            look()
    assert lease.exists()
