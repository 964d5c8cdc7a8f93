"""Names that a command prints are names that every command takes."""

import json
import os
import tempfile
from pathlib import Path

import pytest

from qaq import cli
from qaq.host.errors import UserError
from qaq.store.inspection import SUMMARY, find_artifact, find_result, latest_report, status_lines
from qaq.store.manifest import Artifact
from qaq.store.store import Store


def publish(store: Store, kind: str, name: str, key: str, created: str = "1") -> Artifact:
    out = store.work(kind, key) / "out"
    file = SUMMARY if kind == "report" else "rows.txt"
    (out / file).write_text(name)
    return store.publish(kind, name, key, {"created": created})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_whoever_may_only_read_a_store_is_told_what_runs_and_what_does_not() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = Store(Path(folder))
        for key in ("a" * 16, "b" * 16, "c" * 16):
            store.work("scores", key)
        with store.lock("scores", "a" * 16):
            pass  # its process has ended
        with store.lock("scores", "b" * 16):
            for place in store.root.rglob("*"):
                place.chmod(0o755 if place.is_dir() else 0o644)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.setgroups([])
                os.setuid(65534)
                busy = [store.busy("scores", key * 16) for key in "abc"]
                os.write(write, "\n".join([*status_lines(store.root), str(busy)]).encode())
                os._exit(0)
            os.waitpid(child, 0)
        dead, alive, never, busy = os.read(read, 4096).decode().splitlines()
        assert dead == f"scores-{'a' * 16}: unfinished; the run that needs it continues from here"
        assert f"running (pid {os.getpid()} on" in alive
        assert "unfinished" in never
        assert busy == "[False, True, False]"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    for kind, name, key in (
        ("subset", "random-0.25-seed1", "aaaaaaaa01"),
        ("subset", "rmi_band-0.25", "bbbbbbbb02"),
        ("subset", "rmi_band-0.5", "cccccccc03"),
        ("scores", "random-0.25-chat", "dddddddd04"),
        ("outcomes", "model-random-seed1-mini", "eeeeeeee05"),
        ("report", "mine", "ffffffff06"),
        ("report", "mirror", "abababab07"),
    ):
        publish(store, kind, name, key)
    return store


@pytest.mark.parametrize(
    ("wanted", "kind", "name"),
    [
        ("random-0.25", "subset", "random-0.25-seed1"),  # as a page has it, without the seed
        ("rmi_band-0.5", None, "rmi_band-0.5"),
        ("rmi_band-0.25-bbbbbbbb", None, "rmi_band-0.25"),
        ("bbbbbbbb", None, "rmi_band-0.25"),
        ("subset/random", None, "random-0.25-seed1"),
        ("model-random-seed1-…", None, "model-random-seed1-mini"),  # as a stage's line cuts it
    ],
)
def test_a_name_its_start_and_that_of_a_key_are_taken(
    store: Store, wanted: str, kind: str | None, name: str
) -> None:
    assert find_artifact(store.root, wanted, kind).manifest["name"] == name


def test_a_folder_of_the_store_is_taken_from_anywhere(store: Store) -> None:
    subset = find_artifact(store.root, "rmi_band-0.5")
    for wanted in (str(subset.path), f"subset/{subset.path.name}"):
        assert find_artifact(store.root, wanted).path == subset.path


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("rmi_band", "'rmi_band' fits several: rmi_band-0.25-bbbbbbbb, rmi_band-0.5-cccccccc"),
        ("rmi_bnd-0.5", "did you mean rmi_band-0.5?"),
        ("zzz", "there are: random-0.25-seed1, rmi_band-0.25, rmi_band-0.5"),
        ("", "no subset '' in"),
    ],
)
def test_what_fits_none_or_several_is_refused_with_what_was_meant(
    store: Store, wanted: str, said: str
) -> None:
    with pytest.raises(UserError) as error:
        find_artifact(store.root, wanted, "subset")
    assert said in str(error.value)


def test_of_reports_of_one_name_the_latest_is_taken(store: Store) -> None:
    later = publish(store, "report", "mine", "01010101aa", created="2")
    for wanted in ("mine", "min"):
        assert latest_report(store.root, wanted).path == later.path
    assert latest_report(store.root, "mine-ffffffff").key == "ffffffff06"
    with pytest.raises(UserError, match="'mi' fits several reports: mine, mirror"):
        latest_report(store.root, "mi")
    with pytest.raises(UserError, match=r"did you mean mine\?"):
        latest_report(store.root, "mien")


def test_compare_takes_the_names_of_reports_and_of_outcomes(store: Store) -> None:
    assert find_result(store.root, "mirror").manifest["kind"] == "report"
    assert find_result(store.root, "model-random").manifest["kind"] == "outcomes"
    with pytest.raises(UserError, match=r"no such file, no report of that name, and no outcomes"):
        find_result(store.root, "nothing.json")


def test_compare_reads_what_a_name_stands_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = {f"HumanEval/{i}": [{"base_status": "pass", "plus_status": "fail"}] for i in range(4)}
    file = tmp_path / "a_eval_results.json"
    file.write_text(json.dumps({"hash": "x", "eval": judged}))
    assert cli.main(["compare", str(file), "nothing", "--store", str(tmp_path / "store")]) == 2
    assert "nothing: no such file" in capsys.readouterr().err
    assert cli.main(["compare", str(file), str(file)]) == 0
