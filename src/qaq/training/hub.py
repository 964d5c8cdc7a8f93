"""Sends finished adapters to the Hugging Face Hub, only where the recipe asks for it.

It happens after the run, for adapters made now and before alike, so that a failed upload loses
nothing and the same command sends what is missing.
"""

import re
from pathlib import Path
from typing import Any

from qaq.host.errors import QaqError, StageError
from qaq.models import licence

# not refused.jsonl and the records: they speak of the pool and the machine
FILES = (
    *("adapter_model.safetensors", "adapter_config.json", "prompt.json", "README.md"),
    *licence.FILES,
)
LONGEST = 96  # characters of a repository's name


def repository(wanted: str, folder: Path) -> str:
    """Where an artifact's folder goes: OWNER/NAME, then its name with its key, as the Hub takes it.

    The key keeps adapters apart that have one name and are of different configurations.
    """
    stem, _, key = folder.name.rpartition("-")
    stem = re.sub(r"[^A-Za-z0-9_.-]+|[-.]{2,}", "-", stem)
    stem = stem[: max(0, LONGEST - len(f"{wanted}--{key}"))].strip("-.")
    return "-".join(part for part in (wanted, stem, key) if part)


def push(folder: Path, repository: str, public: bool, api: Any = None) -> str:
    """Upload one adapter; equal files make no new commit. Returns the repository's address.

    Args:
        repository: OWNER/NAME; made if missing, as a private one unless `public`.
        public: whether the repository may be seen by everybody.
        api: a `huggingface_hub.HfApi`; null = the user's own login.

    Raises:
        StageError: the repository is public and should not be, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.repo_info(repository).private:
            raise StageError(
                f"{repository} is public; set train.hub_public=true or name another repository in "
                "train.push_to_hub",
                2,
            )
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=f"Adapter {folder.name}",
        )
    except QaqError:
        raise
    except Exception as error:  # of the Hub's client, of what it talks through, of the network
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise StageError(
            f"{repository}: not sent ({said}). The adapter is complete in {folder}; once the Hub "
            "can be reached and you are logged in (`hf auth login`), the same command sends it"
        ) from error
    return f"https://huggingface.co/{repository}"
