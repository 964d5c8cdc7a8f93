"""Files that a command cannot make or read: one sentence, and what to do."""

from pathlib import Path

from qaq.host.errors import UserError


def check_target(file: Path) -> None:
    """Refuse a file to be written whose folder is not there, before any work is done for it."""
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}; make it, or name another")


def refuse_to_replace(file: Path, force: bool) -> None:
    """Refuse a file that is there already, unless `force`."""
    if file.exists() and not force:
        raise UserError(f"{file} is there already; choose another name, or replace it with --force")


def file_trouble(error: OSError) -> str | None:
    """One sentence for a file that cannot be made or read, and the cure; None if it names none."""
    if not isinstance(error.filename, str | Path):
        return None
    path = Path(error.filename)
    said = f"{path}: {error.strerror}"
    if not path.parent.is_dir():
        return f"{said}; there is no folder {path.parent}, make it or name another"
    return f"{said}; correct the path or the folder's permissions (runtime.store, --store, --out)"
