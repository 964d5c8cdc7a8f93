"""`qaq fetch`: what an experiment takes from elsewhere, listed with size and licence, then fetched.

For a login node with a network: afterwards the experiment runs with HF_HUB_OFFLINE=1. What is here
already is not fetched again, and a transfer that was ended goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from qaq.data import sources
from qaq.data.config import DataConfig, PairsStage
from qaq.embedding import queries
from qaq.embedding.config import EmbeddingsStage
from qaq.evaluation import benchmarks
from qaq.evaluation.config import OverlapsStage, Suite
from qaq.host.errors import UserError
from qaq.models import identity as models
from qaq.models.config import ModelConfig
from qaq.run.fingerprints import models_in
from qaq.run.pipeline import Run
from qaq.selection.config import SubsetStage, rules_within
from qaq.selection.rules import scar
from qaq.store import hub

Say = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """Something to be had: what it is, how large, under which licence, and what fetches it.

    `left` are the bytes that are not here yet; None where that is not known before.
    """

    what: str
    version: str
    size: int | None
    left: int | None
    licence: str
    fetch: Callable[[], object]

    def line(self, width: int) -> str:
        """The item as a line of the list."""
        size = "size not known" if self.size is None else f"{self.size / 1e6:,.1f} MB"
        here = "here" if self.left == 0 else ""
        return f"{self.what:<{width}}  {self.version:<10} {size:>16}  {here:<4}  {self.licence}"


def fetch(run: Run, say: Say, only_list: bool) -> None:
    """List what the experiment needs, then fetch what is not here.

    Raises:
        UserError: something cannot be had.
    """
    items = needed(run)
    width = max((len(item.what) for item in items), default=0)
    for item in items:
        say(item.line(width))
    left = sum(item.left or 0 for item in items)
    say(f"{len(items)} things from elsewhere, {left / 1e6:,.1f} MB of them to fetch")
    if only_list:
        return
    for item in items:
        if item.left != 0:
            say(f"fetching {item.what}")
            item.fetch()
    say("all is here; the experiment runs without a network: HF_HUB_OFFLINE=1 qaq run …")


def needed(run: Run) -> list[Item]:
    """Everything that the stages of an experiment take from elsewhere, each once."""
    found: dict[str, Item] = {}

    def add(item: Item | None) -> None:
        if item is not None:
            found.setdefault(item.what, item)

    for stage in run.stages:
        config = stage.config
        for _, model in models_in(config, ()):
            add(_model(model))
        if isinstance(config, PairsStage) and config.data.source == "hub":
            add(_pool(config.data))
        if isinstance(config, OverlapsStage):
            for name, suite in config.specs.items():
                if suite.release is not None and suite.file is None:
                    add(_problems(name, suite))
        asks = isinstance(config, EmbeddingsStage) and "pairs" not in stage.inputs
        if asks and config.queries is None:
            add(Item("queries MBPP", "", None, None, "CC-BY-4.0", queries.mbpp_file))
        if isinstance(config, SubsetStage):
            for rule in rules_within(config.selector):
                if isinstance(rule, scar.Scar):
                    ranker, encoder = scar.parts(rule).values()
                    add(_model(encoder))
                    add(_model(ranker, scar.WEIGHTS, call=partial(scar.fetched, rule)))
    return list(found.values())


def _model(model: ModelConfig, *more: str, call: Callable[[], object] | None = None) -> Item | None:
    whole = models.parts(model)[0]
    if whole.id.startswith(models.EMBEDDED) or models.is_folder(whole):
        return None
    whole = models.pinned(whole)
    patterns = models.hub_files(whole, *more)
    call = call or (lambda: models.folder_of(whole))
    return _repository("model", whole.id, whole.revision, patterns, call)


def _pool(data: DataConfig) -> Item:
    assert data.hub_id is not None
    item = _repository(
        "dataset", data.hub_id, data.commit, None, lambda: next(iter(sources.read(data)))
    )
    return replace(item, what=f"{item.what} {data.hub_config}") if data.hub_config else item


def _repository(
    kind: hub.Kind,
    name: str,
    commit: str | None,
    patterns: list[str] | None,
    call: Callable[[], object],
) -> Item:
    try:
        commit = hub.commit(kind, name, commit)
        size, left, licence = hub.size_and_licence(kind, name, commit, patterns)
    except hub.HubError as error:
        raise UserError(str(error)) from None
    what = f"{'data set' if kind == 'dataset' else kind} {name}"
    # A data set's files are kept elsewhere than in the Hub's cache; its own client knows where
    return Item(what, commit[:8], size, None if kind == "dataset" else left, licence, call)


def _problems(name: str, suite: Suite) -> Item:
    assert suite.release is not None
    file = benchmarks.locate(name, suite)  # planning has fetched it
    size = file.stat().st_size
    return Item(f"problems {name}", suite.release.version, size, 0, "Apache-2.0", lambda: file)
