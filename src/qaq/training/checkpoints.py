"""Which checkpoints a run may go on from: those whose files are as long as when they were saved.

Transformers begins the optimiser anew without a word where its file is gone, and reads a file that
lost its end in a power cut as an error at every try. So a checkpoint is forced to disk, then marked
with the sizes of its files; one that is not marked so is as good as none.
"""

import shutil
from pathlib import Path

from qaq.store.disk import sync
from qaq.store.manifest import of_other_size
from qaq.store.tables import read_json, write_json

COMPLETE = "complete"
KEPT = 2


def mark(folder: Path) -> None:
    """Mark a checkpoint as whole, once its files are on disk; only the newest whole ones stay."""
    (folder / COMPLETE).unlink(missing_ok=True)
    sync(folder)
    files = [p for p in folder.rglob("*") if p.is_file()]
    sizes = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size} for p in files}
    write_json(folder / COMPLETE, sizes)
    prune(folder.parent, KEPT)


def prune(folder: Path, kept: int) -> None:
    """Remove all checkpoints but the newest whole ones, by their steps: clocks may be set back."""
    stay = _whole(folder)[-kept:]
    for other in set(folder.glob("checkpoint-*")) - set(stay):
        shutil.rmtree(other, ignore_errors=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    return next(reversed(_whole(folder)), None)


def lost(folder: Path) -> list[str]:
    """Names of checkpoints that were marked, newer than the last whole one, and are not whole.

    Those of earlier releases are among them: their marks say nothing of their files.
    """
    marked = sorted((p.parent for p in folder.glob(f"checkpoint-*/{COMPLETE}")), key=step_of)
    last = last_checkpoint(folder)
    return [p.name for p in (marked[marked.index(last) + 1 :] if last else marked)]


def step_of(checkpoint: Path) -> int:
    """The number of steps after which a checkpoint was saved."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def _whole(folder: Path) -> list[Path]:
    """The whole checkpoints, oldest first."""
    marks = folder.glob(f"checkpoint-*/{COMPLETE}")
    return sorted((m.parent for m in marks if _is_whole(m.parent)), key=step_of)


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = read_json(checkpoint / COMPLETE)
    except (OSError, ValueError):
        return False
    return isinstance(sizes, dict) and of_other_size(checkpoint, {"files": sizes}) is None
