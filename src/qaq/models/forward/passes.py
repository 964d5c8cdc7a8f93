"""What a forward pass does between its products, in as few passes over memory as can be.

Each function is first the PyTorch expression that defines it; on processors, in float32 and
bfloat16, a compiled loop computes the same (`loops`). These passes are a third of the
time of a small model: every one that PyTorch makes reads and writes all its numbers again.
"""

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, softmax

LOOPED = (torch.float32, torch.bfloat16)


def normalised(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last axis, rounded once to the precision of x.

    Args:
        x: [..., width].
        weight: [width]; float32, or the precision of x where that holds it exactly.
    """
    if _compiles(x):
        out = torch.empty(x.shape, dtype=x.dtype)  # contiguous whatever x is: it is written as rows
        _loops().normalise(_rows(x.contiguous()), weight.numpy(), eps, _rows(out))
        return out
    if weight.dtype == x.dtype:
        return rms_norm(x, weight.shape, weight, eps)
    y = x.float()
    return (y * (y.square().mean(-1, keepdim=True) + eps).rsqrt() * weight).to(x.dtype)


def gathered(x: Tensor, order: Tensor, group: int) -> Tensor:
    """Groups of heads of x in the order asked for.

    Args:
        x: [tokens, heads, width].
        order: [n], each token * groups + group.
        group: heads of a group.

    Returns:
        [n, group, width], float32.
    """
    width = x.shape[-1]
    if x.dtype == torch.bfloat16 and _compiles(x):
        out = torch.empty(len(order), group, width)
        _loops().gather(_array(x.contiguous()), order.numpy(), out.numpy())
        return out
    return x.reshape(-1, group, width).index_select(0, order).float()


def masked_softmax(
    scores: Tensor, last: Tensor, window: int | None, group: int, dtype: torch.dtype
) -> Tensor:
    """softmax(scores) over the keys that a query sees, 0 for the others.

    Args:
        scores: [blocks * key heads, queries * group, keys], float32; overwritten.
        last: [blocks, queries], the last key that a query sees.
        window: how many keys a query sees; None for all up to the last.
        group: heads that share a key head.
        dtype: of the result.
    """
    keys = scores.shape[-1]
    blocks, queries = last.shape
    if _compiles(scores) and dtype in LOOPED:
        scores = scores.contiguous()
        out = scores if dtype == scores.dtype else torch.empty(scores.shape, dtype=dtype)
        _loops().masked_softmax(_rows(scores), last.numpy(), window or keys, group, _rows(out))
        return out
    scores = scores.contiguous()
    key = torch.arange(keys, device=last.device)
    hidden = key > last[:, :, None]
    if window is not None:
        hidden |= key <= last[:, :, None] - window
    shaped = scores.view(blocks, -1, queries, group, keys)
    shaped.masked_fill_(hidden[:, None, :, None], -torch.inf)
    return softmax(scores, -1).to(dtype)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target], in float32.

    Args:
        logits: [rows, words].
        targets: [rows].
    """
    if _compiles(logits):
        out = torch.empty(len(targets))
        _loops().token_nll(_array(logits), targets.numpy(), out.numpy())
        return out
    known = logits.log_softmax(-1, dtype=torch.float32)  # widened as it is read, on CUDA devices
    return -known.gather(1, targets[:, None])[:, 0]


def _compiles(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in LOOPED and _loops() is not None


def _array(x: Tensor) -> Any:
    """The tensor's memory as the loops read it."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def _rows(x: Tensor) -> Any:
    """The same as [rows, last axis]."""
    return _array(x).reshape(-1, x.shape[-1])


@cache
def _loops() -> Any:
    """The loops, on as many threads as PyTorch has; numba takes half a second to import.

    None where numba finds no OpenMP, whose threads are PyTorch's own: two sets of threads would
    wait for each other at every change from products to loops.
    """
    import numba

    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        return None
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]  # it would prefer TBB's
    from qaq.models.forward import loops

    numba.set_num_threads(min(torch.get_num_threads(), numba.get_num_threads()))
    return loops
