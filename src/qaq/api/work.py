"""From a source of records and a few wishes to the stages that score and choose, and their making.

    source ──► pairs ──► scores (one table per scorer) ──► subset

They are the stages of `qaq run`, in the same store under the same keys: a second rule or another
size finds the scores there.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from qaq.data.config import Fields
from qaq.host.errors import StageError, UserError
from qaq.host.plugins import options
from qaq.run.compose import compose
from qaq.run.config import Config
from qaq.run.experiment import refuse_without_card
from qaq.run.pipeline import Run, plan
from qaq.run.runner import make
from qaq.run.stage import Stage, in_order
from qaq.scoring.metrics import metric_names
from qaq.selection.config import Selector
from qaq.store.manifest import Artifact
from qaq.store.store import Store

Say = Callable[[str], None]
RULE = "rmi_middle"  # docs/which_rule.md says why
WORDS = {"true", "false", "null", "nan", "inf", "none"}  # values of their own to Hydra
OURS = ["train=none", "noise=none", "tracking=disabled"]


@dataclass(frozen=True)
class Wishes:
    """What somebody asks for beside the records.

    `model` and `weak` are options of the group `model`, ids of the Hub, or folders. `overrides` are
    any others, as `qaq run` takes them.
    """

    rule: str = RULE
    model: str | None = None
    weak: str | None = None
    fields: Fields | None = None
    store: Path | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Keep:
    """How much is kept: a share of the rows that the rule can choose from, or a number of rows."""

    ratio: float | None = None
    count: int | None = None

    @classmethod
    def of(cls, text: str | float) -> "Keep":
        """`25%`, `0.25`, or `5000` rows. Raises UserError: it is none of these."""
        written = str(text).strip()
        try:
            value = float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
        except ValueError:
            value = float("nan")
        if written.isdecimal() and value >= 1:
            return cls(count=int(written))
        if not 0 < value <= 1:
            raise UserError(f"--keep {text}: expected a share (25% or 0.25) or a number of rows")
        return cls(ratio=value)

    def __str__(self) -> str:
        return f"{self.count:,} rows" if self.count else f"{100 * (self.ratio or 0):g}% of the rows"


def configured(form: str, files: tuple[Path, ...], wishes: Wishes) -> Config:
    """The checked configuration.

    Raises:
        ConfigError: with every fault.
        UserError: an override asks for what cannot be here.
    """
    taken = [o for o in wishes.overrides if o.startswith(("selector=", "data=", "data.path="))]
    if taken:
        raise UserError(f"{taken[0]}: the rule is --by RULE, and the files stand by themselves")
    if not re.fullmatch(r"\w[\w.-]*", wishes.rule):
        raise UserError(f"--by {wishes.rule}: no name of a rule; qaq list rules has them")
    overrides = [*OURS, f"selector={wishes.rule}"]
    for role, model in (("strong", wishes.model), ("weak", wishes.weak)):
        if model is not None:
            overrides.append(_model(role, model))
    config = compose([*overrides, *wishes.overrides])
    if config.data.turns == "each" or config.noise.shares or config.arms or config.study:
        raise UserError(
            "a record is one row here, as it is: leave out data.turns=each, noise and experiments"
        )
    data = replace(
        config.data,
        name=files[0].stem.partition(".")[0] or form,
        source=form,
        path=files,
        hub_id=None,
        synthesis=None,
        fields=wishes.fields or config.data.fields,
    )
    store = wishes.store or config.runtime.store
    return replace(config, data=data, runtime=replace(config.runtime, store=store))


def refuse_unread(selector: Selector, wishes: Wishes) -> None:
    """Refuse a model that is asked for and that the rule does not read.

    Raises:
        UserError: `--model` or `--weak` names one.
    """
    needs = selector.needs
    for option, model, roles in (
        ("--model", wishes.model, {"strong", "asked"}),
        ("--weak", wishes.weak, {"weak"}),
    ):
        if model is None or roles & set(needs):
            continue
        scorers = {"strong": f"--model {model}", "asked": f"--model {model}"}
        ways = scorers | {"weak": f"--weak {model}", "embeddings": _model("target", model)}
        if found := " or ".join(dict.fromkeys(ways[role] for role in needs if role in ways)):
            raise UserError(f"{option}: {wishes.rule} does not read it; what it reads: {found}")
        raise UserError(
            f"{option}: {wishes.rule} reads neither scores nor vectors of a model; leave it out"
        )


def metrics_named(names: Iterable[str]) -> dict[str, str]:
    """The metrics that are asked for, under the names they were asked by.

    Raises:
        UserError: there is no such metric, or none is named.
    """
    try:
        found = {
            known if name == "all" else name: known
            for name in names
            for known in metric_names(name)
        }
    except ValueError as error:
        raise UserError(str(error)) from None
    if not found:
        raise UserError("which metrics? qaq list metrics has their names")
    return found


def _model(role: str, name: str) -> str:
    if name in options("model"):
        return f"model@models.{role}={name}"
    return override(f"models.{role}.id", name)


def override(field: str, value: object) -> str:
    """The override that sets a field to a text, whatever Hydra's grammar makes of it."""
    text = str(value)
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", text) and text.lower() not in WORDS:
        return f"{field}={text}"
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'{field}="{quoted}"'


def choosing(config: Config, rule: str, keep: Keep | None) -> dict[str, Stage]:
    """The stage `subset` and what it reads, by role.

    Raises:
        UserError: the rule needs a size and has none, or has one of its own and gets another.
    """
    report = plan(config)[-1]
    subset = next(stage for role, stage in report.inputs.items() if role.startswith("subset/"))
    own = not config.selector.uses_ratio
    if own and keep is not None:
        raise UserError(f"{rule} has a size of its own; leave out --keep")
    name, settings = f"{config.data.name}-{rule}", subset.config
    if not own:
        if keep is None:
            raise UserError("how much is to be kept? --keep 25%, --keep 0.25 or --keep 5000")
        settings = replace(settings, ratio=keep.ratio, count=keep.count)
        name += f"-{keep.count}rows" if keep.count else f"-{keep.ratio:g}"
    if settings.seed is not None:
        name += f"-seed{settings.seed}"
    subset = replace(subset, config=settings, name=name)
    return {**subset.inputs, "subset": subset}


def made(stages: dict[str, Stage], config: Config, say: Say) -> dict[str, Artifact]:
    """Make what is missing of the stages and what they rest on; the artifacts by role.

    Raises:
        StageError: one of them failed; the others' work is kept.
        UserError: there is no card for what runs a model on one.
    """
    store, ordered = Store(config.runtime.store), in_order(stages.values())
    _drop_old_pool(stages["pairs"], store)
    refuse_without_card(Run(config), ordered)
    asked = {stage.key for stage in stages.values()}
    results = make(ordered, store, config.runtime, say, reasons=False, read=asked)
    failed = [r.error for r in results if r.error]
    if failed:
        code = 2 if all(error.exit_code == 2 for error in failed) else 1
        raise StageError("\n".join(str(error) for error in failed), code)
    found = {r.stage.key: r.artifact for r in results if r.artifact}
    return {role: found[stage.key] for role, stage in stages.items()}


def _drop_old_pool(pairs: Stage, store: Store) -> None:
    """A pool of an earlier release does not say where its rows are from; it is made again."""
    artifact = store.find(pairs.kind, pairs.key)
    if artifact is None:
        return
    try:
        complete = {"position", "file"} <= set(
            pq.read_schema(artifact.path / "pairs.parquet").names
        )
    except (OSError, ValueError):
        return  # damaged: it is named as such and made again
    if not complete:
        with store.lock(pairs.kind, pairs.key, lambda _: None):
            store.discard(artifact.path)
