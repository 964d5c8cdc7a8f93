"""What a selection rule is, the registry of rules, and the form of `selector` in a configuration.

A rule is a dataclass of parameters and, under the decorator `rule`, a function of these, the pool,
the size asked for and the seed, which says of every row whether it is kept and why. Beside its
parameters the dataclass says what the rule reads and what can change its result:

`needs`: the roles of the inputs that it reads beside the pool: `strong` and `weak` (scores),
`asked` (the strong model's "yes" to a question about each pair, see `rules.ask_llm`),
`embeddings`, and with them `queries` (vectors; a rule without the parameters `max_tokens` and
`queries` gets 2048 tokens, and MBPP), `overlaps` (with the benchmarks; without the parameter
`kinds` those that `exclude` takes).
`spans` (absent: all four): which spans of the score tables it reads; only these are scored where
nothing else is asked for. `seeded`: whether chance plays a part.
`uses_ratio`: whether the ratio asked for plays a part; where it does not, `share` (absent, or null:
not known beforehand) is the share of the pool that is kept, by which training takes its recipe.
`reads_texts` (absent: no): whether it reads
questions and answers. `reads_truth` (absent: no): whether it reads what was planted, which only an
oracle may.
They are read from an instance, since some depend on its fields. A rule that reads files which are
no artifact has two methods besides: `identity`, their hashes for the key, and `pinned`, itself with
what is on the Hub at the commit that it has when the run is planned.
"""

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_type_hints,
)

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, TypeAdapter
from pydantic.dataclasses import dataclass

from qaq.host.plugins import Registry, guarded, owner
from qaq.scoring.metrics import METRICS
from qaq.store.stages import StageKind
from qaq.store.tables import SPANS, Span

if TYPE_CHECKING:
    from qaq.selection.decision import Decision, Size
    from qaq.selection.pool import Pool

FORBID = ConfigDict(extra="forbid")
Share = Annotated[float, Field(ge=0, le=1)]
ShareOf = Literal["all", "survivors"]
OverlapKind = Literal["exact", "prompt_run", "solution_run", "entry_point"]
OVERLAP_KINDS: tuple[OverlapKind, ...] = ("exact", "prompt_run", "solution_run")  # unless named
C = TypeVar("C")
Apply = Callable[[C, "Pool", "Size", int | None], "Decision"]


class Selector(Protocol):
    """The parameters of any rule; a rule that is composed of others has `parts` too."""

    @property
    def method(self) -> str:
        """The rule's name."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Roles of the inputs that it reads."""

    @property
    def seeded(self) -> bool:
        """Whether the seed changes its result."""

    @property
    def uses_ratio(self) -> bool:
        """Whether the ratio asked for changes its result."""


class Rule(NamedTuple):
    """A rule as it is registered under each of the names that its `method` may have."""

    config: type
    apply: Apply[Any]


RULES: Registry[Rule] = Registry("rule", "qaq.selection.rules")


def rule(config: type[C]) -> Callable[[Apply[C]], Apply[C]]:
    """Register a function as the rule whose parameters are `config`.

    Raises:
        TypeError: the dataclass does not say what a rule has to say.
        PluginError: there is a rule of that name.
    """
    names = get_args(get_type_hints(config).get("method"))
    absent = [name for name in ("needs", "seeded", "uses_ratio") if not hasattr(config, name)]
    if not names or absent:
        raise TypeError(
            f'{config.__name__} must have the field method: Literal["its name"]'
            + "".join(f" and say {name}" for name in absent)
        )
    if fault := _false_declaration(config):
        raise TypeError(f"{config.__name__} has {fault}")

    def register(function: Apply[C]) -> Apply[C]:
        module = owner(function.__module__)
        guarded_function = guarded(function, module)

        @functools.wraps(function)
        def apply(config: C, pool: "Pool", size: "Size", seed: int | None) -> "Decision":
            from qaq.selection.decision import sound  # a plan does without it

            decision = guarded_function(config, pool, size, seed)
            return sound(decision, len(pool), cast(Selector, config).method)

        for name in names:
            RULES.add(name, Rule(config, apply), module)
        return function

    return register


def _false_declaration(rule: object) -> str | None:
    """What is wrong with the inputs or spans that a rule (or its class) says it reads."""
    for field, known in (("needs", SubsetStage.STAGE.inputs[1:]), ("spans", SPANS)):
        value = getattr(rule, field, ())
        if isinstance(value, property):  # it depends on the fields
            continue
        if not isinstance(value, tuple | list | set | frozenset) or not set(value) <= set(known):
            return f"{field} = {value!r}; expected a tuple of some of {', '.join(known)}"
        if "queries" in value and "embeddings" not in value:
            return f"{field} = {value!r}; queries are compared with embeddings, so name both"
    return None


def _parse(value: Any) -> Selector:
    """A mapping as the parameters of the rule that its `method` names."""
    if not isinstance(value, dict):
        if type(value) in {known.config for known in RULES.values()}:
            return value  # type: ignore[no-any-return]
        raise ValueError("a selector is a mapping with the field method")
    method = RULES.check(str(value.get("method")))
    parsed: Selector = TypeAdapter(RULES[method].config).validate_python(value)
    if RULES.fingerprint(method) and (fault := _false_declaration(parsed)):
        raise ValueError(f"the rule {method} has {fault}")
    return parsed


def _not_exclude(selector: Selector) -> Selector:
    if selector.method == "exclude":
        raise ValueError("exclude goes around the other rules, not into one of them")
    return selector


SelectorConfig = Annotated[Selector, PlainValidator(_parse)]
InnerConfig = Annotated[SelectorConfig, AfterValidator(_not_exclude)]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class LeaveOut:
    """A rule that leaves rows out before another chooses; the ratio counts the rows left."""

    spans: ClassVar[tuple[str, ...]] = ()  # its parts have theirs
    rule: InnerConfig

    @property
    def parts(self) -> tuple[Selector, ...]:
        """The rule that chooses among what is left."""
        return (self.rule,)

    @property
    def needs(self) -> tuple[str, ...]:
        """What the rule reads."""
        return self.rule.needs

    @property
    def seeded(self) -> bool:
        """Whether the rule draws."""
        return self.rule.seeded

    @property
    def uses_ratio(self) -> bool:
        """Whether the rule's size is asked for."""
        return self.rule.uses_ratio

    @property
    def share(self) -> float | None:
        """The rule's own, of the rows left."""
        return own_share(self.rule)


def own_share(selector: Selector) -> float | None:
    """The share of the pool that a rule with a size of its own keeps; None where none is known."""
    return None if selector.uses_ratio else getattr(selector, "share", None)


def rules_within(selector: Selector) -> list[Selector]:
    """The selector and every rule that it is composed of."""
    parts: tuple[Selector, ...] = getattr(selector, "parts", ())
    return [selector, *(inner for part in parts for inner in rules_within(part))]


def spans_read(selector: Selector) -> tuple[Span, ...]:
    """The spans of the scorers' tables that a rule and its parts read; all where one says none."""
    found: set[str] = set()
    for part in rules_within(selector):
        if {"strong", "weak"} & set(part.needs):
            found |= set(getattr(part, "spans", SPANS))
    return tuple(span for span in SPANS if span in found)


def reads_texts(selector: Selector) -> bool:
    """Whether a rule looks at questions and answers, not only at scores."""
    return any(getattr(part, "reads_texts", False) for part in rules_within(selector))


def reads_truth(selector: Selector) -> bool:
    """Whether a rule is an oracle that looks at what was planted."""
    return any(getattr(part, "reads_truth", False) for part in rules_within(selector))


def fingerprint(*selectors: Selector) -> dict[str, str]:
    """Hashes of what is the user's own in these selectors, and of the files that rules read.

    A rule that takes another, or a metric, by its name need not import its file.
    """
    parts = [part for selector in selectors for part in rules_within(selector)]
    read = {f"{p.method}/{n}": v for p in parts for n, v in getattr(p, "identity", dict)().items()}
    named = {str(v) for part in parts for v in _values(part) if isinstance(v, str)}
    methods = {part.method for part in parts}
    rules = RULES.fingerprint(*methods, *(named & set(RULES)))
    return read | rules | METRICS.fingerprint(*((named - methods) & set(METRICS)))


def _values(part: Selector) -> list[Any]:
    """What a rule's parameters are; of those that are lists, each item."""
    found = [getattr(part, f.name) for f in fields(part)]  # type: ignore[arg-type]
    return [item for v in found for item in (v if isinstance(v, list | tuple) else (v,))]


def pinned(selector: Selector) -> Selector:
    """The selector, in which each rule that reads from the Hub has the commits of today."""
    own: Selector = selector.pinned() if hasattr(selector, "pinned") else selector
    held = {f.name: getattr(own, f.name) for f in fields(own)}  # type: ignore[arg-type]
    inner = {n: pinned(value) for n, value in held.items() if hasattr(value, "needs")}
    return replace(own, **inner) if inner else own  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True, config=FORBID)
class SubsetStage:
    """Inputs: `pairs`, and what the selector needs: `strong`, `weak`, `asked` (scores),
    `embeddings` and `queries` (of the pool and of the target queries), `overlaps`.

    `ratio` and `seed` are null for rules that do not use them, so that arms which differ only
    there share one subset. `count` asks for a number of rows in place of a ratio.
    """

    UNKEYED_AT_DEFAULT: ClassVar[frozenset[str]] = frozenset({"count"})

    STAGE: ClassVar[StageKind] = StageKind(
        "subset",
        module="qaq.selection.stage",
        version=2,
        inputs=("pairs", "strong", "weak", "asked", "embeddings", "queries", "overlaps"),
        facts=("{kept} of {rows} kept",),
    )

    selector: SelectorConfig
    ratio: float | None
    seed: int | None
    count: Annotated[int, Field(ge=1)] | None = None
