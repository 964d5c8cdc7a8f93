"""Sends finished adapters to the Hugging Face Hub, only where the recipe asks for it.

It happens after the run, for adapters made now and before alike, so that a failed upload loses
nothing and the same command sends what is missing.
"""

from pathlib import Path
from typing import Any

from qaq.host.errors import StageError
from qaq.models import licence

# not refused.jsonl and the records: they speak of the pool and the machine
FILES = (
    *("adapter_model.safetensors", "adapter_config.json", "prompt.json", "README.md"),
    *licence.FILES,
)


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
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

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
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise StageError(
            f"{repository}: not sent ({type(error).__name__}: {error}). The adapter is complete in "
            f"{folder}; log in with `hf auth login` and run the same command again to send it"
        ) from error
    return f"https://huggingface.co/{repository}"
