"""Loops over arrays, compiled at their first use and kept in the user's cache."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core.registry import cpu_target

from qaq.host.paths import cache_dir

F = TypeVar("F", bound=Callable[..., object])

with contextlib.suppress(OSError, RuntimeError):  # no home, or one that cannot be written
    numba.config.CACHE_DIR = str(cache_dir() / "compiled")  # type: ignore[attr-defined]

cpu_target.target_context.refresh()  # half a second of imports, else at the first call of a loop


def compiled(function: F) -> F:
    """Compile a loop over arrays; it leaves the other threads alone while it runs."""
    return _made(function)


def spread(function: F) -> F:
    """Compile a loop whose `prange` the threads share."""
    return _made(function, parallel=True)


def _made(function: F, **options: Any) -> F:
    try:
        made = numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it; each process compiles for itself
        made = numba.njit(nogil=True, **options)(function)
    return cast(F, made)
