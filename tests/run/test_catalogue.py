"""Finding one's way: what there is to choose from, what was composed, what a shell completes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qaq import __version__, cli
from qaq.arguments import KINDS, SHELLS
from qaq.host.plugins import conf_dir
from qaq.run import catalogue


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_has_a_line_that_says_what_it_is(kind: str) -> None:
    found = catalogue.lines(kind)
    assert found and all(len(line) <= 100 and len(line.split()) >= 3 for line in found)
    if kind in catalogue.GROUPS:
        files = (conf_dir() / catalogue.GROUPS[kind]).glob("*.yaml")
        assert [line.split()[0] for line in found] == sorted(file.stem for file in files)


def test_without_a_kind_all_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(f"{kind}:\n" in said for kind in KINDS) and "rmi_band" in said


@pytest.mark.parametrize("command", [["show"], ["run", "--cfg", "job"], ["plan", "--cfg", "job"]])
def test_the_composed_configuration_is_shown_and_nothing_is_started(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main([*command, "selector=rmi_top", "ratio=0.1"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["selector"]["method"], tree["ratio"]) == ("rmi_top", 0.1)
    assert tree["train"]["lora"]["rank"] > 0 and not list(tmp_path.iterdir())


def test_a_part_of_the_configuration_is_shown_by_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["show", "-p", "models.weak"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "smollm2_135m"
    assert cli.main(["show", "-p", "models.wek"]) == 2
    assert "strong, weak, target" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["-m"]])
def test_run_without_anything_prints_the_choices_and_starts_nothing(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *more]) == 2
    said = capsys.readouterr().out
    assert "experiment=quickstart" in said and "data.path=" in said and not list(tmp_path.iterdir())


def test_alone_it_prints_help_and_its_version_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 0
    assert "qaq run experiment=quickstart" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"qaq {__version__}\n"


def test_an_option_of_ones_own_is_listed_where_config_dir_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QAQ_PATH", "")
    (tmp_path / "selector").mkdir()
    (tmp_path / "selector" / "mine.yaml").write_text("# The ones I like.\nmethod: random\n")
    assert cli.main(["list", "rules", "--config-dir", str(tmp_path)]) == 0
    assert "mine " in capsys.readouterr().out
    assert cli.main(["show", "selector=mine", "-p", "selector", "-cd", str(tmp_path)]) == 0
    assert "method: random" in capsys.readouterr().out


def test_a_word_is_completed_to_groups_fields_and_options() -> None:
    assert {"experiment=", "selector=", "ratio=", "model@models.weak=", "name="} <= set(
        catalogue.override_choices("")
    )
    assert "selector=rmi_band" in catalogue.override_choices("selector=rm")
    assert "model@models.weak=hub" in catalogue.override_choices("model@models.weak=")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "qaq" in capsys.readouterr().out


def test_bash_completes_an_override(tmp_path: Path) -> None:
    program = tmp_path / "qaq"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qaq.cli "$@"\n')
    program.chmod(0o755)
    line = "qaq run selector=rmi_band_c"
    script = (
        f'PATH={tmp_path}:$PATH; eval "$(qaq completion bash)"; COMP_LINE="{line}"; '
        f'COMP_POINT={len(line)}; COMP_TYPE=9; _python_argcomplete qaq; echo "${{COMPREPLY[@]}}"'
    )
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "rmi_band_clean"
