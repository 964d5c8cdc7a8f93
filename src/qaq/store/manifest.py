"""A published artifact: its folder, its manifest, and whether its files are those that it names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qaq.store.tables import read_json

MANIFEST = "manifest.json"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """The content key under which it was built."""
        return str(self.manifest["key"])

    def damage(self) -> list[str]:
        """Names of files that are missing or whose bytes are not those that were published."""
        bad = []
        for name, fact in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file() or file_sha256(file) != fact["sha256"]:
                bad.append(name)
        return bad


def inventory(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of every file below a folder, by its path in there."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": file_sha256(p)}
        for p in files
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artifact; None where it is missing or not one."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return None
    facts = manifest["files"].values()
    named = all(isinstance(manifest.get(name), str) for name in ("kind", "name", "key"))
    hashed = all(isinstance(f, dict) and {"bytes", "sha256"} <= f.keys() for f in facts)
    return manifest if named and hashed else None


def complete(folder: Path, key: str) -> Artifact | None:
    """The artifact in a folder if it is that of the key and its files have their sizes."""
    manifest, before = read_manifest(folder), None
    while manifest and manifest["key"] == key and manifest != before:
        if not of_other_size(folder, manifest):
            return Artifact(folder, manifest)
        manifest, before = read_manifest(folder), manifest  # another may have taken its place
    return None


def of_other_size(folder: Path, manifest: dict[str, Any]) -> Path | None:
    """The first file that is missing or longer or shorter than published, or None."""
    for name, fact in manifest["files"].items():
        try:
            if (folder / name).stat().st_size != fact["bytes"]:
                return Path(folder, name)
        except OSError:
            return Path(folder, name)
    return None
