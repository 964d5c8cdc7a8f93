"""Looking into a store: what it holds, where two artifacts differ, the latest report."""

import contextlib
import difflib
import os
from pathlib import Path

from qaq.host.errors import UserError
from qaq.store import failures
from qaq.store.keys import fields_that_differ
from qaq.store.manifest import MANIFEST, Artifact
from qaq.store.store import Store

SUMMARY = "summary.txt"  # what a report or a study shows
REBUILD = "run its experiment again, which makes it anew"


def find_artifact(root: Path, wanted: str, kind: str | None = None) -> Artifact:
    """The artifact that `wanted` names: a folder, a name, the start of one, or of a key.

    Raises:
        UserError: none fits, or several do.
    """
    store = Store(root)
    known = [a for a in store.all() if kind in (None, a.manifest["kind"])]
    folder = Path(wanted).absolute()
    for broken in store.broken():
        stem, _, start = broken.name.rpartition("-")
        if folder == broken or wanted in (broken.name, stem) or wanted.startswith(start):
            raise UserError(f"{broken / MANIFEST} is damaged; {REBUILD}")
    fits = [
        a
        for a in known
        if a.path in (folder, (store.root / wanted).absolute())
        or wanted in (a.path.name, a.manifest["name"])
        or (len(wanted) >= 6 and a.key.startswith(wanted))
    ]
    place, start = os.path.split(wanted.removesuffix("…"))  # as a stage's line cuts a long name
    fits = fits or [
        a
        for a in known
        if start and a.path.name.startswith(start) and Path(place).name in ("", a.manifest["kind"])
    ]
    if len(fits) == 1:
        return fits[0]
    what = kind or "artifact"
    if not fits:
        for broken in store.broken():
            if broken.name.startswith(wanted):
                raise UserError(f"{broken / MANIFEST} is damaged; {REBUILD}")
        names = {str(a.manifest["name"]) for a in known}
        raise UserError(f"no {what} {wanted!r} in {root}; {_near(wanted, names)}")
    listed = ", ".join(a.path.name for a in fits)
    raise UserError(f"{wanted!r} fits several: {listed}; give the folder's name")


def latest_report(root: Path, wanted: str | None) -> Artifact:
    """The latest report or study of an experiment: its name, the start of one, or an artifact's.

    Raises:
        UserError: there is none, several experiments begin so, or it is damaged.
    """
    reports = [a for a in Store(root).all() if SUMMARY in a.manifest["files"]]
    names = {str(a.manifest["name"]) for a in reports}
    exact = [a for a in reports if wanted in (None, a.manifest["name"], a.path.name)]
    begun = [a for a in reports if wanted and a.path.name.startswith(wanted)]
    fits = exact or begun
    if not fits:
        asked = wanted or "any experiment"
        raise UserError(f"no report of {asked} in {root}; {_near(asked, names)}")
    if wanted and len({a.manifest["name"] for a in fits}) > 1:
        raise UserError(f"{wanted!r} fits several reports: {_named(fits)}; give a whole name")
    return intact(max(fits, key=lambda a: str(a.manifest.get("created"))))


def find_result(root: Path, wanted: str) -> Artifact:
    """The latest report that `wanted` names, else the outcomes.

    Raises:
        UserError: it names neither, or several; or what it names is damaged.
    """
    if any(
        SUMMARY in a.manifest["files"] and a.path.name.startswith(wanted) for a in Store(root).all()
    ):
        return latest_report(root, wanted)
    try:
        return intact(find_artifact(root, wanted, "outcomes"))
    except UserError as error:
        raise UserError(f"{wanted}: no such file, no report of that name, and {error}") from None


def _named(artifacts: list[Artifact]) -> str:
    return ", ".join(sorted({str(a.manifest["name"]) for a in artifacts}))


def _near(wanted: str, names: set[str]) -> str:
    """What may have been meant, else what there is."""
    close = difflib.get_close_matches(wanted, sorted(names), n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"there are: {', '.join(sorted(names)[:12]) or 'none'}"


def input_of(root: Path, artifact: Artifact, role: str) -> Artifact:
    """The artifact from which another was made.

    Raises:
        UserError: it is not there any more, or damaged.
    """
    key = (artifact.manifest.get("inputs") or {}).get(role)
    if not isinstance(key, str):
        raise UserError(f"{artifact.path / MANIFEST} names no {role}; {REBUILD}")
    return intact(find_artifact(root, key))


def intact(artifact: Artifact) -> Artifact:
    """The artifact, if its files are what was published. Raises UserError: one of them is not."""
    if bad := artifact.damage():
        named = ", ".join(str(artifact.path / name) for name in bad)
        raise UserError(f"damaged or missing: {named}; {REBUILD}")
    return artifact


def status_lines(root: Path, verify: bool = False) -> list[str]:
    """Every artifact with its size and age, then unfinished work and what became of it.

    With `verify`, every file is compared with its hash.
    """
    store = Store(root)
    lines = []
    for artifact in store.all():
        facts = artifact.manifest
        size = sum(f["bytes"] for f in facts["files"].values()) / 1e6
        bad = artifact.damage() if verify else []
        lines.append(
            f"{facts['kind']:<9} {facts['name']:<44} {artifact.key[:8]} {size:8.1f} MB  "
            f"{float(facts.get('seconds', 0)):7.1f} s  {facts.get('created', 'at no known time')}"
        )
        lines += [
            f"  DAMAGED: {artifact.path / name}; a run that reads it rebuilds it" for name in bad
        ]
    lines += [f"DAMAGED: {folder / MANIFEST}; {REBUILD}" for folder in store.broken()]
    for work in sorted((store.root / ".work").glob("*-*")):
        lines.append(f"{work.name}: {_work_state(store, work)}")
    return lines or [f"{store.root} holds nothing yet; start with: qaq run experiment=quickstart"]


def _work_state(store: Store, work: Path) -> str:
    """What is known of an artifact that is not complete."""
    lock = f"{work.name}.lock"
    if store.held(lock):
        with contextlib.suppress(OSError):  # it cannot be read: nobody can say
            holder = (store.root / ".locks" / lock).read_text(encoding="utf-8").strip()
            return f"running ({holder})"
    failure = failures.read(work)
    if failure:
        return f"failed at {failure.at}: {failure.message}"
    return "unfinished; the run that needs it continues from here"


def why_lines(root: Path, a: str, b: str) -> list[str]:
    """The fields in which the keys of two artifacts differ."""
    left, right = find_artifact(root, a), find_artifact(root, b)
    return fields_that_differ(left.manifest, right.manifest) or ["the keys are equal"]


def report_lines(root: Path, experiment: str | None) -> list[str]:
    """The result table of an experiment's latest report, and where its page is.

    Raises:
        UserError: there is no such report, or it is damaged.
    """
    latest = latest_report(root, experiment)
    text = (latest.path / SUMMARY).read_text(encoding="utf-8").rstrip()
    return [text, "", f"report: {latest.path / 'index.html'}"]
