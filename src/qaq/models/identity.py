"""What a model *is*, for artifact keys: hashes of its weights and of its chat template.

No torch here: planning runs this for every model of every arm.
"""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

from qaq.host.errors import ModelError
from qaq.host.plugins import options
from qaq.models import embedded, weights
from qaq.models.config import ModelConfig
from qaq.store import hub
from qaq.store.cache import remembered_sha256
from qaq.store.keys import content_key
from qaq.store.tables import parse_json, read_json

EMBEDDED, GGUF = "embedded:", ".gguf"
MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")
# An adapter's layers whose weight may be another's too, to which it was once added as well.
MAY_BE_TIED = re.compile(r"\.lora_embedding_|\.(lm_head|embed_out)\.")
HUB_FILES = [pattern for pattern in MODEL_FILES if pattern != "*.bin"]  # which is never loaded


def identity(config: ModelConfig) -> dict[str, str]:
    """Hashes that change exactly when the numbers the model gives may change.

    Raises:
        ModelError: the model cannot be found, or a Hub revision cannot be pinned to a commit.
    """
    facts = {"weights": _weights(config)}
    for folder in _small_folders(config) if config.trust_remote_code else ():
        refuse_code_elsewhere(config, folder)
    template = template_text(config)
    if template is not None:
        facts["chat_template"] = content_key(template)
    else:
        template = _own_template(config)
    if template is not None and "strftime_now" in template:  # the one way to the clock
        from qaq.models import rendering

        if rendering.reads_the_clock(template, config.template_kwargs, config.label):
            facts["template_date"] = f"{rendering.PINNED:%Y-%m-%d}"
    return facts


def is_folder(config: ModelConfig) -> bool:
    """Whether `id` names files on disk rather than an embedded model or a Hub id."""
    return not config.id.startswith(EMBEDDED) and (
        Path(config.id).expanduser().exists()
        or config.id.startswith((".", "/", "~"))
        or config.id.endswith(GGUF)
    )


def hub_files(config: ModelConfig, *more: str) -> list[str]:
    """Patterns of a Hub model's files that are fetched; its code where that is trusted."""
    return [*HUB_FILES, *more, *(["*.py"] if config.trust_remote_code else [])]


def folder_of(config: ModelConfig, *more: str) -> Path:
    """The folder that `from_pretrained` reads: packed weights unpacked, a Hub's fetched.

    `more`: patterns of further files that a Hub's is fetched with.

    Raises:
        ModelError: there is no such folder, what it holds cannot be unpacked, or the Hub does not
            give the model.
    """
    if config.id.startswith(EMBEDDED):
        return embedded.ensure(config.id.removeprefix(EMBEDDED))
    if not is_folder(config):
        patterns = hub_files(config, *more)
        try:
            place = hub.snapshot("model", config.id, _hub_commit(config), patterns)
        except hub.HubError as error:
            raise ModelError(f"{config.label}: {error}") from None
        refuse_code_elsewhere(config, place)
        return place
    place = existing(config)
    refuse_code_elsewhere(config, place)
    packed = packed_file(config, place)
    return embedded.unpacked(packed) if packed else place


def packed_file(config: ModelConfig, place: Path) -> Path | None:
    """The GGUF file that holds the weights, where they are in one.

    Raises:
        ModelError: the folder holds several and nothing else.
    """
    if place.is_file():
        return place
    if any(place.glob("*.safetensors")):
        return None
    packed = sorted(place.glob(f"*{GGUF}"))
    if len(packed) > 1:
        raise ModelError(
            f"{config.label}: {place} holds {len(packed)} GGUF files: "
            f"{weights.several(p.name for p in packed)}; give one of them as id"
        )
    return packed[0] if packed else None


def parts(config: ModelConfig) -> tuple[ModelConfig, Path | None]:
    """The model itself and None; where `id` is a PEFT adapter's folder, its base and that folder.

    The base is `base` of the configuration, else the one that the adapter names, which may be
    relative to the adapter's folder.

    Raises:
        ModelError: the adapter names no base, or the folder holds a whole model too.
    """
    if not is_folder(config):
        return config, None
    place = existing(config)
    settings = place / "adapter_config.json"
    if not settings.is_file():
        return config, None
    if any((place / name).is_file() for name in (weights.SINGLE, weights.INDEX)):
        raise ModelError(
            f"{config.label}: {place} holds a whole model and an adapter (adapter_config.json); "
            "move away what is not meant"
        )
    try:
        named = read_json(settings)
        base, revision = named.get("base_model_name_or_path"), named.get("revision")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{config.label}: {settings} is not readable: {error}") from None
    if not (config.base or base):
        raise ModelError(f"{config.label}: {settings} names no base model; set base of this model")
    found = config.base or str(base)
    if Path(found).expanduser().resolve() == place.resolve():
        raise ModelError(f"{config.label}: {settings} names itself as base model; set base")
    beside = place / found
    if config.base is None and not Path(found).expanduser().exists() and beside.is_dir():
        found = str(beside)
    revision = config.revision or revision
    return replace(config, id=found, base=None, revision=revision), place


def pinned(config: ModelConfig) -> ModelConfig:
    """The model with the commit of its Hub repository, or of its base's, as `revision`.

    Raises:
        ModelError: the commit cannot be learnt.
    """
    whole, adapter = parts(config)
    while adapter is not None:
        whole, adapter = parts(whole)
    if whole.id.startswith(EMBEDDED) or is_folder(whole):
        return config
    return replace(config, revision=_hub_commit(whole))


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
        f"{config.label}: no chat template {wanted!r}; give a Jinja file's path or one of: {known}"
    )


def _own_template(config: ModelConfig) -> str | None:
    """The chat template that lies beside the tokenizer of a folder or a Hub model, if it is here.

    A Hub model's is fetched, so that the key is the same before and after the model itself is.

    Raises:
        ModelError: the Hub does not say whether there is one.
    """
    folders = _small_folders(config)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is None:
            continue
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jinja":
            return text
        with contextlib.suppress(ValueError, AttributeError):
            found = parse_json(text).get("chat_template")
            if isinstance(found, list):  # several by name; Transformers takes this one
                found = next((t["template"] for t in found if t["name"] == "default"), None)
            return None if found is None else str(found)
    return None


def _small_folders(config: ModelConfig) -> list[Path]:
    """Where a model's small files are, an adapter's first; none of an embedded one's."""
    base, adapter = parts(config)
    if base.id.startswith(EMBEDDED):
        return []  # they bring no code, and their templates write no date
    return [folder for folder in (adapter, small_files(base)) if folder is not None]


def refuse_code_elsewhere(config: ModelConfig, folder: Path) -> None:
    """Check that code which is trusted lies beside the weights, where a key has its hash.

    Raises:
        ModelError: it lies in another repository.
    """
    if not config.trust_remote_code:
        return
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        with contextlib.suppress(ValueError, AttributeError):
            named = json.dumps(read_json(folder / name).get("auto_map"))
            if elsewhere := sorted(set(re.findall(r'"([^"]+)--', named))):
                other = " and ".join(elsewhere)
                raise ModelError(
                    f"{config.label}: its code lies in another repository ({other}, see auto_map "
                    f"in {name}), which its key cannot name; put that repository's files beside "
                    f"the weights, in a folder, and take {other}-- out of auto_map"
                )


def small_files(base: ModelConfig) -> Path | None:
    """The folder of a model's small files, of a Hub model fetched."""
    if is_folder(base):
        return Path(base.id).expanduser()
    try:
        return hub.small_files(base.id, _hub_commit(base))
    except hub.HubError as error:
        raise ModelError(f"{base.label}: {error}") from None


def _weights(config: ModelConfig) -> str:
    base, adapter = parts(config)
    if adapter is not None:
        names = weights.read_adapter(adapter, config.label)
        facts = {"base": _base_weights(config, base), "adapter": hashes(adapter)}
        if any(map(MAY_BE_TIED.search, names)):
            facts["merge"] = "2"
        return content_key(facts)
    if config.id.startswith(EMBEDDED):
        name = config.id.removeprefix(EMBEDDED)
        return f"{embedded.find(name).sha256}-v{embedded.CONVERSION}"
    if not is_folder(config):
        return f"{config.id}@{_hub_commit(config)}"
    place = existing(config)
    if packed := packed_file(config, place):
        return f"{remembered_sha256(packed)}-float32-v{embedded.CONVERSION}"
    weights.tensors(place, config.label)
    return content_key(hashes(place, code=config.trust_remote_code))


def _base_weights(config: ModelConfig, base: ModelConfig) -> str:
    try:
        return _weights(base)
    except ModelError as error:
        raise ModelError(
            f"{config.label} is an adapter, and its base model cannot be used: {error}. Set base "
            "of this model to where the base model lies"
        ) from None


def hashes(folder: Path, code: bool = False) -> dict[str, str]:
    """The hash of every file that can change what a model computes, by its name."""
    patterns = (*MODEL_FILES, "*.py") if code else MODEL_FILES
    files = sorted({f for pattern in patterns for f in folder.glob(pattern)})
    return {f.name: remembered_sha256(f) for f in files}


def existing(config: ModelConfig) -> Path:
    """The folder or the GGUF file of a model on disk.

    Raises:
        ModelError: there is none.
    """
    place = Path(config.id).expanduser()
    if not place.exists():
        raise ModelError(f"{config.label}: no such folder: {place}")
    if place.is_file() and place.suffix != GGUF:
        raise ModelError(
            f"{config.label}: {place} is a file; expected a model's folder or a {GGUF} file"
        )
    return place


def _hub_commit(config: ModelConfig) -> str:
    """The commit a Hub id stands for: pinned, cached, or asked for, in this order."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(config.id)
    except HFValidationError:
        raise ModelError(
            f"{config.label}: there is no folder {config.id} here, and a model on the Hugging Face "
            "Hub has an id of the form OWNER/NAME; check the path"
        ) from None
    try:
        return hub.commit("model", config.id, config.revision)
    except hub.HubError as error:
        raise ModelError(
            f"{config.label}: {error}. Nor is there a folder {config.id} here; without the Hub, "
            "point `id` at a local folder or use an embedded model: "
            f"{', '.join(embedded.MODELS)}"
        ) from None
