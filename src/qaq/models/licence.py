"""The licence of a base model: what travels with an adapter that was trained on it."""

import re
import shutil
from pathlib import Path

from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.embedded import GEMMA
from qaq.models.identity import EMBEDDED, folder_of, parts

FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "*TERMS*", "USE_POLICY*")
HUB_NAMES = {"Apache-2.0": "apache-2.0", "Gemma terms of use": "gemma"}


def files(folder: Path) -> list[Path]:
    """The files of a folder that state a licence."""
    return sorted({f for pattern in FILES for f in folder.glob(pattern) if f.is_file()})


def of_adapter(config: ModelConfig, model_type: str, out: Path) -> tuple[str | None, list[str]]:
    """Copy a base model's licence files beside an adapter that was trained on it.

    Args:
        config: the base model, or an adapter of it.
        model_type: of the loaded model's configuration.

    Returns:
        The licence's name on the Hub where it is known, and sentences for the card.
    """
    base, _ = parts(config)
    licence = None
    if base.id.startswith(EMBEDDED):
        licence = embedded.find(base.id.removeprefix(EMBEDDED)).licence
    elif re.match(r"gemma[23]?n?(_|$)", model_type):  # from Gemma 4 on it is Apache's
        licence = "Gemma terms of use"
    folder = folder_of(base)
    for file in files(folder) if folder else []:
        shutil.copyfile(file, out / file.name)
    text = [f"The base model is under: {licence or 'the licence that came with it'}."]
    if licence == "Gemma terms of use":
        text.append(f"{GEMMA}. Whoever passes this adapter on passes these terms on with it.")
        if not any(file.name.startswith("NOTICE") for file in files(out)):
            (out / "NOTICE").write_text(f"{GEMMA}\n", encoding="utf-8")
    if beside := files(out):
        text.append(f"Its texts lie beside this card: {', '.join(f.name for f in beside)}.")
    elif licence is None:
        text.append("It came with no text of it in its folder; see where the model comes from.")
    text.append("The adapter was made from it by fine-tuning: its terms hold for the adapter too.")
    return HUB_NAMES.get(licence or ""), text
