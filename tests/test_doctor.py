"""`qaq doctor`: each check can fail, and then names what mends it."""

import importlib.metadata
import json
import shutil

import pytest

from qaq import doctor
from qaq.cli import main


def found(tmp_path) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(tmp_path / "artifacts")}


def test_it_looks_at_everything_a_run_rests_on(tmp_path):
    checks = found(tmp_path)
    names = {"python", "torch", "transformers", "evalplus", "devices", "smollm2-135m-instruct",
             "data mini", "data humaneval", "sandbox", "W&B account", "slurm", "disk store",
             "disk cache", "store locks", "clock"}  # fmt: skip
    assert names <= set(checks)
    assert checks["python"].ok
    assert checks["store locks"].ok
    assert not (tmp_path / "artifacts").exists()


def test_the_json_and_the_text_say_the_same(tmp_path, capsys):
    store = ["--store", str(tmp_path)]
    code = main(["doctor", "--json", *store])
    tree = json.loads(capsys.readouterr().out)
    assert main(["doctor", *store]) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(tree)
    for line, check in zip(lines, tree, strict=True):
        mark = "ok" if check["ok"] else "MISSING" if check["needed"] else "absent"
        assert line.startswith(mark)
        assert check["name"] in line
        assert check["ok"] or check["fix"] in line


def test_a_missing_package_and_one_of_another_version_are_named_with_the_command(
    tmp_path, monkeypatch
):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError
        return "4.0.0" if name == "transformers" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = found(tmp_path)
    assert not checks["peft"].ok
    assert checks["peft"].fix.startswith("pip install -c constraints.txt 'peft")
    assert checks["transformers"].found.startswith("4.0.0, needed ")
    assert main(["doctor", "--store", str(tmp_path)]) == 1


def test_a_full_disk_a_false_clock_and_locks_that_hold_nobody_are_found(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(doctor.fcntl, "flock", lambda *_: None)

    class Late(doctor.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) - doctor.datetime.timedelta(hours=1)

    monkeypatch.setattr(doctor.datetime, "datetime", Late)
    checks = found(tmp_path)
    for name in ("disk store", "disk cache", "store locks", "clock"):
        assert not checks[name].ok, name
        assert checks[name].fix


@pytest.mark.parametrize("name", ["data mini", "sandbox", "python", "hydra-core"])
def test_the_tests_themselves_run_on_a_sound_machine(doctor, name):
    assert doctor[name]
