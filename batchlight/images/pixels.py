"""What an array of pixels is, wherever nothing else is said; and what its luminance is."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""uint8 or uint16; (height, width) for gray, or (height, width, 3) in OpenCV's order blue, green,
red."""

Rgb = npt.NDArray[Any]
"""float32 in 0..1; (height, width, 3), red, green, blue: what the network is trained on."""

LUMINANCE = (0.114, 0.587, 0.299)
"""What blue, green and red weigh in it, by ITU-R BT.601."""
