"""The network's result. In a module of its own, so that it can be unpickled without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from batchlight.errors import ImageError
from batchlight.images.pixels import Pixels


@dataclass(frozen=True)
class Restored:
    """The network's result for one image."""

    pixels: Pixels | None
    """In the shape and dtype of the image."""
    error: ImageError | None
    """Why there are no pixels: ``out_of_memory`` or ``suspicious_output``."""
    milliseconds: float
    """This image's share of its group's time."""

    def get(self) -> Pixels:
        """The pixels. Raises the ``ImageError`` if there are none."""
        if self.pixels is None:
            assert self.error is not None
            raise self.error
        return self.pixels
