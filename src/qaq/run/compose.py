"""From a command line to checked configurations, through Hydra.

`expand` unrolls a sweep the way Hydra's own sweeper does, so that every job of a multirun is
composed, checked and planned before the first one starts. Hydra takes 50 ms to put the groups
together, so jobs that choose the same options share that work and differ only in their values.
"""

import copy
import difflib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qaq.data.config import SOURCES
from qaq.host.errors import ConfigError
from qaq.host.plugins import Registry, conf_dir, conf_dirs, options
from qaq.run.config import Config
from qaq.run.validation import validate
from qaq.scoring.config import FRAMINGS
from qaq.selection.config import RULES

# Where the user's file is chosen by its name alone: its registry, the option of ours whose other
# fields it gets, and the fields that name it.
NAMED_BY: dict[str, tuple[Registry[Any], str, tuple[str, ...]]] = {
    "selector": (RULES, "full", ("method",)),
    "framing": (FRAMINGS, "chat", ("kind", "name")),
    "data": (SOURCES, "stdlib", ("source", "name")),
}


def compose(overrides: list[str]) -> Config:
    """The checked configuration for one list of Hydra overrides.

    Raises:
        ConfigError: with every fault of the command line, or of the composed tree.
    """
    return compose_all([overrides])[0]


def compose_all(jobs: list[list[str]]) -> list[Config]:
    """The checked configurations of several jobs.

    Raises:
        ConfigError: with every fault of the first job that has one.
    """
    bases: dict[tuple[str, ...], DictConfig] = {}
    with _hydra():
        return [validate(_tree(_effective(job, bases), bases)[0]) for job in jobs]


def search_path() -> ConfigSearchPath:
    """Where Hydra finds options: our own folder, then the user's."""
    search = create_config_search_path(str(conf_dir().absolute()))
    for folder in conf_dirs()[1:]:
        search.append("user", str(folder), anchor=SearchPathQuery(provider="main"))
    return search


@contextmanager
def _hydra() -> Iterator[None]:
    version.setbase("1.3")
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="qaq", config_search_path=search_path())
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = before


def effective(overrides: list[str]) -> list[str]:
    """Overrides of which Hydra alone composes what `compose` does: what a launcher is handed."""
    with _hydra():
        return _effective(overrides, {})


def _effective(overrides: list[str], bases: dict[tuple[str, ...], DictConfig]) -> list[str]:
    """The overrides with every model's preset that is not meant taken out.

    A model whose id was set to another than its preset's keeps nothing of the preset: `hub`, which
    sets nothing, takes its place. What was set beside the id, wherever, stays.
    """
    overrides = _of_roles(overrides)
    tree, presets = _tree(overrides, bases)
    borrowed = [place for place, preset in presets.items() if _is_borrowed(tree, place, preset)]
    return _without_presets(overrides, borrowed) if borrowed else overrides


def _is_borrowed(tree: dict[str, Any], place: str, preset: str) -> bool:
    """Whether the model at `place` has another id than its preset."""
    model: Any = tree
    for part in place.split("."):
        model = model.get(part, {}) if isinstance(model, dict) else {}
    if not isinstance(model, dict) or "id" not in model:
        return False  # the schema says what is wrong with it
    return _id_of(preset) not in (None, model["id"])


def _id_of(preset: str) -> str | None:
    """The id that an option of `model` sets, itself or by one that it starts from; None if none."""
    own: Any = OmegaConf.load(options("model")[preset])
    bases = [str(base).rpartition("/")[2] for base in own.get("defaults", ())]
    known = [_id_of(base) for base in bases[::-1] if base in options("model")]
    return own.get("id") or next(filter(None, known), None)


def _without_presets(overrides: list[str], places: list[str]) -> list[str]:
    """The overrides with the presets of the models at these places replaced by `hub`."""
    groups = {f"model@{place}" for place in places}
    own = [override.get_key_element() for override in _parsed(overrides)]
    chosen = [f"{key}=hub" for key in own if key.lstrip("+~") in groups]
    kept = [t for t, key in zip(overrides, own, strict=True) if key.lstrip("+~") not in groups]
    rest = groups - {key.lstrip("+~") for key in own}
    return [*kept, *chosen, *(f"{group}=hub" for group in sorted(rest))]


def _of_roles(overrides: list[str]) -> list[str]:
    """`model=NAME` as a choice for each role whose id is set beside it; for all if none is."""
    keys = [override.get_key_element() for override in _parsed(overrides)]
    roles = ("strong", "weak", "target")
    meant = [role for role in roles if f"models.{role}.id" in keys] or roles
    spread = []
    for text, key in zip(overrides, keys, strict=True):
        name = text.partition("=")[2]
        own = [f"model@models.{role}={name}" for role in meant]
        spread += own if key == "model" else [text]
    return spread


def _tree(
    overrides: list[str], bases: dict[tuple[str, ...], DictConfig]
) -> tuple[dict[str, Any], dict[str, str]]:
    """One job's composed configuration, unchecked, and the preset of each model by its place."""
    opened = open_fields(overrides)
    chosen = [is_hydras(o) or bool(options(o.key_or_group)) for o in _parsed(opened)]
    choices = tuple(text for text, choice in zip(opened, chosen, strict=True) if choice)
    values = [text for text, choice in zip(opened, chosen, strict=True) if not choice]
    try:
        if choices not in bases:
            bases[choices] = hydra_compose(
                "config", overrides=list(choices), return_hydra_config=True
            )
        composed = copy.deepcopy(bases[choices])
        options_of = composed.hydra.runtime.choices
        groups = {k.partition("@") for k in options_of if k.startswith("model@")}
        presets = {place: str(options_of[f"{g}@{place}"]) for g, _, place in sorted(groups)}
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        ConfigLoaderImpl._apply_overrides_to_config(_parsed(values), composed)
        tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_one_line(error)]) from None
    return tree_of(tree), presets


def is_hydras(override: Override) -> bool:
    """Whether an override concerns Hydra: its launcher, its folders."""
    return override.key_or_group.startswith(("hydra/", "hydra."))


def hydras(overrides: list[str]) -> list[str]:
    """The overrides that concern Hydra itself."""
    parsed = zip(overrides, _parsed(overrides), strict=True)
    return [text for text, override in parsed if is_hydras(override)]


def tree_of(container: Any) -> dict[str, Any]:
    """A composed configuration as a plain mapping, Hydra's own settings left out.

    `name=…` sets the field `experiment`, which on a command line chooses an option of that group.

    Raises:
        ConfigError: the name is none.
    """
    tree = {str(k): v for k, v in dict(container).items() if k != "hydra"}
    name = tree.pop("name", None)
    if isinstance(name, dict | list) or (name is not None and not str(name).strip()):
        raise ConfigError([f"name: found {name!r}; expected a name for the run's results"])
    return tree if name is None else tree | {"experiment": str(name)}


def values_of(overrides: list[str]) -> dict[str, str]:
    """Each override's field (or group, with its place) and its value, as they were written."""
    return {o.get_key_element().lstrip("+~"): o.get_value_string() for o in _parsed(overrides)}


def open_fields(overrides: list[str]) -> list[str]:
    """Overrides as Hydra is to read them: a field may be set that no YAML file mentions.

    Hydra would refuse it at the first such field; the schema, which knows every field, refuses
    all unknown ones at once and by name. Choices of a group are checked here.

    Raises:
        ConfigError: an override cannot be parsed, or a group has no such option.
    """
    opened, faults = [], []
    for text, override in zip(overrides, _parsed(overrides), strict=True):
        if is_hydras(override):
            opened.append(text)
            continue
        group = override.key_or_group
        known = sorted(options(group))
        if not known:
            opened.append(text if text.startswith(("+", "~")) else f"++{text}")
            continue
        opened.append(text)
        chosen = override.value()
        if chosen is None and not override.is_delete():
            faults.append(
                f"{group}: it chooses a set of options and cannot be null; leave "
                f"it out, or take one of: {', '.join(known)}"
            )
        if not isinstance(chosen, str) or chosen in known:
            continue
        if chosen in _without_option(group):
            opened[-1:] = _as_fields(override, chosen)
            continue
        known += _without_option(group)
        close = difflib.get_close_matches(chosen, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        faults.append(f"{group}: there is no option {chosen!r}; {hint}")
    if faults:
        raise ConfigError(faults)
    return opened


def _without_option(group: str) -> list[str]:
    """Names of the user's rules, framings or sources: each may be chosen without a YAML file."""
    if group not in NAMED_BY:
        return []
    registry = NAMED_BY[group][0]
    return [name for name in registry if registry.fingerprint(name)]


def _as_fields(override: Override, name: str) -> list[str]:
    """The choice of such a name as the choice of an option of ours, with its name set."""
    group, place = override.key_or_group, override.package or override.key_or_group
    _, base, named_by = NAMED_BY[group]
    choice = f"{override.get_key_element()}={base}"
    return [choice, *(f"++{place}.{field}={name}" for field in named_by)]


def expand(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep: one list of overrides each, in Hydra's order.

    Raises:
        ConfigError: an override cannot be parsed, or is swept over no value.
    """
    parsed = _parsed(overrides)
    jobs = [list(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    if not jobs:
        swept = [o for o in parsed if o.is_sweep_override() and not [*o.sweep_string_iterator()]]
        raise ConfigError([f"{o.input_line}: it is swept, over no value" for o in swept])
    return jobs


def _parsed(overrides: list[str]) -> list[Override]:
    return [_parse(text) for text in overrides]


@lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError([f"{text}: {_cure(text)}"]) from error


def _cure(text: str) -> str:
    """How an override that Hydra cannot read is to be written."""
    key, sign, value = text.partition("=")
    if not sign:
        return "an override is KEY=VALUE; nothing may stand alone, and no space after a comma"
    if value.endswith(","):
        bare = value.rstrip(",")
        return f"a list has no space behind its commas: {key}={bare},OTHER (a sweep, with -m)"
    quoted = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
    whole = f'{key}="{quoted}"'
    return f"the value holds characters that Hydra reads as its own; write {shlex.quote(whole)}"


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
