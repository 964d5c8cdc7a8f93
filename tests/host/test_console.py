"""Messages and tables on terminals that are not UTF-8, and files that cannot be made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qaq import cli
from qaq.host import hardware
from qaq.host.errors import ConfigError
from qaq.host.targets import file_trouble
from qaq.run.compose import compose


def qaq(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qaq.cli", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture
def result(tmp_path: Path) -> Path:
    judged = {
        f"HumanEval/{i}": [{"base_status": "pass" if i else "fail", "plus_status": "fail"}]
        for i in range(4)
    }
    file = tmp_path / "a_eval_results.json"
    file.write_text(json.dumps({"hash": "x", "eval": judged}))
    return file


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_is_not_utf_8_gets_the_nearest_characters(
    result: Path, encoding: str
) -> None:
    found = qaq("compare", str(result), str(result), PYTHONIOENCODING=encoding)
    assert found.returncode == 0 and "A - B" in found.stdout and "\\u" not in found.stdout
    assert "Traceback" not in found.stderr


OVERRIDES = [
    ("data.path=my data/file (1).jsonl", ["""'data.path="my data/file (1).jsonl"'"""]),
    ("data.path=a=b/{x}.jsonl", ["""'data.path="a=b/{x}.jsonl"'"""]),
    ("experiment=null", ["experiment: it chooses", "quickstart"]),
    ("train=null", ["leave it out", "none"]),
    ("selector=a,", ["selector=a,OTHER", "-m"]),
    ("b", ["an override is KEY=VALUE"]),
    ("ratio=25", ["a share between 0 and 1, write 0.25"]),
    ("ratio=25%", ["a share between 0 and 1, write 0.25"]),
    ("train.lr=1e-4", ["train.lr: there is no such field; did you mean learning_rate?"]),
    ("models.strong=qwen3_0_6b", ["write model@models.strong=qwen3_0_6b"]),
    ("arms.mine.slector=full", ["did you mean selector?"]),
]


@pytest.mark.parametrize(("override", "said"), OVERRIDES)
def test_an_override_that_cannot_be_is_named_with_its_cure(override: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        compose([override])
    for part in said:
        assert part in str(error.value)
    assert override.rstrip(",").split("=")[0] in str(error.value)
    assert not str(error.value).rstrip().endswith("known:")


def test_the_cure_for_an_odd_path_is_one_that_works(tmp_path: Path) -> None:
    file = tmp_path / "my data, (1)=.jsonl"
    file.write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(ConfigError) as error:
        compose(["data=jsonl", f"data.path={file}"])
    cure = str(error.value).split("write '")[1].removesuffix("'")
    assert compose(["data=jsonl", cure]).data.path == file


@pytest.mark.parametrize(
    "command", [["export", "x", "{}/none/x.parquet"], ["audit", "x", "--html", "{}/none/x.html"]]
)
def test_a_folder_that_is_not_there_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(tmp_path) for part in command]
    assert cli.main([*given, "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"there is no folder {tmp_path / 'none'}" in said and "Traceback" not in said


def test_a_file_that_cannot_be_made_is_named_and_has_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def status(given: object) -> int:
        return (tmp_path / "no" / "x").write_text("x")

    monkeypatch.setitem(cli.COMMANDS, "status", status)
    assert cli.main(["status"]) == 2
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err


def test_a_store_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = qaq("run", f"runtime.store={tmp_path}/file/store", "train=none", "data.limit=2")
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert f"{tmp_path}/file" in found.stderr


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = qaq("run", "train=none", f"runtime.store={tmp_path}/s", "data.limit=2",
                QAQ_CACHE=str(tmp_path / "file" / "cache"))  # fmt: skip
    assert found.returncode == 2, found.stderr
    assert "QAQ_CACHE" in found.stdout + found.stderr and "Traceback" not in found.stderr


def test_an_error_that_names_no_file_is_left_as_it_is() -> None:
    assert file_trouble(OSError(5, "Input/output error")) is None


def test_a_process_without_a_card_of_its_own_is_refused_before_a_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage's, by its rank; and of a whole run on this host, whose processes are known."""
    import torch

    from qaq.host.errors import UserError
    from qaq.models.config import ModelConfig
    from qaq.models.load import load_model, torch_device
    from qaq.run.compose import compose
    from qaq.run.experiment import refuse_without_card
    from qaq.run.pipeline import Run

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert torch_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    refusal = r"process 3 of this host has no card.*sees 2; set runtime\.processes=2"
    nowhere = ModelConfig(name="none", id=str(tmp_path / "none"), dtype="float32")
    with pytest.raises(UserError, match=refusal):
        load_model(nowhere, "cuda")
    more = ["runtime.device=cuda", f"runtime.store={tmp_path}/s"]
    refuse_without_card(Run(compose([*more, "runtime.processes=2"])))
    refuse_without_card(Run(compose([*more, "runtime.processes=3", "runtime.hosts=2"])))
    with pytest.raises(UserError, match=refusal):
        refuse_without_card(Run(compose([*more, "runtime.processes=3"])))


def test_an_nvidia_smi_that_does_not_answer_is_no_card_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 20\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(hardware, "PATIENCE", 0.2)
    hardware.cuda_devices.cache_clear()
    try:
        assert hardware.cuda_devices() == ()
    finally:
        hardware.cuda_devices.cache_clear()
    assert "nvidia-smi does not answer" in capsys.readouterr().err


def test_a_gpu_that_pytorch_cannot_use_is_the_users_mistake() -> None:
    import torch

    from qaq.host.errors import UserError
    from qaq.models.load import torch_device

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"set runtime\.device=cpu"):
        torch_device("cuda")
