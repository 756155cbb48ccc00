"""OpenCV's decoders and encoders, without their messages on stderr."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from cv2.utils import logging

from batchlight.images.pixels import Pixels


class _Silence:
    """OpenCV's log level, which is process-wide, set to silent while any thread needs it.

    The first thread to enter saves the caller's level, the last to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                logging.setLogLevel(self._level)


_silenced = _Silence()


def decode(data: bytes) -> Pixels | None:
    """The samples as stored, alpha last; None if OpenCV cannot decode them."""
    with _silenced:
        samples: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return samples


def encode(suffix: str, samples: Pixels, parameters: Sequence[int] = ()) -> bytes:
    """A file of the format that ``suffix`` names, without metadata.

    Raises ``cv2.error`` or ``ValueError`` if OpenCV cannot encode it.
    """
    with _silenced:
        return _file(*cv2.imencode(suffix, samples, parameters))


def _file(done: bool, buffer: Any) -> bytes:
    if not done:
        raise ValueError("the encoder rejected it, most likely because of its size")
    return bytes(buffer)
