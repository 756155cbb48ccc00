"""What comes back from the network. Apart from the rest, so that it can be read without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from batchlight.errors import ImageError
from batchlight.images.pixels import Pixels


@dataclass(frozen=True)
class Restored:
    """What the network made of one image."""

    pixels: Pixels | None
    """In the shape and dtype of the image."""
    error: ImageError | None
    """Why there are no pixels: ``out_of_memory`` or ``suspicious_output``."""
    milliseconds: float
    """This image's share of the time that its group took."""

    def get(self) -> Pixels:
        """The pixels. Raises the ``ImageError`` if there are none."""
        if self.pixels is None:
            assert self.error is not None
            raise self.error
        return self.pixels
