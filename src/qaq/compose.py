"""From a command line to checked configurations, through Hydra.

`jobs` expands a sweep the way Hydra's own sweeper does, so that every job of a multirun is
composed, checked and planned before the first one starts.
"""

import re
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
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
            tree = _tree(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_each_fault(overrides, error)) from None
    return validate(tree)


def expand(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep: one list of overrides each, in Hydra's order.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigError([_first_line(error)]) from None
    batches = BasicSweeper.split_arguments(parsed, None)
    return [list(job) for batch in batches for job in batch]


def _tree(overrides: list[str]) -> dict[str, Any]:
    composed = hydra_compose("config", overrides=overrides)
    tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    if not isinstance(tree, dict):
        raise ConfigError(["the configuration is not a mapping; see conf/config.yaml"])
    return {str(k): v for k, v in tree.items()}


def _each_fault(overrides: list[str], error: Exception) -> list[str]:
    """Every override that fails on its own, since Hydra stops at the first.

    Choices of a group are kept while the others are tried: a field may exist only there.
    """
    choices = [o for o in overrides if not re.match(r"[+~]*[\w.@/]*\.", o) or "@" in o]
    faults = []
    for override in overrides:
        try:
            _tree(list(dict.fromkeys([*(c for c in choices if c == override), override])))
        except (HydraException, OmegaConfBaseException) as fault:
            try:
                _tree([*(c for c in choices if c != override), override])
            except (HydraException, OmegaConfBaseException):
                faults.append(f"{override}: {_first_line(fault)}")
    return faults or [_first_line(error)]


def _first_line(error: Exception) -> str:
    """Hydra's message without its advice on `+key=value`, which the schema would refuse."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("To append", "full_key", "object_type"))]
    text = "; ".join(dict.fromkeys(kept))
    text = re.sub(r"Could not override '([^']*)'\.?;? *", r"there is no field \1; ", text)
    return text.replace("Key '", "'").rstrip("; .")
