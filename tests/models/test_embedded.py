"""The embedded models, converted for real (slow the first time, then from the cache)."""

import importlib.util

import pytest
import torch

from qaq.models import embedded
from qaq.models.config import ModelConfig
from qaq.models.load import load_model, load_tokenizer

pytestmark = pytest.mark.slow

CODE = 'def add(a, b):\n    """Return the sum of a and b."""\n    return a + b\n'


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
