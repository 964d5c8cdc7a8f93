"""From a composed tree to a checked `Config`: every fault at once, each with the field's path."""

import difflib
import math
from collections.abc import Collection
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_origin

from omegaconf import OmegaConf
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]

from qaq.data.identity import FORMS, data_files
from qaq.host.errors import ConfigError, DataError
from qaq.host.plugins import options
from qaq.host.runtime import RuntimeConfig
from qaq.models.config import ModelConfig, ModelsConfig
from qaq.run.config import UNTUNED, Config, arms_of, reference_file
from qaq.run.fingerprints import models_in
from qaq.selection.config import RULES


def validate(tree: dict[str, Any]) -> Config:
    """Turn a composed tree into a `Config`, or raise `ConfigError` with every fault found."""
    try:
        config = TypeAdapter(Config).validate_python(tree)
    except ValidationError as error:
        found = [_explain(e, tree) for e in error.errors()]
        named = {text.partition(":")[0] for text in found}
        found += [text for text in _not_finite(tree) if text.partition(":")[0] not in named]
        raise ConfigError(found) from None
    problems = [*_not_finite(config), *impossible(config)]
    if problems:
        raise ConfigError(problems)
    return _served(config)


def _not_finite(tree: Any, path: str = "") -> list[str]:
    """Numbers below `path` that no key can hold and no stage compute with."""
    if isinstance(tree, float) and not math.isfinite(tree):
        return [f"{path}: found {tree}; expected a finite number (1e9 for a limit that is none)"]
    if is_dataclass(tree):
        parts = [(field.name, getattr(tree, field.name)) for field in fields(tree)]
    elif isinstance(tree, dict):
        parts = [(str(name), value) for name, value in tree.items()]
    elif isinstance(tree, list | tuple):
        parts = [(str(number), value) for number, value in enumerate(tree)]
    else:
        return []
    return [x for name, value in parts for x in _not_finite(value, f"{path}.{name}".lstrip("."))]


def _served(config: Config) -> Config:
    """The configuration with vLLM's servers by the id of the model that they serve.

    Answers of a served target are vLLM's, which enters their key: its numbers are its own.
    """
    if not config.runtime.vllm:
        return config
    servers: dict[str, tuple[str, ...]] = {}
    for role, urls in config.runtime.vllm.items():
        name = getattr(config.models, role).id
        servers[name] = tuple(dict.fromkeys([*servers.get(name, ()), *urls]))
    runtime = replace(config.runtime, vllm=servers)
    answers = "vllm" if config.models.target.id in servers else config.eval.generator
    return replace(config, runtime=runtime, eval=replace(config.eval, generator=answers))


def impossible(config: Config) -> list[str]:
    """Combinations that no stage could run, each with the field and the fix."""
    problems = []
    data = config.data
    if (data.source == "synthetic") != (data.synthesis is not None):
        problems.append("data.synthesis: source=synthetic needs it, and no other source reads it")
    if data.source in FORMS:
        if not data.path:
            problems.append(f"data.path: source={data.source} needs a file; set data.path=FILE")
        else:
            try:
                data_files(data)
            except DataError as error:
                problems.append(str(error))
    if data.source == "hub" and data.hub_id is None:
        problems.append("data.hub_id: source=hub needs a dataset id; set data.hub_id=OWNER/NAME")
    total = sum(config.noise.shares.values())
    if total >= 1:
        problems.append(f"noise.shares: they add up to {total:g}; keep the sum below 1")
    problems += _not_launched(config.runtime)
    problems += config.benchmark.faults()
    problems += _unserved(config)
    if config.eval.samples > 1 and config.eval.temperature == 0:
        problems.append("eval.samples: several greedy samples are equal; set eval.temperature > 0")
    if config.reference and reference_file(config.reference) is None:
        problems.append(
            f"reference: neither a file nor an experiment with a reference.csv: {config.reference}"
        )
    if "{answer}" not in config.framing.reverse_instruction:
        problems.append("framing.reverse_instruction: it must hold {answer}, where the answer goes")
    problems += _undeclared(config)
    problems += _ambiguous(config.models)
    problems += _parting(config)
    problems += _unstudied(config)
    return problems


def _unstudied(config: Config) -> list[str]:
    """What its study could not read, or would read for something else."""
    study = config.study
    if study is None:
        return []
    problems = []
    if study.tuned and config.train is None:
        problems.append("study.tuned: a scorer is to be fine-tuned, but train is null; set train=…")
    if study.kind != "metric_agreement" and not any(config.noise.shares.values()):
        problems.append(
            f"noise.shares: {study.kind} looks for damage that was planted, and none is; set "
            "noise=planted"
        )
    problems += [
        f"study.framings.{name}: it must have the name of its key, and not the experiment's own"
        for name, framing in sorted(study.framings.items())
        if framing.name != name or name == config.framing.name
    ]
    return problems + [
        f"arms.{name}.{role}: a study reads every arm's scores from models.{role}; leave it out, "
        "or make a study of its own with that model"
        for name, arm in config.arms.items()
        for role in ("strong", "weak")
        if getattr(arm, role) is not None
    ]


def _undeclared(config: Config) -> list[str]:
    """What the primary family names and the experiment has not."""
    primary, arms = config.primary, arms_of(config)
    pairs = [*(primary.comparisons or ()), *([primary.assay] if primary.assay else ())]
    named = [*(name for pair in pairs for name in pair), *(primary.as_good or ())]
    problems = [
        f"primary: there is no arm {name}; it has {', '.join(arms)}"
        for name in dict.fromkeys(named)
        if name not in arms
    ]
    declared = primary.comparisons
    if primary.assay and declared is not None and primary.assay not in declared:
        problems.append("primary.assay: it must be one of primary.comparisons")
    return problems


def _not_launched(runtime: RuntimeConfig) -> list[str]:
    """What is wrong with the file for `accelerate launch`."""
    launch = runtime.accelerate_file
    if launch is not None and not launch.is_file():
        known = ", ".join(sorted(options("accelerate")))
        return [f"runtime.accelerate: no such file: {launch}; a path or one of: {known}"]
    if launch is None or runtime.hosts == 1:
        return []
    try:
        found = OmegaConf.to_container(OmegaConf.load(launch))
    except (OSError, ValueError, YAMLError) as error:
        return [f"runtime.accelerate: {launch} cannot be read as YAML or JSON: {error}"]
    tree: dict[Any, Any] = found if isinstance(found, dict) else {}
    launcher = (tree.get("deepspeed_config") or {}).get("deepspeed_multinode_launcher")
    if tree.get("distributed_type") != "DEEPSPEED" or launcher == "standard":
        return []
    return [
        f"runtime.accelerate: by {launch} DeepSpeed would train on each of the runtime.hosts by "
        "itself; add deepspeed_multinode_launcher: standard to its deepspeed_config"
    ]


def _parting(config: Config) -> list[str]:
    """Names that a report would take for something else, or not find."""
    named: dict[str, Collection[str]] = {"arms": arms_of(config)}
    named |= {"benchmark.suites": config.benchmark.suites}
    if study := config.study:
        named |= {"framing.name": (config.framing.name,), "study.framings": study.framings}
        named |= {"study.scorers": study.scorers}
    taken = f"arms.{UNTUNED}: so the model before training is called; take another name"
    return [taken] * (UNTUNED in named["arms"]) + [
        f"{where}: a name may not hold /; found {name}, take {name.replace('/', '_')}"
        for where, names in named.items()
        for name in names
        if "/" in name
    ]


def _unserved(config: Config) -> list[str]:
    """What is wrong with the servers that are named, or missing."""
    roles, servers = ("strong", "weak", "target"), config.runtime.vllm
    if unknown := [name for name in servers if name not in roles]:
        known = ", ".join(roles)
        return [f"runtime.vllm.{n}: there is no such model; it has {known}" for n in unknown]
    ids = [getattr(config.models, role).id for role in servers]
    if config.eval.generator == "vllm" and config.models.target.id not in ids:
        return ["eval.generator: vllm needs a server of the target model; set runtime.vllm=URL"]
    revisions = {(model.id, model.revision) for _, model in models_in(config, ())}
    return [
        f"runtime.vllm.{role}: {name} is used at several revisions, and a server has one; give "
        "them as folders"
        for role, name in zip(servers, ids, strict=True)
        if sum(known == name for known, _ in revisions) > 1
    ]


def _ambiguous(models: ModelsConfig) -> list[str]:
    """Models that results would show under one name."""
    problems = []
    named: dict[str, ModelConfig] = {}
    for role in ("strong", "weak", "target"):
        model: ModelConfig = getattr(models, role)
        first = named.setdefault(model.name, model)
        if (first.id, first.revision) != (model.id, model.revision):
            problems.append(
                f"models.{role}.name: {first.id} and {model.id} would both be called {model.name}; "
                f"set models.{role}.name"
            )
    return problems


def _explain(error: Any, tree: dict[str, Any]) -> str:
    """One sentence for one of pydantic's errors: the field, what was found, what to do."""
    path = [str(p) for p in error["loc"]]
    where = ".".join(path)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _siblings(path, tree)
        # lr for learning_rate: people write initials
        initials = [k for k in known if "".join(word[:1] for word in k.split("_")) == path[-1]]
        close = initials or difflib.get_close_matches(path[-1], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
        return f"{where}: there is no such field{hint if known else ''}"
    if error["type"] == "missing":
        return f"{where}: it must be given"
    found = error.get("input")
    if path[0] == "models" and len(path) == 2 and isinstance(found, str):
        return f"{where}: found {found!r}; to choose a model, write model@{where}={found}"
    if percent := _percent(error, found):
        return f"{where}: found {found!r}; it is a share between 0 and 1, write {percent:g}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: found {found!r}; {message[0].lower()}{message[1:]}"


def _percent(error: Any, found: Any) -> float | None:
    """The share that was meant, where a share of at most 1 was given in percent."""
    try:
        value = float(str(found).strip().removesuffix("%"))
    except ValueError:
        return None
    share = error["type"] == "less_than_equal" and error["ctx"]["le"] == 1 and value >= 2
    share |= error["type"] == "float_parsing" and str(found).strip().endswith("%")
    return value / 100 if share and 0 < value <= 100 else None


def _section(kind: Any) -> Any:
    """The section itself where it may also be null."""
    members = [m for m in get_args(kind) if m is not type(None)]
    return members[0] if len(members) == 1 and is_dataclass(members[0]) else kind


def _siblings(path: list[str], tree: Any) -> list[str]:
    """Names of the fields that may stand where the last part of `path` stands."""
    here: Any = Config
    for part in path[:-1]:
        kinds = {f.name: f.type for f in fields(here)} if is_dataclass(here) else {}
        here = _section(kinds.get(part, here))
        if get_origin(here) is dict and part not in kinds:
            here = _section(get_args(here)[1])
        tree = tree.get(part) if isinstance(tree, dict) else None
        if isinstance(tree, dict) and tree.get("method") in RULES:  # the parameters of a rule
            here = RULES[str(tree["method"])].config
    return [f.name for f in fields(here)] if is_dataclass(here) else []
