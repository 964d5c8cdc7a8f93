"""The Hugging Face Hub: a name becomes a commit once, files come whole at that commit.

What the Hub's client raises becomes one sentence with a cure. A Hub that is busy (429, 5xx) or cuts
a transfer is asked again after a while; one that says no, or cannot be reached, is not.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Kind = Literal["model", "dataset"]

COMMIT = re.compile(r"[0-9a-f]{40}")
BUSY = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further try
LONGEST = 300.0  # seconds that the Hub may ask us to wait
# What planning reads; to fetch it notes a branch's commit in the cache.
SMALL = {
    "model": ["config.json", "chat_template.jinja", "tokenizer_config.json"],
    "dataset": ["README.md"],
}


class HubError(Exception):
    """Why the Hub did not give something, as one sentence with a cure.

    Attributes:
        answered: whether the Hub could be reached at all.
    """

    def __init__(self, message: str, answered: bool):
        super().__init__(message)
        self.answered = answered


@lru_cache
def commit(kind: Kind, name: str, revision: str | None) -> str:
    """The commit that a branch or a tag (default: main) means.

    A model's is taken from the Hub's local cache where it is known there, so that a command that is
    repeated goes on with the weights it began with; a data set's is asked for. Either is noted in
    the cache, which answers offline.

    Raises:
        HubError: there is no such thing, it may not be had, or the Hub does not answer.
    """
    revision = revision or "main"
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import try_to_load_from_cache

    if kind == "model":
        known = try_to_load_from_cache(name, SMALL[kind][0], revision=revision)
        if isinstance(known, str):
            return Path(known).parent.name
    return _snapshot(kind, name, revision, SMALL[kind]).name


def snapshot(kind: Kind, name: str, commit: str, patterns: Sequence[str]) -> Path:
    """The folder with a repository's top-level files at a commit; fetched where they are not here.

    Once all are here the Hub is not asked again.

    Raises:
        HubError: it cannot be had.
    """
    return _snapshot(kind, name, commit, patterns, ["*/*", "consolidated*"])


def small_files(name: str, commit: str) -> Path | None:
    """The folder with the files of a model that planning reads, as far as it has them.

    Where the Hub cannot be reached it is what is here; None of a model of which nothing is.

    Raises:
        HubError: the Hub does not give them now.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    known = try_to_load_from_cache(name, SMALL["model"][0], revision=commit)
    try:
        if not isinstance(known, str):  # asked so, a Hub that is not there says so at once
            _answered("model", name, commit, lambda: str(HfApi().model_info(name, revision=commit)))
        return _snapshot("model", name, commit, SMALL["model"])
    except HubError as error:
        if error.answered:
            raise
        return Path(known).parent if isinstance(known, str) else None


def size_and_licence(
    kind: Kind, name: str, commit: str, patterns: Sequence[str] | None
) -> tuple[int, int, str]:
    """Bytes of a repository's files at a commit, those still to be fetched, and its licence.

    Raises:
        HubError: the Hub does not say.
    """
    from huggingface_hub import HfApi, snapshot_download

    found: dict[str, tuple[int, int, str]] = {}

    def ask() -> str:
        files: Any = snapshot_download(
            name,
            repo_type=kind,
            revision=commit,
            allow_patterns=list(patterns) if patterns else None,
            ignore_patterns=["*/*", "consolidated*"] if patterns else None,
            dry_run=True,
        )
        facts = HfApi().repo_info(name, repo_type=kind, revision=commit)
        card = getattr(facts, "card_data", None) or {}
        named = getattr(facts, "tags", None) or ()
        tags = (tag.partition(":")[2] for tag in named if tag.startswith("license:"))
        licence = card.get("license") or next(tags, None) or "not said: see its page"
        left = sum(file.file_size for file in files if file.will_download)
        found[name] = sum(file.file_size for file in files), left, str(licence)
        return ""

    _answered(kind, name, commit, ask)
    return found[name]


def _snapshot(
    kind: Kind,
    name: str,
    revision: str,
    patterns: Sequence[str],
    leaving: Sequence[str] | None = None,
) -> Path:
    from huggingface_hub import snapshot_download

    def fetch() -> str:
        return str(
            snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(leaving) if leaving else None,
            )
        )

    return Path(_answered(kind, name, revision, fetch))


def _answered(kind: Kind, name: str, revision: str, call: Callable[[], str]) -> str:
    """What a call of the Hub's client gives; what it raises as a `HubError`."""
    try:
        return patiently(call)
    except Exception as error:  # the client raises many kinds, its transport more
        message = explain(error, kind, name, revision)
        raise HubError(message, _status(error) is not None) from error


def patiently(call: Callable[[], T]) -> T:
    """The call's result; asked again where the Hub is busy or a transfer was cut."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            asked = _pause(error)
            if asked is None:
                raise
            pause = max(wait, min(asked, LONGEST))
            print(f"the Hub is busy; asking again in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    return call()


def _pause(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait (0: it does not say); None where waiting cannot help."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if status in BUSY:
            asked = str(response.headers.get("Retry-After", "")) if response is not None else ""
            return float(asked) if asked.isdigit() else 0.0
        if status is not None:
            return None
        if type(cause).__name__ in ("RemoteProtocolError", "ReadError", "ReadTimeout"):
            return 0.0
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The status that the Hub answered with; None where it did not answer."""
    found = (getattr(cause, "response", None) for cause in _chain(error))
    return next((int(response.status_code) for response in found if response is not None), None)


def explain(error: BaseException, kind: Kind, name: str, revision: str) -> str:
    """One sentence: what the Hub said, and what helps."""
    from huggingface_hub import errors

    what = f"the {'data set' if kind == 'dataset' else kind} {name}"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    causes, status = list(_chain(error)), _status(error)
    token = "set HF_TOKEN to a token of" if status == 401 else "HF_TOKEN must be of"
    last = causes[-1]
    sentences = {
        errors.GatedRepoError: (
            f"{what} is gated ({status}): accept its licence at {page}, then {token} that account "
            "(or run: hf auth login)"
        ),
        errors.RevisionNotFoundError: f"{what} has no revision {revision} on the Hub; see {page}",
        errors.RepositoryNotFoundError: (
            f"{what} cannot be found on the Hub at revision {revision} ({status}): check the name; "
            "if it is private, set HF_TOKEN"
        ),
        errors.HFValidationError: f"{name!r} is no name of the Hub; expected OWNER/NAME",
        errors.OfflineModeIsEnabled: (
            f"{what} is not whole in the local cache at revision {revision}, and HF_HUB_OFFLINE is "
            "set: fetch it where there is a network (qaq fetch), with the same HF_HOME"
        ),
        errors.HfHubHTTPError: (
            f"{what} cannot be had now: the Hub answered {status}"
            f"{' on every try' if status in BUSY else ''}; run the same command later"
        ),
    }
    for kind_of_error, sentence in sentences.items():
        if any(isinstance(cause, kind_of_error) for cause in causes):
            return sentence
    return (
        f"{what} cannot be had at revision {revision}: the Hub does not answer "
        f"({type(last).__name__}: {' '.join(str(last).split())[:200]}). Check the network"
    )
