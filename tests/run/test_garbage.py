"""`qaq gc`: it deletes what nobody needs, and only that."""

import subprocess
import sys
from pathlib import Path

import pytest

from qaq.cli import main
from qaq.host.errors import UserError
from qaq.run.compose import compose
from qaq.run.garbage import collect, garbage, needed
from qaq.run.pipeline import plan
from qaq.store.store import Store

SPARE = "cd" * 32
KEEP = [["experiment=quickstart"]]


def put(store: Store, kind: str, name: str, key: str) -> Path:
    (store.work(kind, key) / "out" / "data.txt").write_text(name)
    return store.publish(kind, name, key, {"summary": {}, "seconds": 1.0, "created": "now"}).path


@pytest.fixture
def full(tmp_path):
    """A store with everything that the quickstart needs, and one artifact more."""
    store = Store(tmp_path / "store")
    for stage in plan(compose(["experiment=quickstart"])):
        put(store, stage.kind, stage.name, stage.key)
    return store, put(store, "subset", "old", SPARE)


def test_a_dry_run_names_what_it_would_delete_and_deletes_nothing(full, capsys):
    store, spare = full
    before = len(list(store.all()))
    command = ["gc", "--store", str(store.root), "--keep", "experiment=quickstart"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"would delete {spare.name}" in out
    assert "nothing was: add --delete" in out
    assert len(list(store.all())) == before


def test_it_deletes_the_rest_and_nothing_that_the_experiment_needs(full):
    store, spare = full
    collect(store.root, KEEP, delete=True)
    assert not spare.exists()
    kept = {artifact.key for artifact in store.all()}
    assert kept == {stage.key for stage in plan(compose(["experiment=quickstart"]))}
    assert not (store.root / ".trash").exists()


def test_a_sweep_is_kept_with_its_jobs_and_its_comparison():
    keys = needed([["selector=random", "ratio=0.1,0.25", "seed=1,2"]])
    for job in (["ratio=0.1", "seed=2"], ["ratio=0.25", "seed=1"]):
        stages = plan(compose(["selector=random", *job]))
        assert {stage.key for stage in stages} <= keys


def test_unfinished_work_is_kept_where_the_experiment_needs_it(full):
    store, _ = full
    wanted = plan(compose(["experiment=quickstart"]))[-1].key
    mine, other = store.work("report", wanted), store.work("report", "ef" * 32)
    collect(store.root, KEEP, delete=True)
    assert mine.exists()
    assert not other.exists()


HOLD = """
import sys, time
from pathlib import Path
from qaq.store.store import Store
store, how, key = Store(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
with store.lease([key]) if how == "lease" else store.lock("subset", key):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["lease", "lock"])
def test_what_a_living_process_needs_or_makes_is_spared_until_it_dies(full, how):
    store, spare = full
    command = [sys.executable, "-c", HOLD, str(store.root), how, SPARE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    collect(store.root, KEEP, delete=True)
    assert spare.exists()
    process.kill()  # without a word
    process.wait()
    collect(store.root, KEEP, delete=True)
    assert not spare.exists()
    assert garbage(store, set()) != []


def test_an_experiment_that_does_not_compose_keeps_everything(full):
    store, spare = full
    with pytest.raises(UserError):
        collect(store.root, [["experiment=quickstrat"]], delete=True)
    assert spare.exists()


def test_where_nothing_is_held_of_what_is_to_be_kept_nothing_is_named_or_deleted(tmp_path, capsys):
    store = Store(tmp_path)
    spare = put(store, "subset", "old", SPARE)
    for more in ([], ["--delete"]):
        command = ["gc", "--store", str(tmp_path), "--keep", "selector=random", *more]
        assert main(command) == 2
        assert "holds nothing of what is to be kept" in capsys.readouterr().err
    assert spare.exists()


@pytest.mark.parametrize("left", [None, "", "{}"])
def test_a_folder_whose_manifest_is_gone_or_damaged_is_shown_and_collected(full, capsys, left):
    store, spare = full
    kept = next(store.root.glob("pairs/*"))
    for folder in (spare, kept):
        (folder / "manifest.json").unlink()
        if left is not None:
            (folder / "manifest.json").write_text(left)
    offline = store.root / "wandb" / f"offline-run-20260101_000000-{SPARE[:16]}"
    offline.mkdir(parents=True)  # of a mirror, no artifact
    assert main(["status", "--store", str(store.root)]) == 0
    out = capsys.readouterr().out
    assert all(f"DAMAGED: {folder / 'manifest.json'}" in out for folder in (spare, kept))
    assert "wandb" not in out
    collect(store.root, KEEP, delete=True)
    assert not spare.exists() and kept.exists() and offline.exists()


def test_without_keep_it_does_nothing(full):
    with pytest.raises(SystemExit):
        main(["gc", "--store", str(full[0].root)])


def test_a_store_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no store"):
        collect(tmp_path / "nowhere", KEEP, delete=False)
    assert not (tmp_path / "nowhere").exists()
