"""Identify an image before a pixel is decoded, and refuse what cannot be kept."""

from __future__ import annotations

from batchlight.errors import ErrorCode, ImageError, brief
from batchlight.images import foreign, pillow
from batchlight.images.formats import FORMATS
from batchlight.images.image import Header, check_size
from batchlight.images.memory import require_memory
from batchlight.images.names import HAS_HEIF

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
NOT_READ = tuple(message for format in FORMATS.values() for message in format.not_read)


def read_header(data: bytes, max_pixels: int) -> Header:
    """Identify an image and refuse what cannot be kept, before decoding it.

    Any thread may call it. Raises ``MemoryError``, and ``ImageError``: ``empty``, ``corrupt``,
    ``unsupported`` or ``too_large``.
    """
    if not data:
        raise ImageError(ErrorCode.EMPTY, "the file is empty")
    # Decoders reserve memory for these sizes, Pillow's even while reading the header.
    claimed = [size for format in FORMATS.values() for size in format.claimed_sizes(data)]
    for width, height in claimed:
        check_size(width, height, max_pixels)
    try:
        with pillow.undisturbed():
            return _identify(data, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # parsers meet hostile bytes: any failure means a damaged header
        if str(error).startswith(NOT_READ):
            reason = f"this kind cannot be read: {brief(error)}"
            raise ImageError.unsupported(reason) from error
        require_memory(max((width * height for width, height in claimed), default=0))
        raise ImageError.corrupt(f"the header is damaged: {brief(error)}") from error


def is_image(data: bytes) -> bool:
    """Whether bytes begin like an image in a format that is read."""
    return any(format.recognises(data) for format in FORMATS.values())


def _identify(data: bytes, max_pixels: int) -> Header:
    for format in FORMATS.values():
        if format.recognises(data):
            header = format.inspect(data, max_pixels)
            if header.mode not in _MODES:
                reason = f"pixels of the kind {header.mode} cannot be kept"
                raise ImageError.unsupported(reason)
            return header
    name = foreign.name_of(data)
    if name is not None:
        reads = "which batchlight does not read"
        if name == "HEIC" and not HAS_HEIF:
            reads = "which needs the extra batchlight[heif]"
        raise ImageError.unsupported(f"the content is {name}, {reads}")
    raise ImageError.corrupt("the content is not an image of a known format")
