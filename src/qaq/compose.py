"""From a command line to checked configurations, through Hydra.

`expand` unrolls a sweep the way Hydra's own sweeper does, so that every job of a multirun is
composed, checked and planned before the first one starts.
"""

import difflib
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qaq.config import Config, validate
from qaq.errors import ConfigError
from qaq.models.identity import conf_dir


def compose(overrides: list[str]) -> Config:
    """The checked configuration for one list of Hydra overrides.

    Raises:
        ConfigError: with every fault of the command line, or of the composed tree.
    """
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir().absolute())):
        try:
            composed = hydra_compose("config", overrides=open_fields(overrides))
            tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError([_one_line(error)]) from None
    return validate(tree_of(tree))


def tree_of(container: Any) -> dict[str, Any]:
    """A composed configuration as a plain mapping, Hydra's own settings left out."""
    return {str(k): v for k, v in dict(container).items() if k != "hydra"}


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
        if not group.is_dir():
            plain = not text.startswith(("+", "~")) and not text.startswith("hydra")
            opened.append(f"++{text}" if plain else text)
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
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError([_one_line(error)]) from None


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
