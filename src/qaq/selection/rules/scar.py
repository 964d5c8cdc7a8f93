"""SCAR: rows of the most consistent style, by a learned ranker (arXiv 2406.10882).

The ranker is the class of the package `scar-tool` (0.35); its loading and its loop are not used:
the loop fails on a last batch of one row, the loader leaves weights random when the file lacks
them, and the filter before it drops most code as "not English". Here weights must fit exactly, and
the rank is of the whole pool.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.host.errors import ModelError
from qaq.models import identity as models
from qaq.models.config import ModelConfig
from qaq.models.weights import refuse_pointers
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import keep_highest
from qaq.selection.decision import Decision, Size
from qaq.selection.pool import Pool, given
from qaq.selection.ranks import FloatArray, finite
from qaq.store.keys import content_key
from qaq.store.tables import read_json

BATCH = 32
WEIGHTS = "pytorch_model.bin"


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Scar:
    """Highest score of SCAR's learned style ranker (arXiv 2406.10882; package scar-tool).

    `weights` is a folder or a Hub id. `commits` are those of the Hub's repositories, set by the
    planner.
    """

    UNKEYED: ClassVar[frozenset[str]] = frozenset({"weights", "commits"})  # `identity` says more
    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["scar"] = "scar"
    weights: str = "lizhuang144/scar-gte-base"
    max_tokens: int = Field(default=512, ge=16)
    trust_remote_code: bool = False  # the published encoder brings code of its own
    commits: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, str]:
        """Hashes, or the Hub's commits, of the ranker and of its encoder."""
        return {name: _content(model) for name, model in parts(self).items()}

    def pinned(self) -> "Scar":
        """The rule at the commits that the Hub's repositories have now."""
        found = [models.pinned(model) for model in parts(self).values()]
        return replace(self, commits={m.id: m.revision for m in found if m.revision})


@rule(Scar)
def scar(config: Scar, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the rows that the ranker scores highest."""
    score = finite(scar_scores(config, given(pool.texts, "texts").table()))
    return keep_highest(config, pool, size, score)


def scar_scores(config: Scar, texts: pa.Table) -> FloatArray:
    """The ranker's score of each row.

    Args:
        config: which weights, and how many tokens of a text are read.
        texts: the columns `question` and `answer`.

    Raises:
        ModelError: the package, the weights or the encoder is missing, or they do not fit.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = _load(config)
    model = model.to(device).eval()
    scores: list[float] = []
    for batch in texts.to_batches(max_chunksize=BATCH):
        inputs = []
        for column in ("question", "answer"):
            tokens = tokenizer(
                batch.column(column).to_pylist(),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=config.max_tokens,
            ).to(device)
            inputs += [tokens.input_ids, tokens.attention_mask]
        with torch.inference_mode():
            scores += model(*inputs).reshape(-1).float().tolist()
    return np.array(scores, np.float64)


def _load(config: Scar) -> tuple[Any, Any]:
    """The ranker with all its weights, and its tokenizer."""
    try:
        settings_class = import_module("style_ranker.ranker.config").StyleRankerConfig
        ranker_class = import_module("style_ranker.ranker.model").StyleRanker
    except ImportError as error:
        raise ModelError(
            f"selector scar needs the package scar-tool ({error}): pip install scar-tool"
        ) from None
    import torch
    from transformers import AutoTokenizer

    from qaq.models.check import refuse_not_finite

    folder, encoder = fetched(config)
    settings = settings_class.from_pretrained(str(folder))
    settings.encoder_name = str(encoder)
    try:
        model = ranker_class(settings)
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        refuse_not_finite(weights.items(), f"selector scar, {config.weights}")
        model.load_state_dict(weights, strict=True)
        return model, AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, AttributeError, EOFError, UnpicklingError) as error:
        what = " ".join(str(error).split())
        raise ModelError(f"selector scar cannot load {config.weights}: {what}") from error


def parts(config: Scar) -> dict[str, ModelConfig]:
    """The ranker, and the encoder that its settings name, at the commits of the plan.

    Raises:
        ModelError: they cannot be had, or bring code that is not trusted or lies elsewhere.
    """
    ranker = _part(config, "ranker", config.weights)
    settings = _settings(ranker)
    if "encoder_name" not in settings:
        raise ModelError(f"{ranker.label}: its config.json names no encoder_name, as SCAR's does")
    encoder = _part(config, "encoder", str(settings["encoder_name"]))
    if "auto_map" in _settings(encoder) and not config.trust_remote_code:
        raise ModelError(
            f"{encoder.label} runs code of its own; set selector.trust_remote_code=true to allow it"
        )
    return {"ranker": ranker, "encoder": encoder}


def fetched(config: Scar) -> tuple[Path, Path]:
    """The folders of the ranker and of its encoder, fetched from the Hub where they are not here.

    Raises:
        ModelError: they cannot be had, or files are missing.
    """
    ranker, encoder = parts(config).values()
    folder = models.folder_of(ranker, WEIGHTS)
    missing = [n for n in ("config.json", WEIGHTS) if not (folder / n).is_file()]
    if missing:
        raise ModelError(f"{ranker.label}: {folder} holds no {' and no '.join(missing)}")
    refuse_pointers(folder, ranker.label)
    return folder, models.folder_of(encoder)


def _part(config: Scar, name: str, place: str) -> ModelConfig:
    return ModelConfig(
        id=place,
        name=f"selector scar's {name}",
        revision=config.commits.get(place),
        trust_remote_code=config.trust_remote_code,
    )


def _settings(model: ModelConfig) -> dict[str, Any]:
    """A model's `config.json`; of its folder or of the Hub's."""
    folder = models.existing(model) if models.is_folder(model) else models.small_files(model)
    if folder is None or not (folder / "config.json").is_file():
        raise ModelError(f"{model.label}: its config.json is not here; set selector.weights")
    models.refuse_code_elsewhere(model, folder)
    try:
        return dict(read_json(folder / "config.json"))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{model.label}: its config.json is not readable: {error}") from None


def _content(model: ModelConfig) -> str:
    if models.is_folder(model):
        folder = models.existing(model)
        return content_key(models.hashes(folder, code=model.trust_remote_code))
    return f"{model.id}@{models.pinned(model).revision}"
