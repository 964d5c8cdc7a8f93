"""What is not in the store and enters a key by a hash: data, models, benchmarks, queries.

A plan that is only to be looked at may go on where one of them cannot be looked up (`tolerant`):
its place is then taken by the message, and no key that rests on it is the true one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any

from qaq.data import identity as data
from qaq.data.config import DataConfig, PairsStage
from qaq.data.synthesis import SynthesisConfig
from qaq.embedding import queries
from qaq.evaluation import benchmarks
from qaq.evaluation.config import OutcomesStage, OverlapsStage
from qaq.host.errors import UserError
from qaq.models import identity as models
from qaq.models.config import ModelConfig
from qaq.selection.config import Selector, SubsetStage, fingerprint, pinned
from qaq.studies.config import StudyStage

Identity = Callable[..., dict[str, str]]

UNRESOLVED = "unresolved"
# What could not be looked up so far, while a plan may go on without it; else None.
_FAILED: ContextVar[dict[str, str] | None] = ContextVar("failed", default=None)


@contextmanager
def tolerant() -> Iterator[None]:
    """In here an identity that cannot be looked up is `{UNRESOLVED: message}`, not an error."""
    token = _FAILED.set({})
    try:
        yield
    finally:
        _FAILED.reset(token)


def _tolerated(identity: Identity) -> Identity:
    def found(*arguments: Any, **named: Any) -> dict[str, str]:
        failed = _FAILED.get()
        if failed is None:
            return identity(*arguments, **named)
        asked = repr((identity.__module__, arguments, named))
        if asked not in failed:  # each is looked up once: a network may take its time to say no
            try:
                return identity(*arguments, **named)
            except UserError as error:
                failed[asked] = str(error)
        return {UNRESOLVED: failed[asked]}

    return found


data_identity = _tolerated(data.identity)
model_identity = _tolerated(models.identity)
benchmark_identity = _tolerated(benchmarks.identity)
query_identity = _tolerated(queries.identity)
rules_identity = _tolerated(fingerprint)


def pinned_model(model: ModelConfig) -> ModelConfig:
    """The model at the commit that its key names; as it is where that cannot be looked up."""
    return model if UNRESOLVED in model_identity(model) else models.pinned(model)


def pinned_data(source: DataConfig) -> DataConfig:
    """The source at the commit that the pool's key names; as it is where that is not known."""
    return source if UNRESOLVED in data_identity(source) else data.pinned(source)


def pinned_rule(selector: Selector) -> Selector:
    """The selector with the commits that its key names; as it is where they are not known."""
    return selector if UNRESOLVED in rules_identity(selector) else pinned(selector)


def read_by(config: Any, asks: bool = False) -> dict[str, str]:
    """Hashes of what a stage with this config reads that is no artifact, as it is now.

    Args:
        config: the stage's own, with models and data pinned.
        asks: whether it embeds target queries, not a pool.
    """
    found: dict[str, str] = {}
    if isinstance(config, PairsStage):
        content = data_identity(config.data)
        return content | config.versions(content)
    if isinstance(config, SubsetStage):
        return rules_identity(config.selector)
    if isinstance(config, StudyStage):
        return rules_identity(*config.arms.values())
    if isinstance(config, SynthesisConfig):
        writers = {"questioner": config.questioner}
        writers |= {name: answerer.model for name, answerer in config.answerers.items()}
        for role, model in writers.items():
            found |= _of(f"{role}.", model_identity(model))
    if isinstance(config, OverlapsStage):
        for suite, spec in config.specs.items():
            found |= _of(f"{suite}_", benchmark_identity(suite, suite=spec))
    if isinstance(getattr(config, "model", None), ModelConfig):
        found |= model_identity(config.model)
    if isinstance(config, OutcomesStage):
        found |= benchmark_identity(config.suite, suite=config.spec)
    return found | (query_identity(config.queries) if asks else {})


def _of(whose: str, parts: dict[str, str]) -> dict[str, str]:
    """The hashes by names that say whose they are; what could not be looked up stays itself."""
    return {n if n == UNRESOLVED else f"{whose}{n}": v for n, v in parts.items()}


def models_in(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ModelConfig]]:
    """Every model of a configuration, with the place where it stands below `path`."""
    if isinstance(tree, ModelConfig):
        yield path, tree
    elif is_dataclass(tree):
        for field in fields(tree):
            yield from models_in(getattr(tree, field.name), (*path, field.name))
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from models_in(value, (*path, str(name)))
