"""The store under fire: processes build, read, damage, collect and kill each other."""

import json
import subprocess
import sys
import time

import pytest

from qaq.store.keys import content_key
from qaq.store.store import Store

KEYS = [content_key(f"key {n}") for n in range(6)]

# One process. It checks for itself what must never happen, and writes down each time it does.
SOLDIER = """
import contextlib, fcntl, json, os, random, signal, sys, time
from pathlib import Path
from qaq.run.garbage import _remove, garbage
from qaq.store.store import Store

root, side, number, end = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
keys = json.loads(sys.argv[5])
store, chance = Store(root), random.Random(f"{number} {os.getpid()}")
(side / "pids" / str(os.getpid())).touch()


def tell(what, detail=""):
    with (side / "events.jsonl").open("a") as file:
        file.write(json.dumps([what, str(detail)]) + "\\n")


def leased(key):
    return (side / f"leased-{key}").open("a")  # locked by whoever holds a lease


def content(key, part):
    return (key * 50 * (part + 1)).encode()


def build(key, damaged=None):
    with store.lock("thing", key):
        found = store.find("thing", key)
        if found and not (damaged and found.damage()):
            return
        if found:
            store.discard(found.path)
        with (side / f"witness-{key[:8]}").open("a") as witness:
            try:  # a lock of our own: two builders at once cannot both have it
                fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tell("VIOLATION", f"{key[:8]} is built twice at once")
            out = store.work("thing", key) / "out"
            for part in range(3):
                (out / f"part-{part}").write_bytes(content(key, part))
                time.sleep(chance.uniform(0, 0.02))
            store.publish("thing", "thing", key, {"summary": {}})
            tell("built", key[:8])


def read(key):
    found = store.find("thing", key)
    if not found:
        return
    place = found.path.stat().st_ino if found.path.exists() else None
    time.sleep(chance.uniform(0, 0.01))
    bad = found.damage()
    with contextlib.suppress(FileNotFoundError):
        if found.path.stat().st_ino != place:
            return  # replaced as a whole in the meantime
        for name in bad:
            file = found.path / name
            if not file.exists() or file.stat().st_size != found.manifest["files"][name]["bytes"]:
                tell("VIOLATION", f"half an artifact: {file}")
            else:
                tell("found damage", file)
        if bad:
            build(key, damaged=True)
            tell("repaired", key[:8])
        else:
            tell("read", key[:8])


def damage(key):
    found = store.find("thing", key)
    if found:
        with contextlib.suppress(FileNotFoundError), (found.path / "part-1").open("r+b") as file:
            file.write(b"!")


def kill(key):
    others = [int(p.name) for p in (side / "pids").iterdir() if p.name != str(os.getpid())]
    if others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(others), signal.SIGKILL)
            tell("killed")


def collect(key):
    keep = set(chance.sample(keys, 4))
    with contextlib.suppress(BlockingIOError), store.collecting(wait=False):
        gone = [g for g in garbage(store, keep) if _remove(store, g)]
        tell("collected", len(gone))
        for g in gone:
            with leased(g.lock.split("-")[1][:16]) as witness:
                try:
                    fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    tell("VIOLATION", f"{g.what} was collected under a lease")


ACTS = [build] * 6 + [read] * 10 + [damage] + [collect] * 2 + [kill]
while time.time() < end:
    key = chance.choice(keys)
    act = chance.choice(ACTS)
    if act in (build, read):
        with store.lease([key]), leased(key[:16]) as witness:
            fcntl.flock(witness, fcntl.LOCK_SH)
            act(key)
    else:
        act(key)
    time.sleep(chance.uniform(0, 0.03))
(side / "pids" / str(os.getpid())).unlink(missing_ok=True)
"""


def seconds_to_start() -> float:
    """What a process needs for its imports, on a machine as busy as it is now."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", SOLDIER.partition("\nroot, ")[0]], check=True)
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("processes", "seconds"), [(4, 5), pytest.param(8, 60, marks=pytest.mark.slow)]
)
def test_nothing_half_is_ever_seen_and_no_key_is_built_twice_at_once(tmp_path, processes, seconds):
    root, side = tmp_path / "store", tmp_path / "side"
    (side / "pids").mkdir(parents=True)
    end = time.time() + seconds + 3 * seconds_to_start()  # the killed are started again
    arguments = [str(root), str(side)]

    def start(number: int) -> subprocess.Popen:
        command = [sys.executable, "-c", SOLDIER, *arguments, str(number), str(end)]
        return subprocess.Popen([*command, json.dumps(KEYS)])

    running = [start(n) for n in range(processes)]
    while time.time() < end:
        for n, process in enumerate(running):
            if process.poll() is not None and time.time() < end - 0.5:
                (side / "pids" / str(process.pid)).unlink(missing_ok=True)
                assert process.returncode == -9, "a process died of itself"
                running[n] = start(n)
        time.sleep(0.02)
    for process in running:
        assert process.wait(timeout=120) in (0, -9)  # on a busy machine
    events = [json.loads(line) for line in (side / "events.jsonl").read_text().splitlines()]
    counts = {what: sum(e[0] == what for e in events) for what, _ in events}
    print(counts)
    assert [e for e in events if e[0] == "VIOLATION"] == []
    assert all(counts.get(what, 0) > 0 for what in ("built", "read", "killed", "collected"))
    if seconds > 30:
        assert counts["repaired"] > 0
    check_afterwards(Store(root))


def check_afterwards(store: Store) -> None:
    """Every lock is free, every artifact whole (or its damage found), each key there once."""
    for key in KEYS:
        started = time.monotonic()
        with store.lock("thing", key):
            assert time.monotonic() - started < 1
    found = [artifact.key for artifact in store.all()]
    assert len(found) == len(set(found))
    with store.collecting(wait=False):
        assert store.leased() == set()  # the leases of the killed are gone
    assert list((store.root / ".leases").iterdir()) == []
