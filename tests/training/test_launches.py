"""How many kernels a training step starts, counted on the meta device: no card is needed."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from qaq.models.forward import attention
from qaq.models.forward.lora import fuse_lora
from qaq.models.sharded import sketch
from qaq.training.packed import pack, prepare
from qaq.training.rows import Example

LAYERS = 32  # those of DeepSeek Coder 6.7B
MOST = 250  # kernels of a layer, forward and backward, its seven adapters included
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VIEWS = re.compile(
    r"aten\.(_unsafe_)?(view|t$|transpose|slice\.|unsqueeze|squeeze|detach|expand|alias|select\."
    r"|split|permute|as_strided|_reshape_alias|lift_fresh|narrow)"
)


class Counted(TorchDispatchMode):
    """Counts what is handed to a device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.calls[str(function).removesuffix(".default")] += 1
        return function(*args, **(kwargs or {}))


def launches(model: PeftModel, rows: int) -> Counter[str]:
    """The kernels of one micro-batch, forward and backward, by name; views start none."""
    examples = [Example(str(n), tuple(range(4, 40 + n)), 10, False) for n in range(rows)]
    model.zero_grad()
    with Counted() as counted:
        model(**pack(examples, torch.device("meta"))).sum().backward()
    return Counter({name: n for name, n in counted.calls.items() if not VIEWS.search(name)})


def test_a_step_starts_as_many_kernels_whatever_its_rows_and_one_a_layer_for_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=LAYERS,
        num_attention_heads=2, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(shape).to(torch.bfloat16).eval()
    assert prepare(model, like=sketch(model, torch.device("cpu"))) is None
    lora = LoraConfig(r=8, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    assert fuse_lora(tuned) == 7 * LAYERS
    monkeypatch.setattr(attention, "has_varlen", lambda *_: True)  # as on a card of capability 8.0
    few, many = launches(tuned, 2), launches(tuned, 16)
    for calls in (few, many):
        assert calls["torch_attn._varlen_attn"] == LAYERS
        assert calls["torch_attn._varlen_attn_backward"] == LAYERS
        assert not [name for name in calls if "softmax" in name or "dot_product" in name]
    print(f"{few.total()} kernels with 2 rows, {many.total()} with 16")
    print(many.most_common(14))
    print({n: (few[n], many[n]) for n in few | many if few[n] != many[n]})
    assert many.total() < MOST * LAYERS
    assert abs(many.total() - few.total()) < LAYERS  # nothing in a layer goes row by row
