"""How loops over pixels are compiled, by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def kernel(function: Kernel) -> Kernel:
    """Compile a function; what comes out is kept for later processes.

    Where neither the package nor a home can be written to, each process compiles for itself.
    """
    try:
        compiled: Any = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "no locator available"
        compiled = numba.njit(nogil=True)(function)
    return compiled  # type: ignore[no-any-return]
