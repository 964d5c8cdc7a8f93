"""An adapter changes what the model says as PEFT means it to, and is not merged."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from qaq.models.config import ModelConfig
from qaq.models.load import load_model

IDS = torch.arange(1, 30)[None]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    ),
]


@pytest.fixture
def adapter(tiny_model, tmp_path):
    """An adapter that does something (a fresh one does not), and its model's logits."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        return tmp_path, adapted.eval()(IDS).logits


@pytest.mark.parametrize("device", DEVICES)
def test_the_model_with_its_adapter_is_the_one_that_was_saved(tiny_model, adapter, device):
    folder, expected = adapter
    config = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    with torch.no_grad():
        found = load_model(config, device, adapter=folder)(IDS.to(device)).logits.cpu()
        bare = load_model(config, device)(IDS.to(device)).logits.cpu()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(bare, expected, atol=1e-3)


@pytest.mark.parametrize("way", ["packed", "padded", "rows"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_engine_scores_with_the_adapter(tiny_model, adapter, device, way):
    from qaq.scoring.engine import Engine
    from qaq.scoring.framing import Rendering, Span
    from qaq.scoring.plan import Task

    folder, logits = adapter
    config = ModelConfig(name="tiny", id=str(tiny_model), dtype="float32")
    engine = Engine(load_model(config, device, adapter=folder), ways=[way])
    assert engine.forward.way == way
    rendering = Rendering(tuple(IDS[0].tolist()), (Span("q", 5, 29),))
    (found,) = engine.score([Task(0, rendering)])
    expected = -torch.log_softmax(logits[0, 4:28].double(), -1).gather(1, IDS[0, 5:29, None]).sum()
    assert found["q"] == pytest.approx(float(expected), abs=1e-3)
