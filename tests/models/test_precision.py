"""float32 means float32, whatever the environment of a container says."""

import os
import subprocess
import sys

import pytest
import torch

from qaq.host.errors import UserError
from qaq.models.load import torch_device

SCRIPT = """
import sys, torch
print(torch.get_float32_matmul_precision())
from qaq.models.config import ModelConfig
from qaq.models.load import load_model
load_model(ModelConfig(id=sys.argv[1], dtype="float32"), "cpu")
print(torch.get_float32_matmul_precision())
"""


def test_a_container_s_wish_for_tf32_is_taken_back_before_a_model_runs(tiny_model):
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_model)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["high", "highest"]


def test_tf32_that_the_driver_forces_is_refused_on_a_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert torch_device("cuda", 0) == torch.device("cuda", 0)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(UserError, match=r"NVIDIA_TF32_OVERRIDE=1 .*unset it"):
        torch_device("cuda", 0)
    assert torch_device("cpu").type == "cpu"
