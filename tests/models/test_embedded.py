"""The embedded models, converted for real (slow the first time, then from the cache)."""

import importlib.util
import json
import os
import shutil

import pytest
import torch

from qaq.host.errors import ModelError
from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer

CODE = 'def add(a, b):\n    """Return the sum of a and b."""\n    return a + b\n'


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), [("smollm2-135m-instruct", 1.2), ("gemma3-270m", 1.4)])
def test_an_embedded_model_predicts_code_as_a_real_one_does(name, bound):
    if importlib.util.find_spec(embedded.MODELS[name].parts[0][0]) is None:
        pytest.skip("the model package is not installed (requirements-models.txt)")
    config = ModelConfig(name=name, id=f"embedded:{name}")
    tokenizer, model = load_tokenizer(config), load_model(config, "cpu", "float32")
    ids = tokenizer(CODE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert loss < bound  # nats per token; measured 1.05 and 1.17, chance is above 10
    assert embedded.is_converted(name)


@pytest.fixture
def made(tiny_model, tmp_path, monkeypatch):
    """Unpack a file, which stands for a tiny model, in a cache of its own; and how often it was."""
    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))
    packed, times = tmp_path / "tiny.gguf", []
    packed.write_bytes(b"GGUF")

    def unpack(gguf, folder, dtype):
        times.append(dtype)
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)

    monkeypatch.setattr(embedded, "_unpack", unpack)
    return lambda: (embedded.unpacked(packed), len(times))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "qaq.json"])
@pytest.mark.parametrize("change", ["a bit", "removed", "emptied"])
def test_an_unpacked_file_that_was_changed_is_named_and_made_again(made, capfd, name, change):
    folder, times = made()
    assert times == 1
    assert made() == (folder, 1)
    file, stat = folder / name, (folder / name).stat()
    before = file.read_bytes()
    if change == "removed":
        file.unlink()
    else:
        file.write_bytes(b"" if change == "emptied" else bytes([before[0] ^ 1]) + before[1:])
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a careful copy would do
    assert made() == (folder, 2)
    assert f"damaged: {folder / name}" in capfd.readouterr().err
    assert file.read_bytes() == before
    assert made() == (folder, 2)


def test_a_folder_of_an_older_version_is_known_by_its_weights(made):
    folder, _ = made()
    noted = json.loads((folder / "qaq.json").read_text())
    del noted["files_sha256"]
    (folder / "qaq.json").write_text(json.dumps(noted))
    assert made() == (folder, 1)


@pytest.mark.slow
def test_a_gguf_file_is_the_model_that_was_packed():
    files = embedded.packaged_files("smollm2-135m-instruct")
    own = ModelConfig(id=str(files[0]), dtype="float32")
    assert own.name == files[0].stem
    packaged = ModelConfig(id="embedded:smollm2-135m-instruct", dtype="float32")
    ids = load_tokenizer(own)(CODE, return_tensors="pt")["input_ids"]
    assert torch.equal(ids, load_tokenizer(packaged)(CODE, return_tensors="pt")["input_ids"])
    with torch.no_grad():
        found, expected = (load_model(m, "cpu")(input_ids=ids).logits for m in (own, packaged))
    assert torch.equal(found, expected)


def test_a_file_that_is_no_gguf_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(ModelError, match=r"own\.gguf cannot be unpacked"):
        load_model(ModelConfig(id=str(tmp_path / "own.gguf")), "cpu")


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("smollm2-135m-instruct", "LICENSE", "Apache-2.0"),
        ("gemma3-270m", "GEMMA_TERMS.html", "subject to the Gemma Terms of Use found at"),
    ],
)
def test_unpacked_weights_have_their_licence_and_a_notice_beside_them(name, file, said):
    if not embedded.is_converted(name):
        pytest.skip("the model is not unpacked")
    folder = embedded.ensure(name)
    for stale in (folder / "NOTICE", folder / file):
        stale.unlink()
    assert embedded.ensure(name) == folder
    notice = (folder / "NOTICE").read_text()
    assert said in notice
    assert embedded.MODELS[name].sha256 in notice
    assert len((folder / file).read_text()) > 10_000
