"""What an array of pixels is, wherever nothing else is said."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""uint8 or uint16; (height, width) for gray, or (height, width, 3) in OpenCV's order blue, green,
red."""
