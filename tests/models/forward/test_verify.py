"""What rounding does in a model passes; a fault passes neither that nor the ceiling."""

from dataclasses import replace

import pytest
import torch
from tests.models.forward.test_forward import CONFIGS, random_model, with_adapter

from qaq.evaluation.generation.forward import by_cache
from qaq.models.forward import columns, verify
from qaq.models.forward.attention import attending
from qaq.models.forward.dense import Dense
from qaq.models.forward.forward import Forward
from qaq.models.forward.swaps import Swaps

FAULTS = ("causal mask off by one", "scaling", "heads in another order", "positions doubled")
MISSING = ("a norm is missing", "the adapter is missing")


@pytest.fixture
def narrow(monkeypatch):
    """The fixed bound below what rounding does in this model, as it is in larger ones."""
    monkeypatch.setitem(verify.BOUNDS, torch.bfloat16, 0.005)


def broken(monkeypatch, fault, model, swaps):
    """Put one fault into the way of a cache."""
    attend, forward, mask = columns.Cached.attend, model.forward, columns.Run._mask

    def put(change):
        monkeypatch.setattr(columns.Cached, "attend", change)

    def ahead(run, window, group, like):
        own = mask(run, window, group, like)
        return None if own is None else torch.cat([own[..., :1], own[..., :-1]], -1)

    if fault == "causal mask off by one":
        monkeypatch.setattr(columns.Run, "_mask", ahead)
    elif fault == "scaling":
        put(lambda c, q, k, v, s: attend(c, q, k, v, replace(s, scaling=s.scaling * 1.5)))
    elif fault == "heads in another order":
        put(lambda c, q, k, v, s: attend(c, q.flip(1), k, v, s))
    elif fault == "positions doubled":
        doubled = lambda *a, position_ids, **k: forward(*a, position_ids=2 * position_ids, **k)  # noqa: E731
        monkeypatch.setattr(model, "forward", doubled)
    elif fault == "a norm is missing":
        norm = next(m for n, m in model.named_modules() if n.endswith("1.input_layernorm"))
        swaps.forwards[norm] = lambda x: x
    elif fault == "the adapter is missing":
        for module, made in swaps.forwards.items():
            if isinstance(made, Dense):
                swaps.forwards[module] = replace(made, adapter=None)


def found(model, monkeypatch, fault=None):
    """What is said of answering with a cache, with a fault or without."""
    own, swaps = Forward(model, ways=()), Swaps(model, repack=False)
    with torch.inference_mode():
        alone, moved = own.alone(), own.moved()
        broken(monkeypatch, fault, model, swaps)
        with attending(model), swaps():
            rows = by_cache(model)(own.probe.beside(0))[1:-1]
    return verify.too_far(rows, alone, model.dtype, lambda: moved), moved


def model():
    return with_adapter(random_model(CONFIGS["gemma3"])).bfloat16()


def test_a_row_may_differ_as_rounding_moves_it(narrow, monkeypatch):
    problem, moved = found(model(), monkeypatch)
    assert min(moved) > verify.BOUNDS[torch.bfloat16]
    assert problem is None


@pytest.mark.parametrize("fault", [*FAULTS, *MISSING])
def test_a_fault_moves_rows_further_than_rounding(narrow, monkeypatch, fault):
    problem, _ = found(model(), monkeypatch, fault)
    assert problem is not None and "rounding moves this row by" in problem


def test_however_far_rounding_goes_there_is_a_ceiling():
    one = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    alone, far = [one, one], [one, one + verify.CEILING * 0.05]
    problem = verify.too_far(far, alone, torch.bfloat16, lambda: [9.0, 9.0])
    assert problem is not None and "expected < 0.2" in problem


def test_numbers_that_are_not_finite_are_too_far():
    one = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    broken = [one, one * float("nan")]
    assert verify.too_far(broken, [one, one], torch.float32, lambda: [0.0, 0.0]) is not None


def test_looking_at_rounding_leaves_the_model_as_it_was():
    own = Forward(random_model(CONFIGS["llama"]), ways=())
    with torch.inference_mode():
        before = own.alone()
        assert 0 < max(own.moved()) < 1e-5
        again = own.alone()
    assert all(torch.equal(a, b) for a, b in zip(before, again, strict=True))
