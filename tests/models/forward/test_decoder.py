"""Packs against the definition, and the packed forward against each model's own, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)

from qaq.host.errors import ModelError
from qaq.models.forward import attention as packed_attention
from qaq.models.forward.decoder import PackedDecoder
from qaq.models.forward.dense import ACTIVATIONS, can_pack, dense
from qaq.models.forward.packing import pack

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "llama, scaled positions": LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
    ),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "gemma3": Gemma3TextConfig(
        **SHAPE,
        head_dim=16,
        sliding_window=7,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}
REPACK = [False, True] if can_pack(torch.device("cpu"), torch.float32) else [False]


def random_model(config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # fresh ones are all 0 or all 1
                torch.nn.init.normal_(parameter, 0.5, 0.2)
    return model


def sequences():
    chance = torch.Generator().manual_seed(1)

    def ids(n):
        return tuple(torch.randint(1, 128, (n,), generator=chance).tolist())

    opening = ids(12)
    long = opening + ids(150)
    return [opening + ids(9), ids(40), long, long[:60], opening + ids(30), long]


def assert_own_states(model, rows, laid, hidden):
    for ids, path in zip(rows, laid.paths, strict=True):
        own = model.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(hidden[list(path)], own, atol=2e-5, rtol=1e-4)


sequence = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)


@given(st.lists(sequence, min_size=1, max_size=8))
def test_a_pack_holds_every_sequence_and_each_beginning_once(found):
    laid = pack(found)
    for ids, path in zip(found, laid.paths, strict=True):
        assert tuple(laid.ids[i] for i in path) == ids
        assert tuple(laid.positions[i] for i in path) == tuple(range(len(ids)))
    beginnings = {ids[: n + 1] for ids in found for n in range(len(ids))}
    assert len(laid.ids) == len(beginnings)
    assert sum(s.length for s in laid.segments) == len(laid.ids)
    for segment in laid.segments:
        own = tuple(range(segment.start, segment.start + segment.length))
        assert segment.keys[segment.shared :] == own
        assert all(key < segment.start for key in segment.keys[: segment.shared])


@pytest.mark.parametrize("repack", REPACK)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_packed_forward_gives_each_row_what_the_model_s_own_gives(name, repack):
    model = random_model(CONFIGS[name])
    rows = sequences()
    laid = pack(rows)
    assert len(laid.ids) < sum(map(len, rows)) - 150
    with torch.inference_mode():
        assert_own_states(model, rows, laid, PackedDecoder(model, repack)(laid))


@pytest.mark.parametrize("name", CONFIGS)
def test_states_that_nobody_asks_for_may_be_left_out_of_the_last_layer(name):
    decoder = PackedDecoder(random_model(CONFIGS[name]), False)
    laid = pack(sequences())
    wanted = torch.tensor([7, 3, 3, len(laid.ids) - 1])
    with torch.inference_mode():
        torch.testing.assert_close(decoder(laid, wanted), decoder(laid)[wanted])


def test_small_blocks_of_queries_change_nothing(monkeypatch):
    model = random_model(CONFIGS["gemma3"])
    laid = pack(sequences())
    with torch.inference_mode():
        whole = PackedDecoder(model, False)(laid)
        monkeypatch.setattr(packed_attention, "BLOCK", 5)
        torch.testing.assert_close(PackedDecoder(model, False)(laid), whole, atol=1e-5, rtol=1e-5)


def test_taking_over_frees_the_repacked_weights_and_an_unknown_model_keeps_its_own():
    if not can_pack(torch.device("cpu"), torch.float32):
        pytest.skip("PyTorch has no oneDNN layout for this processor: nothing is repacked")
    model = random_model(CONFIGS["llama"])
    PackedDecoder(model, repack=True, release=True)
    assert model.model.layers[0].mlp.up_proj.weight.numel() == 0
    assert model.get_output_embeddings().weight.numel() > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64), "gpt2"),
        (LlamaConfig(**SHAPE, hidden_act="relu"), "relu"),
        (
            LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0}),
            "dynamic",
        ),
    ],
)
def test_an_architecture_that_was_not_thought_of_is_refused(config, message):
    with pytest.raises(ModelError, match=message):
        PackedDecoder(AutoModelForCausalLM.from_config(config).eval(), repack=False)


def with_adapter(model, **more):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", **more))
        for name, weight in found.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return found.get_base_model().eval()


@pytest.mark.parametrize("repack", REPACK)
@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_beside_the_weights_is_in_the_packed_forward(name, repack):
    bare = random_model(CONFIGS[name])
    rows = sequences()
    laid = pack(rows)
    with torch.inference_mode():
        without = PackedDecoder(bare, repack)(laid)
        model = with_adapter(bare)
        hidden = PackedDecoder(model, repack)(laid)
        assert not torch.allclose(hidden, without, atol=0.01)
        assert_own_states(model, rows, laid, hidden)


def test_another_kind_of_adapter_is_refused():
    model = with_adapter(random_model(CONFIGS["llama"]), use_dora=True)
    with pytest.raises(ModelError, match="Linear"):
        PackedDecoder(model, repack=False)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31))
def test_dense_layers_equal_the_plain_expressions(rows, seed):
    torch.manual_seed(seed)
    layer = torch.nn.Linear(24, 40)
    x, other = torch.randn(rows, 24), torch.randn(rows, 40)
    with torch.inference_mode():
        plain = layer(x)
        for repack in REPACK:
            mine = dense(layer, repack)
            torch.testing.assert_close(mine(x), plain)
            torch.testing.assert_close(mine.plus(x, other), plain + other)
            torch.testing.assert_close(mine.times(x, other), plain * other)
            for name, (_, _, function) in ACTIVATIONS.items():
                torch.testing.assert_close(
                    mine.activated(x, name), function(plain), atol=1e-5, rtol=1e-4
                )
