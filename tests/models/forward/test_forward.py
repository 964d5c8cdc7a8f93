"""Packs against the definition, and every way of running a model against its own, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from qaq.host.errors import ModelError
from qaq.models.forward import attention_check, blocks, forward
from qaq.models.forward.dense import ACTIVATIONS, can_pack, dense
from qaq.models.forward.forward import WAYS, Forward
from qaq.models.forward.packing import pack
from qaq.models.forward.verify import changes_at, make_probe

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
    "phi3, gate and up in one": Phi3Config(**SHAPE, pad_token_id=0),
    "gemma2, capped scores": Gemma2Config(**SHAPE, head_dim=16, sliding_window=7),
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


def all_of(rows):
    return [range(len(ids)) for ids in rows]


def assert_own_states(model, rows, states):
    for ids, found in zip(rows, states.split([len(ids) for ids in rows]), strict=True):
        own = model.get_decoder()(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(found, own, atol=2e-5, rtol=1e-4)


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


def forward_of(model, way="packed", **more):
    found = Forward(model, ways=[way], **more)
    assert found.way == way, found.reasons
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_way_gives_each_row_what_the_model_s_own_forward_gives(name, way):
    model = random_model(CONFIGS[name])
    rows = sequences()
    assert len(pack(rows).ids) < sum(map(len, rows)) - 150
    found = forward_of(model, way)(rows, all_of(rows))
    with torch.inference_mode():
        assert_own_states(model, rows, found)


@pytest.mark.parametrize("name", CONFIGS)
def test_states_that_nobody_asks_for_may_be_left_out_of_the_last_layer(name):
    run, rows = forward_of(random_model(CONFIGS[name])), sequences()
    some = [[7, 3, 3], [], [161], [], [0], []]
    expected = [run(rows, all_of(rows)).split([len(ids) for ids in rows])[i] for i in range(6)]
    wanted = torch.cat([states[at] for states, at in zip(expected, some, strict=True) if at])
    torch.testing.assert_close(run(rows, some), wanted)


def test_small_blocks_of_queries_change_nothing(monkeypatch):
    run, rows = forward_of(random_model(CONFIGS["gemma3"])), sequences()
    whole = run(rows, all_of(rows))
    monkeypatch.setattr(blocks, "BLOCK", 5)
    torch.testing.assert_close(run(rows, all_of(rows)), whole, atol=1e-5, rtol=1e-5)


def test_taking_over_frees_the_weights_that_are_laid_out_anew():
    if not can_pack(torch.device("cpu"), torch.float32):
        pytest.skip("PyTorch has no oneDNN layout for this processor: nothing is repacked")
    model = random_model(CONFIGS["llama"])
    forward_of(model, take_over=True)
    assert model.model.layers[0].mlp.up_proj.weight.numel() == 0
    assert model.get_input_embeddings().weight.numel() > 0


def test_a_model_that_is_not_taken_over_is_as_before_whatever_was_run():
    model = random_model(CONFIGS["qwen3"])
    ids = torch.tensor([sequences()[0]])
    before, names = model(ids).logits, {n: m.forward for n, m in model.named_modules()}
    forward_of(model)(sequences(), all_of(sequences()))
    assert torch.equal(model(ids).logits, before)
    assert {n: m.forward for n, m in model.named_modules()} == names


def test_what_was_freed_is_given_back_where_the_packed_way_fails_late(monkeypatch, capsys):
    model = random_model(CONFIGS["llama"])
    own = model(torch.tensor([sequences()[0]])).logits
    monkeypatch.setattr(forward, "too_far", lambda *_: "the product is wrong")
    found = Forward(model, take_over=True)
    if not can_pack(torch.device("cpu"), torch.float32):
        pytest.skip("PyTorch has no oneDNN layout for this processor: nothing is freed")
    assert found.way == "padded" and "the product is wrong" in capsys.readouterr().err
    assert torch.equal(model(torch.tensor([sequences()[0]])).logits, own)


def broken_attention(kind):
    """Attention that is wrong in one way, as a change of Transformers might make it."""
    own = blocks.attend

    def attend(q, k, v, at, scaling, window, softcap=None):
        if kind == "window off by one":
            return own(q, k, v, at, scaling, window and window + 1, softcap)
        if kind == "scaling":
            return own(q, k, v, at, scaling * 1.05, window, softcap)
        raise AttributeError("'Gemma3Attention' object has no attribute 'scaling'")

    return attend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["window off by one", "scaling", "a renamed attribute"])
def test_whatever_breaks_the_packed_way_leads_to_the_model_s_own_forward(
    kind, dtype, monkeypatch, capsys
):
    model = random_model(CONFIGS["gemma3"]).to(dtype)
    monkeypatch.setattr(blocks, "attend", broken_attention(kind))
    found = Forward(model, purpose="scoring")
    assert found.way == "padded"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scoring with the model's own forward, padded, not packed: ")
    rows = sequences()
    with torch.inference_mode():
        own = model.get_decoder()(input_ids=torch.tensor([rows[0]])).last_hidden_state[0]
    torch.testing.assert_close(found(rows[:1], all_of(rows[:1])), own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_too_large_for_float32_are_no_fault_of_the_packed_way(dtype, monkeypatch):
    """Qwen 2.5's biases of queries and keys make scores in the thousands."""
    slow = {"rope_type": "default", "rope_theta": 1e8}
    model = random_model(Qwen2Config(**SHAPE, rope_parameters=slow))
    for layer in model.model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            part.bias.data.view(-1, 8)[:, 3::4] = 300.0  # what hardly turns with the position
    model = model.to(dtype)
    assert Forward(model).way == "packed"
    if dtype == torch.bfloat16:  # nothing but the biases is left of such scores
        return
    monkeypatch.setattr(blocks, "attend", broken_attention("scaling"))
    broken = Forward(model)
    assert broken.way == "padded" and "attention differs by" in broken.reasons["packed"]


def test_a_state_that_runs_from_one_row_into_the_next_is_found_by_equality():
    """A recurrent model ignores segments: whatever small part leaks, bits differ."""
    config = MambaConfig(vocab_size=128, hidden_size=16, num_hidden_layers=2, state_size=4)
    found = Forward(random_model(config))
    assert found.way != "packed"
    assert "changes with its neighbours" in found.reasons["packed"]


def test_a_window_of_the_probe_s_length_is_looked_over():
    model = random_model(CONFIGS["gemma3"])
    assert len(make_probe(model).rows[-1]) > model.config.sliding_window


def test_a_model_that_sees_what_follows_is_refused():
    config = BertConfig(**SHAPE | {"num_hidden_layers": 2}, is_decoder=False)
    with pytest.raises(ModelError, match="not causal"):
        Forward(random_model(config))


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_row_that_changes_the_rotary_embedding_of_a_batch_runs_alone(kind):
    """These embeddings look at the longest row of a batch, and `dynamic` remembers it."""
    half = SHAPE["hidden_size"] // SHAPE["num_attention_heads"] // 2
    parameters = {"rope_type": kind, "factor": 4.0, "rope_theta": 1e4}
    if kind == "longrope":
        parameters |= {"short_factor": [1.0] * half, "long_factor": [3.0] * half}
        parameters |= {"original_max_position_embeddings": 64}
    config = LlamaConfig(
        **SHAPE | {"max_position_embeddings": 64 if kind == "dynamic" else 512},
        rope_parameters=parameters,
    )
    model = random_model(config)
    found = forward_of(model)
    short, long, longer = sequences()[0], sequences()[2][:80], sequences()[2]
    with torch.inference_mode():
        for rows in ([short], [short, long], [longer, long], [long], [short]):
            states = found(rows, all_of(rows)).split([len(ids) for ids in rows])
            for ids, state in zip(rows, states, strict=True):
                fresh = random_model(config).get_decoder()(input_ids=torch.tensor([ids]))
                torch.testing.assert_close(state, fresh.last_hidden_state[0], atol=2e-5, rtol=1e-4)


def phi(positions, change, window):
    """Of Phi's kind: a window beyond all positions, other frequencies from `change` on."""
    half = SHAPE["hidden_size"] // SHAPE["num_attention_heads"] // 2
    parameters = {"rope_type": "longrope", "rope_theta": 1e4}
    parameters |= {"short_factor": [1.0] * half, "long_factor": [3.0] * half}
    parameters |= {"original_max_position_embeddings": change}
    shape = SHAPE | {"max_position_embeddings": positions, "sliding_window": window}
    return random_model(Phi3Config(**shape, rope_parameters=parameters, pad_token_id=0))


def test_attention_is_compared_below_the_row_that_changes_the_rotary_embedding(monkeypatch):
    assert Forward(phi(512, 64, 262144)).way == "packed"
    monkeypatch.setattr(blocks, "attend", broken_attention("scaling"))
    found = Forward(phi(512, 64, 262144))
    assert found.way == "padded" and "attention differs by" in found.reasons["packed"]


def test_a_probe_is_no_longer_than_needed_and_never_so_long_that_attention_is_not_compared():
    assert max(map(len, make_probe(phi(131072, 4096, 262144)).rows)) == 60  # Phi-4-mini's numbers
    assert len(make_probe(phi(131072, 4096, 2047)).rows[-1]) == 2064
    assert len(make_probe(phi(131072, 4096, 4090)).rows[-1]) == 4095


@pytest.mark.parametrize(("window", "length", "change"), [(4096, 4113, None), (6000, 60, 6000)])
def test_what_a_window_hides_behind_the_longest_probe_is_left_to_the_model_s_own_forward(
    window, length, change
):
    shape = SHAPE | {"max_position_embeddings": 32768, "sliding_window": window}
    model = random_model(Gemma3TextConfig(**shape, head_dim=16))
    assert len(make_probe(model).rows[-1]) == length
    assert changes_at(model) == change


def test_a_check_that_memory_is_too_small_for_leads_to_the_model_s_own_forward(monkeypatch, capsys):
    def small(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr(forward, "attention_problem", small)
    assert Forward(random_model(CONFIGS["llama"])).way == "padded"
    assert "not packed: OutOfMemoryError: CUDA out of memory" in capsys.readouterr().err


def test_plain_attention_is_the_same_for_all_heads_at_once_and_for_each_alone():
    chance = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 9, 8, generator=chance) for heads in (4, 2, 2))
    mask = torch.full((9, 9), float("-inf")).triu(1)[None, None]
    found, rounding = attention_check._plain(q, k, v, mask, None, None)
    expected = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    assert 0 < rounding < 1e-6


def with_adapter(model, **more):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        found = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", **more))
        for name, weight in found.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return found.get_base_model().eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_beside_the_weights_is_in_the_packed_forward(name):
    bare, rows = random_model(CONFIGS[name]), sequences()
    without = forward_of(bare)(rows, all_of(rows))
    model = with_adapter(bare)
    found = forward_of(model)(rows, all_of(rows))
    assert not torch.allclose(found, without, atol=0.01)
    with torch.inference_mode():
        assert_own_states(model, rows, found)


def test_another_kind_of_adapter_keeps_its_own_forward():
    model, rows = with_adapter(random_model(CONFIGS["llama"]), use_dora=True), sequences()
    found = forward_of(model)(rows, all_of(rows))
    with torch.inference_mode():
        assert_own_states(model, rows, found)


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
            torch.testing.assert_close(mine.times(x, other), plain * other)
            for name, (_, _, function) in ACTIVATIONS.items():
                torch.testing.assert_close(
                    mine.activated(x, name), function(plain), atol=1e-5, rtol=1e-4
                )
