"""Compiles loops over pixels with numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(function: Kernel) -> Kernel:
    """Compile a function; the result is cached for later processes.

    Division by zero gives infinity, as in NumPy: a check for it would prevent vectorization. If
    neither the package nor a home directory is writable, each process compiles for itself.

    A kernel assigns arrays element by element: for ``one[:] = other``, numba also compiles the
    message for arrays that differ in length, which takes two seconds.
    """
    compiler = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        compiled: Any = compiler(cache=True)(function)
    except RuntimeError:  # "no locator available"
        compiled = compiler()(function)
    return compiled  # type: ignore[no-any-return]
