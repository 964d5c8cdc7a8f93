"""What a report was made from, as the manifests of its artifacts say it."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass as checked

from qaq.evidence.estimate import STRICT
from qaq.page.tables import Cell, Column, Table, listing, number, worded
from qaq.store.jobs import Job
from qaq.store.tables import read_json


@checked(frozen=True, kw_only=True, config=STRICT)
class Provenance:
    """One artifact that this report was made from."""

    role: str
    kind: str
    name: str
    key: str
    seconds: float | None
    peak_gib: float | None


@dataclass(frozen=True)
class Manifest:
    """What an artifact says about itself; `inputs` are keys by role."""

    role: str
    kind: str
    name: str
    key: str
    seconds: float | None
    peak_rss_mib: float | None
    energy_joules: float | None
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    weights: str  # what the model's weights are known by; empty where no model was used
    packages: Mapping[str, str]
    hardware: Any


def read_manifest(role: str, folder: Path) -> Manifest:
    """The manifest of an artifact; fields that an older one lacks are None or empty."""
    tree = read_json(folder / "manifest.json")
    return Manifest(
        role=role,
        kind=tree.get("kind", role.split("/", maxsplit=1)[0]),
        name=tree.get("name", folder.name),
        key=tree["key"],
        seconds=tree.get("seconds"),
        peak_rss_mib=tree.get("peak_rss_mib"),
        energy_joules=tree.get("energy_joules"),
        summary=tree.get("summary") or {},
        config=tree.get("full_config") or tree.get("config") or {},
        inputs=tree.get("inputs") or {},
        weights=str((tree.get("outside") or {}).get("weights", "")),
        packages={**(tree.get("packages") or {}), **_code(tree)},
        hardware=tree.get("hardware"),
    )


def _code(tree: Mapping[str, Any]) -> dict[str, str]:
    """This project's own version and commit, where the manifest knows them."""
    if "qaq" not in tree:
        return {}
    commit, changed, _ = str(tree.get("revision") or "").partition("+changes")
    return {"qaq": f"{tree['qaq']} {commit[:12]}{changed}".strip()}


def subject(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """What the experiment is about, by the names its artifacts go by."""
    found = {"pool": manifests["pairs"].name} if "pairs" in manifests else {}
    titles = {"strong": "strong scorer", "weak": "weak scorer", "adapter": "fine-tuned model"}
    for kind, title in titles.items():
        made = (m for r, m in manifests.items() if _about(r) == kind)
        scorer = next((m for m in made if "model" in m.config), None)
        if scorer:
            found[title] = _identified(scorer)
    return found


def _identified(manifest: Manifest) -> str:
    """A model's name, where it came from, and the beginning of its weights' hash (or commit)."""
    model = manifest.config["model"]
    name, where = str(model["name"]), str(model.get("id") or "")
    owner, _, commit = manifest.weights.rpartition("@")
    known = f"{owner}@{commit[:12]}" if owner else f"weights {commit[:12]}"
    place = [where] if where not in ("", name, owner) else []
    return f"{name} ({', '.join([*place, known])})" if commit else name


def _about(role: str) -> str:
    """`strong` of the roles `strong` and `scores/strong/chat`, `adapter` of `adapter/full/1`."""
    parts = role.split("/")
    return parts[1] if parts[0] == "scores" else parts[0]


def provenance(manifest: Manifest) -> Provenance:
    """One line of the table of artifacts."""
    peak = manifest.peak_rss_mib
    return Provenance(
        role=manifest.role,
        kind=manifest.kind,
        name=manifest.name,
        key=manifest.key,
        seconds=manifest.seconds,
        peak_gib=None if peak is None else peak / 1024,
    )


def packages(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Each package's version; all of them, where artifacts were made with several."""
    found: dict[str, dict[str, None]] = {}
    for manifest in manifests.values():
        for name, version in manifest.packages.items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(versions) for name, versions in sorted(found.items())}


def hardware(manifests: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Each distinct machine as one line."""
    lines: dict[str, None] = {}
    for manifest in manifests.values():
        machine = manifest.hardware
        if isinstance(machine, Mapping):
            machine = ", ".join(
                f"{k} {v}" for k, v in sorted(machine.items()) if v not in (None, "", [])
            )
        if machine:
            lines[str(machine)] = None
    return tuple(lines)


def artifact_table(made: Iterable[Provenance]) -> Table:
    """Keys and costs of artifacts."""
    return listing(
        "provenance",
        "Artifacts",
        "The first twelve digits of each content key; the whole keys are in results.json.",
        made,
        worded("role", lambda p: p.role),
        worded("artifact", lambda p: f"{p.kind}/{p.name}"),
        (Column("key", kind="text"), lambda p: Cell(p.key[:12], value=p.key)),
        (Column("seconds"), lambda p: number(p.seconds)),
        (Column("peak GiB"), lambda p: number(p.peak_gib, 1)),
    )


def repeat(job: Job) -> list[tuple[str, str]]:
    """What was run, when, and with which code."""
    if not job.command:
        return []
    made = datetime.datetime.now(datetime.UTC).strftime("%d %B %Y")
    return [("repeat this", job.command), ("made", made), ("code", job.revision)]
