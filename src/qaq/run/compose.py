"""From a command line to checked configurations, through Hydra.

`expand` unrolls a sweep the way Hydra's own sweeper does, so that every job of a multirun is
composed, checked and planned before the first one starts. Hydra takes 50 ms to put the groups
together, so jobs that choose the same options share that work and differ only in their values.
"""

import copy
import difflib
from functools import lru_cache
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qaq.host.errors import ConfigError
from qaq.models.identity import conf_dir
from qaq.run.config import Config, validate


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
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir().absolute())):
        return [_compose(job, bases) for job in jobs]


def _compose(overrides: list[str], bases: dict[tuple[str, ...], DictConfig]) -> Config:
    """One job: its choices of options as Hydra puts them together, then its values."""
    tree = _tree(overrides, bases)
    borrowed = [role for role, model in tree["models"].items() if _is_borrowed(model)]
    if borrowed:
        tree = _tree(_without_presets(overrides, borrowed), bases)
    return validate(tree)


def _is_borrowed(model: dict[str, Any]) -> bool:
    """Whether a model has a preset's name and another id: name and template are not its own."""
    preset = conf_dir() / "model" / f"{model.get('name')}.yaml"
    if not preset.is_file():
        return False
    own = OmegaConf.to_container(OmegaConf.load(preset))
    return isinstance(own, dict) and own["id"] != model["id"]


def _without_presets(overrides: list[str], roles: list[str]) -> list[str]:
    """The overrides with the presets of these roles replaced by the one that sets nothing.

    What was set beside the id, on the command line or by an experiment, stays.
    """
    groups = {f"model@models.{role}" for role in roles}
    kept = [
        t
        for t, o in zip(overrides, _parsed(overrides), strict=True)
        if o.get_key_element().lstrip("+~") not in groups
    ]
    return [*kept, *(f"{group}=hub" for group in sorted(groups))]


def _tree(overrides: list[str], bases: dict[tuple[str, ...], DictConfig]) -> dict[str, Any]:
    """One job's composed configuration, unchecked."""
    opened = open_fields(overrides)
    chosen = [is_choice(override) for override in _parsed(opened)]
    choices = tuple(text for text, choice in zip(opened, chosen, strict=True) if choice)
    values = [text for text, choice in zip(opened, chosen, strict=True) if not choice]
    try:
        if choices not in bases:
            bases[choices] = hydra_compose("config", overrides=list(choices))
        composed = copy.deepcopy(bases[choices])
        ConfigLoaderImpl._apply_overrides_to_config(_parsed(values), composed)
        tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([_one_line(error)]) from None
    return tree_of(tree)


def is_choice(override: Override) -> bool:
    """Whether an override chooses an option of a group, or sets a field of Hydra itself."""
    return is_hydras(override) or (conf_dir() / override.key_or_group).is_dir()


def is_hydras(override: Override) -> bool:
    """Whether an override concerns Hydra: its launcher, its folders."""
    return override.key_or_group.startswith(("hydra/", "hydra."))


def hydras(overrides: list[str]) -> list[str]:
    """The overrides that concern Hydra itself."""
    parsed = zip(overrides, _parsed(overrides), strict=True)
    return [text for text, override in parsed if is_hydras(override)]


def tree_of(container: Any) -> dict[str, Any]:
    """A composed configuration as a plain mapping, Hydra's own settings left out."""
    return {str(k): v for k, v in dict(container).items() if k != "hydra"}


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
        group = conf_dir() / override.key_or_group
        if is_hydras(override):
            opened.append(text)
            continue
        if not group.is_dir():
            opened.append(text if text.startswith(("+", "~")) else f"++{text}")
            continue
        opened.append(text)
        known = sorted(p.stem for p in group.glob("*.yaml"))
        chosen = override.value()
        if isinstance(chosen, str) and chosen not in known:
            close = difflib.get_close_matches(chosen, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            faults.append(f"{override.key_or_group}: there is no option {chosen!r}; {hint}")
    if faults:
        raise ConfigError(faults)
    return opened


def expand(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep: one list of overrides each, in Hydra's order.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    batches = BasicSweeper.split_arguments(_parsed(overrides), None)
    return [list(job) for batch in batches for job in batch]


def _parsed(overrides: list[str]) -> list[Override]:
    return [_parse(text) for text in overrides]


@lru_cache(maxsize=4096)
def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError([_one_line(error)]) from None


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
