"""`qaq gc`: deletes what no kept experiment needs and nobody is working on; dry run by default.

Kept are all stages of the experiments that are named (as the configuration stands now), whatever a
living run has leased, and whatever is locked. The rest is moved aside by one rename each, under
its own lock, while no new run can take a lease; so a run either finds an artifact or makes it.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qaq.host.errors import UserError
from qaq.run.comparison import combine
from qaq.run.pipeline import Run
from qaq.run.sweep import jobs_of
from qaq.store.store import Store


@dataclass(frozen=True)
class Garbage:
    """Something that can be deleted. `lock` is the name of the lock that guards it."""

    path: Path
    what: str
    bytes: int
    lock: str


def needed(experiments: Iterable[list[str]]) -> set[str]:
    """Keys of everything that the experiments need; each is a list of overrides, maybe a sweep.

    Raises:
        UserError: one of them cannot be composed or its keys cannot be found out.
    """
    keys: set[str] = set()
    for overrides in experiments:
        jobs = jobs_of(overrides)
        joined = [Run(config) for config in combine(jobs)] if len(jobs) > 1 else []
        keys |= {stage.key for run in (*jobs, *joined) for stage in run.stages}
    return keys


def garbage(store: Store, keep: set[str]) -> list[Garbage]:
    """What the store holds beside `keep` and what living runs need; unfinished work included."""
    keep = keep | store.leased()
    short = {key[:size] for key in keep for size in (8, 16)}
    found = []
    for artifact in store.all():
        kind, key = str(artifact.manifest["kind"]), artifact.key
        if key not in keep:
            lock = f"{kind}-{key[:16]}.lock"
            found.append(Garbage(artifact.path, artifact.path.name, _size(artifact.path), lock))
    for folder in store.broken():  # whose key begins so; who makes it again has leased that
        if (start := folder.name[-8:]) not in short:
            lock = f"{folder.parent.name}-{start}.lock"
            found.append(Garbage(folder, f"damaged {folder.name}", _size(folder), lock))
    for work in sorted((store.root / ".work").glob("*-*")):
        if work.name.rsplit("-", 1)[1] not in short:
            found.append(Garbage(work, f"unfinished {work.name}", _size(work), f"{work.name}.lock"))
    return found


def collect(root: Path, experiments: list[list[str]], delete: bool) -> list[str]:
    """Find the garbage and, if asked, delete it; returns the lines to print.

    Raises:
        UserError: an experiment's keys cannot be found out, or another collection is at work.
    """
    keep = needed(experiments)
    store = Store(root)
    if not store.root.is_dir():
        raise UserError(f"there is no store at {store.root}; --store names another")
    try:
        with store.collecting(wait=False):
            _refuse_all(store, keep)
            found = garbage(store, keep)
            gone = [g for g in found if delete and _remove(store, g)]
    except BlockingIOError:
        raise UserError(
            f"{store.root} is being cleaned, or a run is just starting; try again"
        ) from None
    if delete:
        shutil.rmtree(store.root / ".trash", ignore_errors=True)
    lines = [
        f"{'deleted' if g in gone else 'in use' if delete else 'would delete'} {g.what}, "
        f"{g.bytes / 1e6:.1f} MB"
        for g in found
    ]
    total = sum(g.bytes for g in (gone if delete else found)) / 1e6
    verb = "deleted" if delete else "would be deleted; nothing was: add --delete"
    return [*lines, f"{len(gone if delete else found)} of them, {total:.1f} MB, {verb}"]


def _refuse_all(store: Store, keep: set[str]) -> None:
    """Refuse to name all that a store holds as what nobody needs.

    Raises:
        UserError: it holds something, and nothing of what is to be kept.
    """
    held = {artifact.key for artifact in store.all()}
    if held and not held & keep:
        raise UserError(
            f"{store.root} holds nothing of what is to be kept, so all of it would go; is --keep "
            "as the run was, and --store its store? To be rid of everything, delete the folder"
        )


def _remove(store: Store, item: Garbage) -> bool:
    with store.try_lock(item.lock) as held:
        if held:
            store.aside(item.path)
            (store.root / ".locks" / item.lock).unlink(missing_ok=True)
        return held


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
