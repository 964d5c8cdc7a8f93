"""One artifact that is to be made: what its key is made of, and what it rests on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter

from qaq.run.fingerprints import UNRESOLVED, read_by
from qaq.store.keys import content_key, keyed
from qaq.store.manifest import Artifact
from qaq.store.stages import StageKind
from qaq.store.store import Store


@dataclass(frozen=True)
class Stage:
    """One artifact to be made. `fingerprints` are hashes of what is not an artifact itself."""

    config: Any
    name: str
    inputs: dict[str, "Stage"] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.declared.inputs
        if unknown := [r for r in self.inputs if not any(fnmatchcase(r, k) for k in known)]:
            raise ValueError(f"{self.kind}: inputs {unknown} are not among {known}")

    @property
    def declared(self) -> StageKind:
        """What the stage says of itself."""
        declared: StageKind = self.config.STAGE
        return declared

    @property
    def kind(self) -> str:
        """The kind of artifact."""
        return self.declared.kind

    @property
    def uses_model(self) -> bool:
        """Whether it runs a language model."""
        return any(hasattr(self.config, name) for name in ("model", "questioner"))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the key is made of; `qaq why` shows where two differ."""
        return {
            "stage": self.kind,
            "version": self.declared.version_of(self.config),
            "config": keyed(self.config),
            "inputs": {role: stage.key for role, stage in sorted(self.inputs.items())},
            "outside": self.fingerprints,
        }

    @cached_property
    def key(self) -> str:
        """The content key: equal keys mean equal artifacts."""
        return content_key(self.identity)

    @cached_property
    def unresolved(self) -> tuple[str, ...]:
        """What could not be looked up, here or in an input; the key is then not the true one."""
        found = [self.fingerprints[UNRESOLVED]] if UNRESOLVED in self.fingerprints else []
        found += [text for stage in self.inputs.values() for text in stage.unresolved]
        return tuple(dict.fromkeys(found))

    def find(self, store: Store) -> Artifact | None:
        """The complete artifact, if it holds all that is asked for."""
        found = store.find(self.kind, self.key)
        return None if found is None or self.lacking(found) else found

    def lacking(self, artifact: Artifact) -> tuple[str, ...]:
        """The spans that are asked for and that a score table of this key does not hold yet."""
        wanted = getattr(self.config, "spans", ())
        held = artifact.manifest.get("summary", {}).get("spans", wanted)
        return tuple(span for span in wanted if span not in held)

    def changed(self) -> list[str]:
        """Names of the fingerprints that are not what they were when the stage was planned."""
        now = read_by(self.config, asks="queries_sha256" in self.fingerprints)
        return sorted(name for name, value in now.items() if self.fingerprints.get(name) != value)

    @property
    def tree(self) -> dict[str, Any]:
        """The config as plain JSON values, for the job file."""
        tree: dict[str, Any] = TypeAdapter(type(self.config)).dump_python(self.config, mode="json")
        return tree


def in_order(goals: Iterable[Stage]) -> list[Stage]:
    """All stages that `goals` rest on, inputs first, each key once."""
    seen: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key not in seen:
            for dependency in stage.inputs.values():
                visit(dependency)
            seen[stage.key] = stage

    for goal in goals:
        visit(goal)
    return list(seen.values())
