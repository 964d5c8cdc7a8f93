"""What `make` installs is what the lock files name, hash by hash."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(p.name for p in ROOT.glob("requirements-*.txt"))
PIN = re.compile(r"([\w.-]+)==([\w.+!]+)")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: str) -> dict[str, tuple[str, list[str]]]:
    """Of each package its version and the hashes of its files."""
    found: dict[str, tuple[str, list[str]]] = {}
    for block in re.split(r"\n(?=\w)", (ROOT / file).read_text()):
        if pin := PIN.match(block.split("\n#")[0]):
            found[plain(pin[1])] = (pin[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
    return found


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {plain(m[1]): m[2] for line in lines if (m := PIN.fullmatch(line))}


@pytest.mark.parametrize("file", LOCKS)
def test_every_locked_package_has_a_version_and_hashes(file: str) -> None:
    text = (ROOT / file).read_text()
    found = locked(file)
    assert len(found) == len(re.findall(r"^\w", text, re.MULTILINE)) > 4
    assert not [name for name, (_, hashes) in found.items() if not hashes]


def test_the_lock_is_what_the_constraints_say_but_torch() -> None:
    together = locked("requirements-lock.txt") | locked("requirements-build.txt")
    assert {name: version for name, (version, _) in together.items()} | {
        "torch": pinned()["torch"]
    } == pinned()


def test_what_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    asked = project["project"]["dependencies"] + extras["dev"] + extras["slurm"]
    names = {plain(re.match(r"[\w.-]+", line)[0]) for line in asked}  # type: ignore[index]
    assert names - {"torch"} <= set(locked("requirements-lock.txt"))
    (backend,) = project["build-system"]["requires"]
    assert backend == f"hatchling=={pinned()['hatchling']}"


def test_make_installs_nothing_but_torch_without_a_hash() -> None:
    lines = re.findall(r"^\t.*pip install .*$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    bare = [line for line in lines if "$(HASHED) -r" not in line and not line.endswith(" -e .")]
    assert len(lines) > 4
    assert [line.split()[-1] for line in bare] == [f"torch=={pinned()['torch']}"]
    assert re.search(r"^HASHED := .*--require-hashes", (ROOT / "Makefile").read_text(), re.M)
