"""What is asked of a model, how it answers and how its programs are judged."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from qaq.host.runtime import UserPath
from qaq.models.config import ModelConfig
from qaq.store.stages import StageKind

FORBID = ConfigDict(extra="forbid")
DATA = Path(__file__).parent / "data"
Mode = Literal["chat", "completion", "evalplus_chat"]

# How many answers are written at a time where nobody says, by kind of device.
CACHE_SHARE = {"cpu": 0.25, "cuda": 0.8}  # of the free memory, for keys and values
MOST_ROWS = {"cpu": 192, "cuda": 512}


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Release:
    """A published data file: its name, its hash, and EvalPlus's variable that replaces it."""

    name: str
    version: str
    md5: str
    override: str


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Suite:
    """One set of problems: its file, how the file is read, how it is asked, judged and named.

    Args:
        file: the problems, one JSON object a line; null for a release, which is looked for.
        format: a reader (`qaq.evaluation.problems.FORMATS`).
        judge: a judge (`qaq.evaluation.judge.registry`); null for the one of the format.
        prompt: the instruction of chat prompts, with {problem}; null for the format's.
        title: its name in tables; null for the suite's name.
        release: the published file that this must be; null for one's own.
        allow_unknown: accept another file than the release.
    """

    file: UserPath | None = None
    format: str = "humaneval"
    judge: str | None = None
    prompt: str | None = None
    title: str | None = None
    release: Release | None = None
    allow_unknown: bool = False

    def faults(self) -> list[tuple[str, str]]:
        """Names that nothing is registered under: the field, and what is wrong."""
        from qaq.evaluation.judge.names import JUDGES
        from qaq.evaluation.problems import FORMATS

        found = []
        if self.format not in FORMATS:
            found.append(("format", f"there is no {self.format!r}; known: {', '.join(FORMATS)}"))
        if self.judge is not None:
            try:
                JUDGES.check(self.judge)
            except ValueError as error:
                found.append(("judge", str(error)))
        return found


SUITES = {
    "humaneval": Suite(
        title="HumanEval",
        release=Release(
            name="HumanEvalPlus",
            version="v0.1.10",
            md5="fe585eb4df8c88d844eeb463ea4d0302",
            override="HUMANEVAL_OVERRIDE_PATH",
        ),
    ),
    "mbpp": Suite(
        title="MBPP",
        format="mbpp",
        release=Release(
            name="MbppPlus",
            version="v0.2.0",
            md5="ee43ecabebf20deef4bb776a405ac5b1",
            override="MBPP_OVERRIDE_PATH",
        ),
    ),
    "mini": Suite(file=DATA / "mini.jsonl"),
    "mini_stdio": Suite(
        file=DATA / "mini_stdio.jsonl",
        format="livecodebench",
        title="mini, whole programs",
    ),
}


@dataclass(frozen=True, kw_only=True, config=FORBID)
class BenchmarkConfig:
    """Which problems: names of known suites, or a mapping from names to suites of one's own.

    `files` points a suite at another local file; `limit`/`tasks` cut. A file's content is in the
    key; `allow_unknown_data` accepts one that is not the known release.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name", "files", "allow_unknown_data"})

    name: str
    suites: dict[str, Suite] | tuple[str, ...]
    files: dict[str, UserPath] = Field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    limit: int | None = Field(default=None, ge=1)
    allow_unknown_data: bool = False

    @property
    def resolved(self) -> dict[str, Suite]:
        """The suites by name, each with its file; names must be known (`faults`)."""
        own = self.suites if isinstance(self.suites, dict) else {}
        return {
            name: replace(
                suite,
                file=self.files.get(name, suite.file),
                allow_unknown=suite.allow_unknown or self.allow_unknown_data,
            )
            for name in self.suites
            if (suite := own.get(name) or SUITES.get(name)) is not None
        }

    def faults(self) -> list[str]:
        """What is wrong with the suites and their files, each with the field and the fix."""
        known = [*self.resolved]
        found = [
            f"benchmark.suites: there is no suite {name!r}; known: {', '.join(SUITES)}, or give "
            f"your own as benchmark.suites.{name}: {{file: …, format: …}}"
            for name in self.suites
            if name not in known
        ]
        found += [
            f"benchmark.suites.{name}: file is null; give the file of the problems"
            for name, suite in self.resolved.items()
            if suite.file is None and suite.release is None
        ]
        found += [
            f"benchmark.files.{name}: the benchmark has no such suite; it has {', '.join(known)}"
            for name in self.files
            if name not in self.suites and name not in SUITES
        ]
        found += [
            f"benchmark.suites.{name}.prompt: it must hold {{problem}}, where the problem goes"
            for name, suite in self.resolved.items()
            if suite.prompt is not None and "{problem}" not in suite.prompt
        ]
        found += [
            f"benchmark.suites.{name}.{field}: {fault}"
            for name, suite in self.resolved.items()
            for field, fault in suite.faults()
        ]
        return found + [
            f"benchmark.files.{name}: no such file: {suite.file}"
            for name, suite in self.resolved.items()
            if suite.file is not None and not suite.file.is_file()
        ]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class EvalConfig:
    """How answers are generated and judged.

    `bits`: also measure bits per byte of the canonical solutions, a fifth of an arm's time or more
    beside a small model; they decide nothing. `bits_prompt`: what stands before the solutions;
    null for `prompt`. `preference`: also measure whether the model finds the canonical solutions
    likelier than corrupted ones, behind the same prompt; descriptive too, and three times as dear.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"name"})
    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"bits", "preference"})

    name: str
    prompt: Mode = "chat"
    bits: bool = True
    bits_prompt: Mode | None = None
    preference: bool = False
    generator: Literal["hf", "vllm"] = "hf"
    max_new_tokens: int = Field(default=768, ge=1)
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    seed: int = 0
    judge: Literal["repaired", "stock"] = "repaired"
    min_time_limit: float = Field(default=4.0, gt=0)
    memory_gib: float = Field(default=8.0, gt=0)
    sandbox: Literal["auto", "bubblewrap", "unshare", "landlock", "limits"] = "auto"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OutcomesStage:
    """Inputs: `adapter`, or none for the untuned model."""

    STAGE: ClassVar[StageKind] = StageKind(
        "outcomes",
        module="qaq.evaluation.stage",
        # since an answer ends behind the block that defines the function
        version=lambda config: 3 if config.eval.prompt == "chat" else 2,
        inputs=("adapter",),
        facts=("pass@1 {pass_at_1_base:.1%}", "plus {pass_at_1_plus:.1%}"),
    )
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"spec"})

    model: ModelConfig
    system_prompt: str | None
    eval: EvalConfig
    suite: str
    spec: Suite | None = None  # null: the known suite of this name
    tasks: tuple[str, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True, config=FORBID)
class OverlapsStage:
    """Inputs: `pairs`."""

    STAGE: ClassVar[StageKind] = StageKind(
        "overlaps",
        module="qaq.evaluation.overlaps",
        version=1,
        inputs=("pairs",),
        facts=("{overlaps} overlaps", "{rows} rows"),
    )
    UNKEYED: ClassVar[frozenset[str]] = frozenset({"specs"})

    suites: tuple[str, ...]
    specs: dict[str, Suite] = Field(default_factory=dict)  # those without one are known suites
