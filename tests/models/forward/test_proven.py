"""What was shown once is not asked again, and whatever could change the answer is asked."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from qaq.models.config import ModelConfig
from qaq.models.forward import forward, proven
from qaq.models.forward.forward import Forward
from qaq.models.load import load_model
from qaq.training import packed

CASE = proven._case
ROWS, PLACES = [(5, 7, 9, 11), (5, 7, 8)], [range(4), range(3)]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which questions are asked, in a cache of its own."""
    monkeypatch.setenv("QAQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(proven, "_case", CASE)
    questions: list[str] = []
    for module in (forward, packed):
        for name in ("verify", "too_far", "attention_problem"):
            if own := getattr(module, name, None):

                def noted(*args: object, own: object = own, name: str = name) -> object:
                    questions.append(name)
                    return own(*args)  # type: ignore[operator]

                monkeypatch.setattr(module, name, noted)
    return questions


def states(folder: Path, dtype: str = "float32") -> tuple[str, torch.Tensor]:
    made = Forward(load_model(ModelConfig(id=str(folder), dtype=dtype), "cpu"))  # type: ignore[arg-type]
    return made.way, made(ROWS, PLACES)


def test_a_second_stage_asks_nothing_and_computes_the_same(
    tiny_model: Path, asked: list[str]
) -> None:
    way, first = states(tiny_model)
    assert way == "packed"
    assert {"verify", "attention_problem"} <= set(asked)
    asked.clear()
    again, second = states(tiny_model)
    assert again == way
    assert torch.equal(first, second)
    assert asked == []


def test_training_asks_for_itself_and_once(tiny_model: Path, asked: list[str]) -> None:
    states(tiny_model)
    rows = [packed.Example("", (5, 7, 9, 11), 2, False), packed.Example("", (6, 7), 1, False)]
    found = []
    for times in (1, 0):
        asked.clear()
        model = load_model(ModelConfig(id=str(tiny_model), dtype="float32"), "cpu")
        assert packed.prepare(model) is None
        assert asked.count("verify") == times
        found.append(model(**packed.pack(rows, model.device)))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "change", ["weights", "dtype", "threads", "torch", "transformers", "code", "setting", "memory"]
)
def test_whatever_could_change_the_answer_is_asked_anew(
    tiny_model: Path, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder, dtype, threads = tmp_path / "model", "float32", torch.get_num_threads()
    shutil.copytree(tiny_model, folder)
    states(folder)
    asked.clear()
    if change == "weights":
        tensors = load_file(folder / "model.safetensors")
        next(t for t in tensors.values() if t.ndim == 2)[0, 0] += 1e-3
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    elif change == "dtype":
        dtype = "bfloat16"
    elif change == "threads":
        torch.set_num_threads(threads + 1)
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "2.13.1")
    elif change == "transformers":
        own = proven._version
        monkeypatch.setattr(proven, "_version", lambda n: "0" if n == change else own(n))
    elif change == "code":
        monkeypatch.setattr(proven, "_code", lambda: "other")
    elif change == "setting":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    else:
        shutil.rmtree(tmp_path / "cache" / "proven")
    try:
        states(folder, dtype)
    finally:
        torch.set_num_threads(threads)
    assert "verify" in asked


def test_what_was_found_wrong_is_never_remembered(
    tiny_model: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forward, "verify", lambda *_: "it is wrong")
    assert states(tiny_model)[0] == "rows"
    assert not list(tmp_path.rglob("proven/*"))


def test_a_model_that_did_not_come_from_files_is_always_asked(
    tiny_model: Path, asked: list[str], tmp_path: Path
) -> None:
    for _ in range(2):
        asked.clear()
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
        assert Forward(model).way == "packed"
        assert "verify" in asked
    assert not list(tmp_path.rglob("proven/*"))


def test_a_note_says_what_was_shown(tiny_model: Path, asked: list[str], tmp_path: Path) -> None:
    states(tiny_model)
    notes = [json.loads(p.read_text()) for p in tmp_path.rglob("proven/*.json")]
    assert "packed, logits" in {note["way"] for note in notes}
    assert {note["threads"] for note in notes} == {torch.get_num_threads()}
