"""What the judge has already found, kept in the work folder so that a kill loses no verdict.

One line a finding, appended and flushed as it comes. A line is found again by a hash of the text
it is about and only under the same fingerprint (benchmark, limits, judge, versions), never by a
file's name or a task's place.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from qaq.store.tables import cut_torn_line, read_jsonl


def sha(*parts: str) -> str:
    """A hash of texts; their number and borders count. Lone surrogates are allowed."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


class Journal:
    """Findings by (phase, text hash); phases are `sanitize`, `first` and `rerun`."""

    def __init__(self, path: Path, fingerprint: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fingerprint = fingerprint
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            cut_torn_line(path)
            for line in read_jsonl(path):
                if line["fingerprint"] == fingerprint:
                    self._found[line["phase"], line["sha"]] = line["found"]
        self._file = path.open("a", encoding="utf-8")

    def get(self, phase: str, key: str) -> dict[str, Any] | None:
        """The finding, or null."""
        return self._found.get((phase, key))

    def put(self, phase: str, key: str, found: dict[str, Any]) -> None:
        """Keep a finding; it is on disk when this returns."""
        self._found[phase, key] = found
        line = {"fingerprint": self._fingerprint, "phase": phase, "sha": key, "found": found}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
