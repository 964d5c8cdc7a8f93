"""What the pool is made of: a source of (question, answer) pairs and the noise planted in it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.data.synthesis import SynthesisConfig
from qaq.data.turns import Turns
from qaq.host.plugins import Registry
from qaq.host.runtime import UserPath
from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, lt=1)]

Defect = Literal[  # what each does is said in qaq.data.defects
    "swapped_answer",
    "echo",
    "invented_terms",
    "truncated",
    "not_code",
    "partial_mismatch",
    "neighbour_answer",
    "wrong_constant_or_operator",
    "template_answer",
    "placeholder",
    "rebuilt_question",
    "other_natural_language",
    "other_programming_language",
    "wrong_code",
    "equivalent_code",
    "hallucinated",
    "renamed_term",
    "known_terms",
    "paraphrase_echo",
    "described_code",
]
# A kind of damage and the harmless change that looks like it: what differs is the damage alone.
CONTROLS: dict[str, Defect] = {
    "other_natural_language": "rebuilt_question",
    "wrong_code": "equivalent_code",
    "invented_terms": "known_terms",
    "hallucinated": "renamed_term",
    "echo": "described_code",
    "paraphrase_echo": "described_code",
}
# Raised where a kind of damage does something else than before: keys of pools without it stay.
DAMAGE_VERSIONS: dict[Defect, int] = {
    "equivalent_code": 2,
    "wrong_code": 2,
    "hallucinated": 2,
    "renamed_term": 2,
}
# Raised where records are read otherwise than before, but for the file whose records all have an
# instruction, an input and an output alone (conf/data/gpteacher.yaml): many results rest on it.
READING_VERSION = 2
READ_AS_EVER = "8b0be81f22b86bccab30f573351b62efb3391da229d2ee817a65ce0abb08b29d"

SystemTurns = Literal["prompt", "drop"]
PACKAGED = frozenset({"stdlib", "coders", "synthetic"})  # sources whose records have no system turn


class Source(NamedTuple):
    """A reader, and what identifies the content beside the configuration (`qaq.data.sources`)."""

    read: Callable[["DataConfig"], Iterable[Any]]
    identity: Callable[["DataConfig"], Mapping[str, str]] | None


SOURCES: Registry[Source] = Registry("source", "qaq.data.sources")


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Fields:
    """What question and answer are called where they have no usual names (`qaq.data.forms`).

    `input` is a part of the question that stands in a field of its own, `system` the field of a
    record's system turn.
    """

    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"system"})

    question: str
    answer: str
    input: str | None = None
    system: str | None = None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class DataConfig:
    """One source of pairs. `source` says which of the other fields are needed.

    stdlib, coders: nothing else. jsonl, json, csv, parquet: `path`, which is a file, a folder or a
    pattern, or a list of these; all but parquet may be packed. hub: `hub_id` (and
    `revision`, `split`, and `hub_config` where it has several configurations; `commit` is what the
    revision meant when the run was planned, and is set by the planner). synthetic: `synthesis`,
    which says how models write the pairs, in a stage of its own.
    A source of one's own reads those that it wants. `turns` says which exchanges of a conversation
    are pairs (`qaq.data.turns`); `system` whether a record's own system turn stands in its prompts.
    If more than the share `max_unreadable` cannot be read, the run ends.
    `limit` keeps a seeded random sample of that many accepted rows, in the order of the source.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name", "path", "commit", "synthesis"})
    # another bound than the usual makes another pool, which the usual one would not let pass
    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset(
        {"fields", "turns", "max_unreadable", "hub_config"}
    )

    name: str
    source: Annotated[str, AfterValidator(SOURCES.check)]
    path: UserPath | tuple[UserPath, ...] | None = None
    hub_id: str | None = None
    hub_config: str | None = None
    revision: str | None = None
    commit: str | None = None
    split: str = "train"
    limit: int | None = Field(default=None, ge=1)
    sample_seed: int = 0
    fields: Fields | None = None
    turns: Turns = "first"
    system: SystemTurns = "prompt"
    max_unreadable: Annotated[float, Field(ge=0, le=1)] = 0.01
    synthesis: SynthesisConfig | None = None

    @property
    def unkeyed(self) -> frozenset[str]:
        """Fields that came later, where they mean what the keys from before them mean."""
        as_before = self.system == "drop" or self.source in PACKAGED
        return frozenset({"system"}) if as_before else frozenset()


@dataclass(frozen=True, kw_only=True, config=FORBID)
class NoiseConfig:
    """Shares of the pool to damage, by kind of damage; empty = the pool as it is."""

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str = "none"
    shares: dict[Defect, Share] = Field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=FORBID)
class PairsStage:
    """No inputs."""

    STAGE: ClassVar[StageKind] = StageKind(
        "pairs",
        module="qaq.data.stage",
        version=2,
        inputs=("synthesis",),
        facts=("{rows} rows", "{quarantined} quarantined"),
    )

    data: DataConfig
    noise: NoiseConfig

    def versions(self, content: Mapping[str, str]) -> dict[str, str]:
        """Versions that are in the key beside the stage's own, of what only some pools hold.

        Args:
            content: what identifies the source (`qaq.data.identity`).
        """
        found = {
            f"damage_{kind}": str(version)
            for kind, version in DAMAGE_VERSIONS.items()
            if self.noise.shares.get(kind)
        }
        if self.data.source not in PACKAGED and READ_AS_EVER not in content.values():
            found["reading"] = str(READING_VERSION)
        return found
