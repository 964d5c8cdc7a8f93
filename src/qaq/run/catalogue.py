"""What there is to choose from, a line each: `qaq list`, and the completion of overrides."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from inspect import getdoc
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import TypeAdapter

from qaq.host.errors import UserError
from qaq.host.plugins import Registry, conf_dirs, options
from qaq.run.compose import NAMED_BY, compose
from qaq.run.config import Config
from qaq.scoring.metrics import METRICS, titles

GROUPS = {  # kinds as `qaq list` has them, with the group of `conf/` whose options they are
    "experiments": "experiment",
    "rules": "selector",
    "models": "model",
    "data": "data",
    "benchmarks": "benchmark",
}
KINDS = (*GROUPS, "metrics")
WIDTH = 100
ROLES = ("strong", "weak", "target")


def lines(kind: str | None = None) -> list[str]:
    """One kind's names, each with what it is, and how one is chosen; of None, all kinds."""
    if kind is None:
        parts = {each: _listed(_choices(each), "  ") for each in KINDS}
        found = [line for each, named in parts.items() for line in (f"{each}:", *named, "")]
        return found[:-1]
    return _listed(_choices(kind), "")


def run_choices() -> list[str]:
    """What `qaq run` can be given, for who gave nothing."""
    return [
        "Nothing was started: say what to run. An experiment:",
        *_listed({f"experiment={n}": text for n, text in _choices("experiments").items()}, "  "),
        "or a file of your own, with a rule (qaq list rules):",
        "  qaq run data=jsonl data.path=pairs.jsonl selector=rmi_band name=mine",
        "First see what it takes: qaq plan experiment=…",
    ]


def composed(overrides: list[str], package: str | None = None) -> str:
    """The checked configuration as YAML, or the part of it at `package`, as `models.strong`.

    Raises:
        ConfigError: it cannot be composed.
        UserError: there is no such part.
    """
    tree: Any = TypeAdapter(Config).dump_python(compose(overrides), mode="json")
    for part in package.split(".") if package else ():
        if not isinstance(tree, dict) or part not in tree:
            known = ", ".join(tree) if isinstance(tree, dict) else "nothing below"
            raise UserError(f"--package {package}: there is no {part}; there are: {known}")
        tree = tree[part]
    return OmegaConf.to_yaml(tree).rstrip() if isinstance(tree, dict | list) else json.dumps(tree)


def override_choices(begun: str) -> list[str]:
    """The overrides that a word may become: groups and fields, or a group's options."""
    group, sign, _ = begun.partition("=")
    if sign:
        kind, _, _ = group.partition("@")
        return [f"{group}={name}" for name in options(kind)]
    own = {f.name for f in fields(Config)} | {"name"}
    groups = {p.name for folder in conf_dirs() for p in folder.iterdir() if p.is_dir()}
    groups -= {"hydra", "templates", "accelerate", "model"}
    models = {f"model@models.{role}" for role in ROLES}
    return sorted(f"{name}=" for name in own | groups | models)


def _choices(kind: str) -> dict[str, str]:
    if kind == "metrics":
        shown = titles()
        return {name: _metric(name, shown.get(name)) for name in sorted(METRICS)}
    group = GROUPS[kind]
    found = {name: _comment(file) for name, file in options(group).items()}
    if group in NAMED_BY:
        registry: Registry[Any] = NAMED_BY[group][0]
        own = {n: registry[n] for n in registry if registry.fingerprint(n)}
        # a rule is described by its parameters, a source by its reader
        said = {n: getattr(v, "config", getattr(v, "read", v)) for n, v in own.items()}
        found = {n: _sentence(getdoc(v) or "") for n, v in said.items()} | found
    return dict(sorted(found.items()))


def _metric(name: str, title: str | None) -> str:
    text = _sentence(getdoc(METRICS[name]) or "")
    return f"{title}: {text}" if title else text


def _listed(found: Mapping[str, str], indent: str) -> list[str]:
    width = max((len(name) for name in found), default=0)
    room = WIDTH - len(indent) - width - 2
    return [
        f"{indent}{name:<{width}}  {_shortened(text, room)}".rstrip()
        for name, text in found.items()
    ]


def _shortened(text: str, room: int) -> str:
    """The text up to its last clause that fits, or cut."""
    if len(text) <= room:
        return text
    ends = [m.start() for m in re.finditer(r": |; |, | \(", text[:room])]
    end = max((n for n in ends if text[:n].count("(") == text[:n].count(")")), default=0)
    return text[:end] if end > room / 3 else text[: room - 1].rstrip() + "…"


def _comment(file: Path) -> str:
    """The first sentence of the comment at the top of an option's file."""
    text = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @"):
            text.append(line.lstrip("# "))
    return _sentence(" ".join(text))


def _sentence(text: str) -> str:
    """The first sentence of the first paragraph."""
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    first = re.split(r"(?<=[.?])\s", paragraph, maxsplit=1)[0]
    return first.rstrip(".")
