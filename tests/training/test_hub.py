"""Nothing leaves the machine unless asked for, and then into a private place."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.utils import validate_repo_id

from qaq.host.errors import ConfigError, StageError
from qaq.run import experiment
from qaq.run.compose import compose
from qaq.run.runner import Result
from qaq.run.stage import Stage
from qaq.selection.config import SubsetStage
from qaq.store.manifest import Artifact
from qaq.training import hub
from qaq.training.config import AdapterStage


class Hub:
    """The part of `HfApi` that is used, with its promises: visibility is set on creation only."""

    def __init__(self, private: dict[str, bool] | None = None):
        self.private = private or {}
        self.sent: list[tuple[str, list[str]]] = []

    def create_repo(self, repo: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.private.setdefault(repo, private)

    def repo_info(self, repo: str) -> Any:
        return SimpleNamespace(private=self.private[repo])

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> None:
        found = sorted(p.name for p in folder_path.iterdir() if p.name in allow_patterns)
        self.sent.append((repo_id, found))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "target-full-seed1-0a1b2c3d"
    folder.mkdir()
    for name in (*hub.FILES, "record.jsonl", "manifest.json", "refused.jsonl"):
        (folder / name).write_text("{}")
    return folder


def test_a_new_repository_is_private_and_gets_the_adapter_alone(adapter: Path) -> None:
    api = Hub()
    assert hub.push(adapter, "me/a", public=False, api=api).endswith("/me/a")
    assert api.private == {"me/a": True}
    assert api.sent == [("me/a", sorted(hub.FILES))]


def test_a_public_repository_is_used_only_when_that_is_wanted(adapter: Path) -> None:
    api = Hub({"me/a": False})
    with pytest.raises(StageError, match=r"me/a is public; set train\.hub_public=true"):
        hub.push(adapter, "me/a", public=False, api=api)
    assert api.sent == []
    hub.push(adapter, "me/a", public=True, api=api)
    assert len(api.sent) == 1


@pytest.mark.parametrize("error", [ConnectionError, httpx.ConnectError, RuntimeError, ValueError])
def test_a_refusal_says_that_nothing_is_lost(adapter: Path, error: type[Exception]) -> None:
    class Down(Hub):
        def upload_folder(self, **_: Any) -> None:
            raise error("no route\n\nand much more")

    with pytest.raises(StageError, match=r"not sent .*no route\)\. .*complete in .*same command"):
        hub.push(adapter, "me/a", public=False, api=Down())


def test_a_name_that_the_hub_does_not_take_is_refused_in_a_sentence(adapter: Path) -> None:
    with pytest.raises(StageError, match=r"me/a--b: not sent \(HFValidationError"):
        hub.push(adapter, "me/a--b", public=False)


@pytest.mark.parametrize(
    "folder",
    [
        "target-full-seed1-0a1b2c3d",
        "a+b..c--d-0a1b2c3d",
        f"{'long.' * 30}-0a1b2c3d",
        "0a1b2c3d",
        "-.-0a1b2c3d",
    ],
)
@pytest.mark.parametrize("wanted", ["me/qaq", f"me/{'n' * 80}"])
def test_every_adapter_has_a_repository_of_its_own_whose_name_the_hub_takes(
    folder: str, wanted: str
) -> None:
    name = hub.repository(wanted, Path(folder))
    validate_repo_id(name)
    assert name.startswith(f"{wanted}-") and name.endswith("-0a1b2c3d") and len(name) <= 96


def result(kind: str, folder: Path | None, *overrides: str) -> Result:
    artifact = Artifact(folder, {}) if folder else None
    whole = compose(list(overrides))
    assert whole.train is not None
    config = AdapterStage(
        model=whole.models.target, train=whole.train, system_prompt=None, share=1.0, seed=1
    )
    other = SubsetStage(selector=whole.selector, ratio=None, seed=None)
    stage = Stage(config if kind == "adapter" else other, f"{kind}-x")
    return Result(stage, "reused", 0.0, artifact)


def test_adapters_are_sent_when_asked_for_and_only_then(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    monkeypatch.setattr(hub, "push", lambda folder, repo, public: sent.append((repo, public)))
    results = [result("adapter", adapter), result("adapter", None), result("report", adapter)]
    assert experiment.push_adapters(results, print) == results
    assert sent == []
    wanted = "train.push_to_hub=me/qaq"
    asked = [result("adapter", adapter, wanted), result("adapter", None, wanted)]
    experiment.push_adapters([*asked, result("report", adapter, wanted)], print)
    assert sent == [("me/qaq-target-full-seed1-0a1b2c3d", False)]


def test_a_failed_upload_fails_the_run_and_not_the_adapter(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> str:
        raise StageError("not sent")

    monkeypatch.setattr(hub, "push", broken)
    asked = result("adapter", adapter, "train.push_to_hub=me/qaq")
    (marked,) = experiment.push_adapters([asked], print)
    assert str(marked.error) == "not sent"
    assert marked.artifact is not None


def test_a_repository_needs_an_owner_and_a_name() -> None:
    with pytest.raises(ConfigError, match=r"train\.push_to_hub"):
        compose(["train.push_to_hub=qaq"])
