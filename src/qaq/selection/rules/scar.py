"""SCAR: rows of the most consistent style, by a learned ranker (arXiv 2406.10882).

The ranker is the class of the package `scar-tool` (0.35); its loading and its loop are not used:
the loop fails on a last batch of one row, the loader leaves weights random when the file lacks
them, and the filter before it drops most code as "not English". Here weights must fit exactly, and
the rank is of the whole pool.
"""

from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field
from pydantic.dataclasses import dataclass

from qaq.host.errors import ModelError
from qaq.models.weights import refuse_pointers
from qaq.selection.config import FORBID, rule
from qaq.selection.cuts import HIGHEST, cut_highest
from qaq.selection.decision import Decision, Size, decide
from qaq.selection.pool import Pool
from qaq.selection.ranks import FloatArray, finite, ranks_within

BATCH = 32


@dataclass(frozen=True, kw_only=True, config=FORBID)
class Scar:
    """Highest score of SCAR's learned style ranker (arXiv 2406.10882; package scar-tool)."""

    needs: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = False
    uses_ratio: ClassVar[bool] = True
    reads_texts: ClassVar[bool] = True
    method: Literal["scar"] = "scar"
    weights: str = "lizhuang144/scar-gte-base"
    max_tokens: int = Field(default=512, ge=16)
    trust_remote_code: bool = False  # the published encoder brings code of its own


@rule(Scar)
def scar(config: Scar, pool: Pool, size: Size, seed: int | None) -> Decision:
    """Keep the rows that the ranker scores highest."""
    if pool.texts is None:
        raise ValueError("scar needs a pool with texts")
    texts = pool.texts.table()
    score = finite(scar_scores(config, texts))
    known = int((~np.isnan(score)).sum())
    label = cut_highest(score, size.rows(known, config.method))
    return decide(pool, HIGHEST, label, score=score, rank=ranks_within(score))


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

    folder = folder_of(config.weights)
    settings = settings_class.from_pretrained(str(folder))
    if not config.trust_remote_code and not Path(settings.encoder_name).is_dir():
        raise ModelError(
            f"selector scar: the ranker's encoder {settings.encoder_name} runs code of its own; "
            "set selector.trust_remote_code=true to allow it"
        )
    try:
        model = ranker_class(settings)
        weights = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
        refuse_not_finite(weights.items(), f"selector scar, {config.weights}")
        model.load_state_dict(weights, strict=True)
        return model, AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError, RuntimeError, AttributeError, EOFError, UnpicklingError) as error:
        what = " ".join(str(error).split())
        raise ModelError(f"selector scar cannot load {config.weights}: {what}") from error


def folder_of(weights: str) -> Path:
    """The local folder of the weights, fetched from the Hub where they are not one."""
    folder = Path(weights)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        try:
            folder = Path(snapshot_download(weights))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise ModelError(
                f"selector scar needs the ranker's weights {weights}, which could not be fetched "
                f"({type(error).__name__}): run `hf download {weights}` where the Hub can be "
                "reached, or set selector.weights to a local folder"
            ) from None
    missing = [n for n in ("config.json", "pytorch_model.bin") if not (folder / n).is_file()]
    if missing:
        raise ModelError(f"selector scar: {folder} holds no {' and no '.join(missing)}")
    refuse_pointers(folder, "selector scar")
    return folder
