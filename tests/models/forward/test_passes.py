"""Each pass against its definition in float64, where it is compiled and where it is not."""

import pytest
import torch

from qaq.models.forward import passes


@pytest.fixture(autouse=True, params=["compiled", "PyTorch"])
def way(request, monkeypatch):
    """The second is what runs where numba finds no OpenMP."""
    if request.param == "PyTorch":
        monkeypatch.setattr(passes, "_loops", lambda: None)


COMPILED = [torch.float32, torch.bfloat16]
PRECISIONS = [*COMPILED, torch.float16, torch.float64]  # the last two are not compiled
TOLERANCE = {
    torch.float64: 1e-6,  # logits are narrowed to float32
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


def random(*shape, dtype=torch.float32, scale=1.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)


def assert_close(found, wanted, dtype):
    bound = TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), wanted, atol=bound, rtol=bound)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_norm_divides_by_the_root_of_the_mean_square(dtype):
    x, weight = random(7, 3, 20, dtype=dtype, scale=5), random(20) + 1
    wide = x.double()
    wanted = wide / (wide.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight.double()
    found = passes.normalised(x, weight, 0.1)
    assert found.dtype == dtype and found.shape == x.shape
    assert_close(found, wanted, dtype)


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    scale = torch.linspace(0.5, 2, 400)
    x = torch.ones(1, 400, dtype=torch.bfloat16)
    exact = scale / (1 + torch.tensor(1e-6)).sqrt()
    torch.testing.assert_close(
        passes.normalised(x, scale, 1e-6)[0].float(), exact.bfloat16().float(), rtol=0, atol=8e-3
    )
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8])  # between two bfloat16 numbers each
    found = passes.normalised(torch.ones(1, 2, dtype=torch.bfloat16), ties, 0.0)[0]
    assert found.tolist() == [1.0, 1 + 2**-6]


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_groups_of_heads_stand_in_the_order_asked_for(dtype):
    x = random(5, 6, 8, dtype=dtype)
    order = torch.tensor([9, 0, 3, 3, 1])  # groups of three heads, two to a token
    found = passes.gathered(x, order, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, x.reshape(10, 3, 8)[order].float(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_numbers_that_do_not_lie_in_order_in_memory_are_read_as_they_are_meant(dtype):
    """A transposed or cut tensor came back as whatever was in memory."""
    x, weight = random(6, 20, 7, dtype=dtype).transpose(1, 2), random(20) + 1
    assert not x.is_contiguous()
    near = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float64 else {}  # sums are in float32
    whole = passes.normalised(x.contiguous(), weight, 0.1)
    torch.testing.assert_close(passes.normalised(x, weight, 0.1), whole, **near)
    cut = random(6, 4, 30, dtype=dtype)[..., :20]
    whole = passes.normalised(cut.contiguous(), weight, 0.1)
    torch.testing.assert_close(passes.normalised(cut, weight, 0.1), whole, **near)
    heads, order = random(6, 5, 8, dtype=dtype).transpose(0, 1), torch.tensor([7, 0, 3])
    whole = passes.gathered(heads.contiguous(), order, 3)
    torch.testing.assert_close(passes.gathered(heads, order, 3), whole, rtol=0, atol=0)
    logits, targets = random(9, 6, dtype=dtype).T, torch.tensor([1, 0, 5, 3, 2, 8])
    whole = passes.token_nll(logits.contiguous(), targets)
    torch.testing.assert_close(passes.token_nll(logits, targets), whole)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_scores_that_do_not_lie_in_order_in_memory_get_their_weights(dtype):
    last = torch.tensor([[3, 4, 9]])
    scores = random(2, 10, 6).mT  # [heads, queries * group, keys]
    whole = passes.masked_softmax(
        scores.clone(memory_format=torch.contiguous_format), last, None, 2, dtype
    )
    found = passes.masked_softmax(scores, last, None, 2, dtype)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(found.float().sum(-1), torch.ones(2, 6), rtol=0, atol=1e-2)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_weights_are_a_softmax_over_the_keys_that_a_query_sees(dtype, window):
    blocks, kv, queries, group, keys = 2, 3, 5, 2, 70
    scores = random(blocks * kv, queries * group, keys, scale=20)
    last = torch.tensor([[0, 1, 2, 40, 69], [3, 3, 68, 69, 69]])
    wanted = torch.zeros(blocks, kv, queries, group, keys).double()
    shaped = scores.view(wanted.shape).double()
    for b in range(blocks):
        for q in range(queries):
            end = int(last[b, q]) + 1
            start = 0 if window is None else max(0, end - window)
            wanted[b, :, q, :, start:end] = shaped[b, :, q, :, start:end].softmax(-1)
    found = passes.masked_softmax(scores.clone(), last, window, group, dtype)
    assert found.dtype == dtype
    assert_close(found.view(wanted.shape), wanted, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_surprise_is_the_negative_log_softmax_of_the_target(dtype):
    logits, targets = random(10, 1000, dtype=dtype, scale=30), torch.arange(0, 1000, 100)
    wanted = -logits.double().log_softmax(-1)[torch.arange(10), targets]
    found = passes.token_nll(logits, targets)
    assert found.dtype == torch.float32
    assert_close(found, wanted, torch.float32)


@pytest.mark.parametrize("dtype", COMPILED)
def test_impossible_words_have_no_weight_and_what_is_not_a_number_stays_so(dtype):
    logits = random(6, 50, dtype=dtype)
    logits[0, :40] = -torch.inf
    logits[1, 7] = torch.nan
    logits[2, 7] = -torch.tensor(torch.nan)
    logits[3, 7] = torch.inf
    logits[4] = -torch.inf
    found = passes.token_nll(logits, torch.tensor([45, 0, 0, 0, 0, 3]))
    assert found[0] == pytest.approx(float(-logits[0].double().log_softmax(-1)[45]), abs=1e-5)
    assert found[1:5].isnan().all()
    assert found[5].isfinite()


@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf])
def test_a_score_that_is_not_a_number_spoils_its_row_and_no_other(value):
    scores = random(1, 3, 40)
    scores[0, 1, 5] = value
    last = torch.full((1, 3), 39)
    found = passes.masked_softmax(scores, last, None, 1, torch.bfloat16)[0]
    assert found[1].isnan().any()
    torch.testing.assert_close(found[[0, 2]].float().sum(-1), torch.ones(2), atol=1e-2, rtol=0)


def test_nothing_to_score_gives_nothing():
    for dtype in PRECISIONS:
        assert passes.token_nll(torch.empty(0, 9, dtype=dtype), torch.empty(0).long()).shape == (0,)
