"""In which fields the identities of two stages differ."""

from collections.abc import Mapping
from typing import Any

PARTS = ("stage", "version", "config", "inputs", "outside")


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
