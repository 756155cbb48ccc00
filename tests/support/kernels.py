"""Compile the kernels before the suite, rather than at once in each process that runs part of it.

``python -m tests.support.kernels``, from the folder that contains the package.
"""

from __future__ import annotations

import numpy as np

import batchlight

SHAPE = (24, 32, 3)


def compile_kernels() -> None:
    """For both depths, which are compiled separately."""
    for dtype in (np.uint8, np.uint16):
        batchlight.enhance(np.full(SHAPE, 20, dtype), strength=0.5)


if __name__ == "__main__":
    compile_kernels()
