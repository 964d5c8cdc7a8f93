"""A model of one's own through the command line: its name, its template, its weights."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow


@pytest.fixture
def qaq(tmp_path):
    rows = [
        {"instruction": f"Add {i}.", "output": f"def f(x):\n    return x + {i}\n"}
        for i in range(12)
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def run(*overrides):
        common = ["data=jsonl", "data.path=pool.jsonl", "selector=diff_high", "train=none"]
        place = ["runtime.store=store", "runtime.device=cpu", "tracking=disabled"]
        return subprocess.run(
            [sys.executable, "-m", "qaq.cli", "run", *common, *place, *overrides],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    return run


def test_the_id_alone_brings_name_template_and_hash_of_that_model(
    qaq, tmp_path, tiny_model, other_tiny_model
):
    for name, model in (("mine", tiny_model), ("yours", other_tiny_model)):
        shutil.copytree(model, tmp_path / name)
    done = qaq("model=hub", "models.strong.id=./mine", "models.weak.id=./yours")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gemma" not in done.stdout + done.stderr
    [report] = (tmp_path / "store" / "report").iterdir()
    subject = json.loads((report / "results.json").read_text())["subject"]
    folders = (tmp_path / "store" / "scores").iterdir()
    made = {m["full_config"]["model"]["name"]: m for m in map(manifest, folders)}
    for role, name in (("strong scorer", "mine"), ("weak scorer", "yours")):
        model = made[name]["full_config"]["model"]
        assert (model["id"], model["chat_template"]) == (f"./{name}", None)
        weights = made[name]["outside"]["weights"][:12]
        assert subject[role] == f"{name} (./{name}, weights {weights})"
        assert subject[role] in (report / "index.html").read_text()


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_model_whose_weights_do_not_load_ends_the_run_with_their_names(qaq, tmp_path, tiny_model):
    folder = shutil.copytree(tiny_model, tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    done = qaq("models.strong.id=./broken", f"models.weak.id={tiny_model}")
    assert done.returncode == 2
    assert "module.model.embed_tokens.weight" in done.stdout + done.stderr


def test_a_mistyped_path_is_one_sentence(qaq):
    done = qaq("models.strong.id=out/ckpt/final")
    assert done.returncode == 2
    assert "there is no folder out/ckpt/final here" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
