"""What a model *is*, for artifact keys: hashes of its weights and of its chat template.

No torch here: planning runs this for every model of every arm.
"""

import re
from pathlib import Path

from qaq.host.errors import ModelError
from qaq.host.plugins import conf_dir, options
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key

EMBEDDED = "embedded:"
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")


def identity(config: ModelConfig) -> dict[str, str]:
    """Hashes that change exactly when the numbers the model gives may change.

    Raises:
        ModelError: the model cannot be found, or a Hub revision cannot be pinned to a commit.
    """
    facts = {"weights": _weights(config)}
    template = template_text(config)
    if template is not None:
        facts["chat_template"] = content_key(template)
    return facts


def is_folder(config: ModelConfig) -> bool:
    """Whether `id` names a folder on disk rather than an embedded model or a Hub id."""
    return not config.id.startswith(EMBEDDED) and (
        Path(config.id).is_dir() or config.id.startswith((".", "/", "~"))
    )


def template_text(config: ModelConfig) -> str | None:
    """The Jinja text of the configured chat template; None = the tokenizer's own.

    Raises:
        ModelError: it is neither a packaged name nor a readable file.
    """
    wanted = config.chat_template
    if wanted is None:
        return None
    packaged = options("templates", ".jinja")
    path = packaged.get(wanted, Path(wanted).expanduser())
    if path.is_file():
        return path.read_text(encoding="utf-8")
    known = ", ".join(sorted(packaged))
    raise ModelError(
        f"{config.name}: no chat template {wanted!r}; give a Jinja file's path or one of: {known}"
    )


def templates_dir() -> Path:
    """The folder of the packaged chat templates."""
    return conf_dir() / "templates"


def _weights(config: ModelConfig) -> str:
    if config.id.startswith(EMBEDDED):
        name = config.id.removeprefix(EMBEDDED)
        return f"{embedded.find(name).sha256}-v{embedded.CONVERSION}"
    if is_folder(config):
        return _folder_hash(config)
    return _hub_commit(config)


def _folder_hash(config: ModelConfig) -> str:
    folder = Path(config.id).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{config.name}: no such folder: {folder}")
    files = sorted({f for pattern in MODEL_FILES for f in folder.glob(pattern)})
    if not any(f.suffix in (".safetensors", ".bin") for f in files):
        raise ModelError(
            f"{config.name}: {folder} holds no weights; expected *.safetensors or *.bin beside "
            "config.json. Point `id` at a complete model folder"
        )
    return content_key({f.name: remembered_sha256(f) for f in files})


def _hub_commit(config: ModelConfig) -> str:
    """The commit a Hub id stands for: pinned, cached, or asked for, in this order."""
    revision = config.revision or "main"
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return f"{config.id}@{revision}"
    from huggingface_hub import HfApi, try_to_load_from_cache

    cached = try_to_load_from_cache(config.id, "config.json", revision=revision)
    if isinstance(cached, str):
        return f"{config.id}@{Path(cached).parent.name}"
    try:
        return f"{config.id}@{HfApi().model_info(config.id, revision=revision).sha}"
    except Exception as error:  # the client raises many kinds; each means the same to the user
        raise ModelError(
            f"{config.name}: cannot find {config.id} at revision {revision} on the Hugging Face "
            f"Hub ({type(error).__name__}). Check the id and the network; offline, point `id` at a "
            f"local folder or use an embedded model: {', '.join(embedded.MODELS)}"
        ) from None
