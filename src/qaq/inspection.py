"""Looking into a store: what it holds, where two artifacts differ, the latest report."""

from pathlib import Path
from typing import Any

from qaq.artifacts import read_json
from qaq.errors import UserError
from qaq.store import Artifact, Store


def find_artifact(root: Path, wanted: str, kind: str | None = None) -> Artifact:
    """The artifact that `wanted` names: a folder, a name, or the start of a key.

    Raises:
        UserError: none fits, or several do.
    """
    known = [a for a in Store(root).all() if kind in (None, a.manifest["kind"])]
    folder = Path(wanted).absolute()
    fits = [
        a
        for a in known
        if a.path == folder or wanted in (a.path.name, a.manifest["name"]) or _starts(a, wanted)
    ]
    if len(fits) == 1:
        return fits[0]
    what = kind or "artifact"
    if not fits:
        names = ", ".join(sorted(a.path.name for a in known)[:12]) or "none"
        raise UserError(f"no {what} {wanted!r} in {root}; there are: {names}")
    listed = ", ".join(a.path.name for a in fits)
    raise UserError(f"{wanted!r} fits several: {listed}; give the folder's name")


def input_of(root: Path, artifact: Artifact, role: str) -> Artifact:
    """The artifact from which another was made."""
    return find_artifact(root, artifact.manifest["inputs"][role])


def status_lines(root: Path) -> list[str]:
    """Every artifact with its size and age, then unfinished work."""
    store = Store(root)
    lines = []
    for artifact in store.all():
        facts = artifact.manifest
        size = sum(f["bytes"] for f in facts["files"].values()) / 1e6
        lines.append(
            f"{facts['kind']:<9} {facts['name']:<44} {artifact.key[:8]} {size:8.1f} MB  "
            f"{facts['seconds']:7.1f} s  {facts['created']}"
        )
    for work in sorted((store.root / ".work").glob("*")):
        failure = work / "failure.json"
        state = read_json(failure)["message"] if failure.exists() else "unfinished"
        lines.append(f"{work.name}: {state}")
    return lines or [f"{store.root} holds nothing yet; start with: qaq run experiment=quickstart"]


def why_lines(root: Path, a: str, b: str) -> list[str]:
    """The fields in which the keys of two artifacts differ."""
    left, right = find_artifact(root, a), find_artifact(root, b)
    parts = ("stage", "version", "config", "inputs", "outside")
    one = _flat({p: left.manifest[p] for p in parts})
    two = _flat({p: right.manifest[p] for p in parts})
    fields = [f for f in sorted(one.keys() | two.keys()) if one.get(f) != two.get(f)]
    if not fields:
        return ["the keys are equal"]
    return [f"{f}: {one.get(f, 'absent')} -> {two.get(f, 'absent')}" for f in fields]


def report_lines(root: Path, experiment: str | None) -> list[str]:
    """The result table of an experiment's latest report, and where its page is.

    Raises:
        UserError: there is no such report.
    """
    reports = [a for a in Store(root).all() if a.manifest["kind"] in ("report", "study")]
    fits = [a for a in reports if experiment in (None, a.manifest["name"])]
    if not fits:
        names = ", ".join(sorted({a.manifest["name"] for a in reports})) or "none"
        raise UserError(
            f"no report of {experiment or 'any experiment'} in {root}; there are: {names}"
        )
    latest = max(fits, key=lambda a: a.manifest["created"])
    text = (latest.path / "summary.txt").read_text().rstrip()
    return [text, "", f"report: {latest.path / 'index.html'}"]


def _starts(artifact: Artifact, wanted: str) -> bool:
    return len(wanted) >= 6 and artifact.key.startswith(wanted)


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{path}.{name}" if path else name)
    return leaves
