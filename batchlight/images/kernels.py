"""How loops over pixels are compiled, by numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(function: Kernel) -> Kernel:
    """Compile a function; what comes out is kept for later processes.

    Division by zero gives infinity, as in NumPy: a check for it would keep a loop from becoming
    vector instructions. Where neither the package nor a home can be written to, each process
    compiles for itself.
    """
    compiler = partial(numba.njit, nogil=True, error_model="numpy")
    try:
        compiled: Any = compiler(cache=True)(function)
    except RuntimeError:  # "no locator available"
        compiled = compiler()(function)
    return compiled  # type: ignore[no-any-return]
