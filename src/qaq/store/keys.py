"""Content keys: what enters them, and in which fields two differ."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

PARTS = ("stage", "version", "config", "inputs", "outside")


def content_key(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def keyed(section: Any) -> Any:
    """The fields of a section that enter a key, as plain JSON values."""
    if is_dataclass(section) and not isinstance(section, type):
        skip: frozenset[str] = getattr(section, "UNKEYED", frozenset())
        # fields that came later: a key from before them stays what it is where they are not set
        later: frozenset[str] = getattr(section, "UNKEYED_AT_DEFAULT", frozenset())
        skip |= {f.name for f in fields(section) if getattr(section, f.name) == f.default} & later
        unkeyed: frozenset[str] = getattr(section, "unkeyed", frozenset())  # as its values say
        skip |= unkeyed
        return {
            f.name: keyed(getattr(section, f.name)) for f in fields(section) if f.name not in skip
        }
    if isinstance(section, dict):
        return {str(k): keyed(v) for k, v in section.items()}
    if isinstance(section, (list, tuple)):
        return [keyed(v) for v in section]
    if isinstance(section, Path):
        return str(section)
    return section


def fields_that_differ(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`field: old -> new` for every field of the key that differs; empty if the keys are equal."""
    one = _flat({part: old[part] for part in PARTS})
    two = _flat({part: new[part] for part in PARTS})
    fields = [f for f in sorted(one.keys() | two.keys()) if one.get(f) != two.get(f)]
    return [f"{f}: {one.get(f, 'absent')} -> {two.get(f, 'absent')}" for f in fields]


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{path}.{name}" if path else name)
    return leaves
