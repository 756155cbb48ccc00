"""JPEG: sampling of the colours; metadata segments, taken out and put in.

OpenCV decodes and encodes the pixels. It would lose profiles over 64 KB, the resolution and
comments, so the metadata is spliced in here: verbatim from another JPEG, else as EXIF, XMP and ICC.
Layouts: ITU-T T.81 annex B, Exif 2.3, ICC.1 annex B.4, XMP part 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
from PIL import Image, JpegImagePlugin

from batchlight.images import opencv, pillow
from batchlight.images.image import Decoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import EXIF_PREFIX, Metadata

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
ICC_PREFIX = b"ICC_PROFILE\x00"
SEGMENT_MAX = 65533
"""Bytes of content; the length field counts itself."""

_SOS, _COMMENT = 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP13 = 0xE0, 0xE1, 0xE2, 0xED
_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""Markers that no length follows: stuffing, TEM and the restarts."""

_SAMPLINGS = {
    (1, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    (2, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    (2, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    (1, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    (4, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
"""(horizontal, vertical) sampling of the luminance, to OpenCV's constant; 4:4:4 for all others."""


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header with its sampling."""
    metadata = replace(pillow.metadata_of(image), native={"jpeg": metadata_segments(data)})
    return replace(pillow.header_of(image, "jpeg", metadata), sampling=_sampling(image))


def encode(decoded: Decoded, quality: int) -> bytes:
    """A baseline JPEG of the same sampling."""
    sampling = _SAMPLINGS.get(decoded.header.sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = opencv.encode(".jpg", decoded.samples, parameters)
    return with_metadata(data, decoded.header.metadata)


JPEG = ImageFormat(
    "jpeg",
    pillow_names=("JPEG", "MPO"),
    inspect=inspect,
    encode=encode,
    holds_alpha=False,
    holds_orientation=True,
)


def metadata_segments(data: bytes) -> bytes:
    """The segments with metadata as they stand, JFIF first."""
    kept = [
        (marker, data[start:end])
        for start, end, marker in segments(data)
        if _is_metadata(data, start, marker)
    ]
    # JFIF must come first, but some cameras write it after EXIF.
    kept.sort(key=lambda segment: segment[0] != _APP0)
    return b"".join(segment for _, segment in kept)


def with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Put metadata into a freshly encoded JPEG that has none.

    Raises ``ValueError`` for EXIF or XMP too long for a JPEG segment (64 KB).
    """
    new = metadata.native.get("jpeg")
    if new is None:
        new = b"".join(_new_segments(metadata))
    if not new:
        return data
    # The encoder's JFIF header comes first and stays first, unless the original brings its own.
    _, header_end, _ = next(segments(data))
    own_header = b"" if new[1] == _APP0 else data[2:header_end]
    return data[:2] + own_header + new + data[header_end:]


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, end, marker) of each segment before the pixels."""
    at = 2
    # Decoders skip padding, markers without content, and garbage between segments.
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker == _SOS:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + max(2, length)
        if end > len(data):
            return
        if length >= 2:
            yield at, end, marker
        at = end


def _is_metadata(data: bytes, start: int, marker: int) -> bool:
    payload = data[start + 4 : start + 4 + len(XMP_PREFIX)]
    if marker == _APP0:
        return payload.startswith(b"JFIF\x00")
    if marker == _APP2:  # not the index of a multi-picture file
        return payload.startswith(ICC_PREFIX)
    return marker in (_APP1, _APP13, _COMMENT)


def _new_segments(metadata: Metadata) -> Iterator[bytes]:
    if metadata.exif:
        yield _segment(_APP1, EXIF_PREFIX + metadata.exif)
    if metadata.xmp:
        yield _segment(_APP1, XMP_PREFIX + metadata.xmp)
    if metadata.icc:
        size = SEGMENT_MAX - len(ICC_PREFIX) - 2
        parts = [metadata.icc[at : at + size] for at in range(0, len(metadata.icc), size)]
        if len(parts) > 255:
            raise ValueError("the colour profile is too long for a JPEG file")
        for number, part in enumerate(parts, 1):
            yield _segment(_APP2, ICC_PREFIX + bytes([number, len(parts)]) + part)


def _segment(marker: int, payload: bytes) -> bytes:
    if len(payload) > SEGMENT_MAX:
        raise ValueError("its EXIF or XMP is over 64 KB, which a JPEG file cannot hold")
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _sampling(image: Image.Image) -> tuple[int, int]:
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    layers = image.layer  # (identifier, horizontal, vertical, table) of each channel
    if len(layers) < 3:
        return (1, 1)
    # A damaged header may say 0; decoding refuses it.
    return (layers[0][1] // max(1, layers[1][1]), layers[0][2] // max(1, layers[1][2]))
