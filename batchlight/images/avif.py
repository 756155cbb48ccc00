"""AVIF: 8 bits. OpenCV decodes and encodes the pixels, and writes the metadata.

The size that the file states is in a box (``ispe``); what a decoder reserves memory for is in the
AV1 stream of each picture: a file of 3 kB can make it take 3 GB. Rotation and mirroring are boxes
too, and readers ignore the orientation in EXIF.
Layouts: ISO/IEC 14496-12 (boxes), ISO/IEC 23000-22 (MIAF).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
from PIL import Image

from batchlight.images import av1, opencv, pillow
from batchlight.images.image import Decoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.metadata import ORIENTATION_TAG

_BOXES_OF_BOXES = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that hold boxes, and after how many bytes; only those that are needed."""


def inspect(image: Image.Image, data: bytes, max_pixels: int) -> Header:
    """The header; Pillow makes the orientation of the boxes."""
    header = pillow.header_of(image, "avif", pillow.metadata_of(image))
    return replace(header, orientation=image.getexif().get(ORIENTATION_TAG, 1))


def encode(decoded: Decoded, quality: int) -> bytes:
    """A lossy AVIF."""
    metadata, parameters = decoded.header.metadata, [cv2.IMWRITE_AVIF_QUALITY, quality]
    return opencv.encode_with_metadata(".avif", decoded.samples, metadata, parameters)


def claimed_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of each AV1 stream that is found; empty for other content."""
    if data[4:8] != b"ftyp":
        return []
    sizes = []
    for kind, start, end in boxes(data, 0, len(data)):
        if kind == b"av1C":
            streams = [start + 4]
        elif kind == b"iloc":
            streams = list(_item_offsets(data[start:end]))
        else:
            continue
        found = [av1.picture_size(data, at) for at in streams]
        sizes += [size for size in found if size is not None]
    return sizes


AVIF = ImageFormat(
    "avif",
    pillow_names=("AVIF",),
    inspect=inspect,
    encode=encode,
    claimed_sizes=claimed_sizes,
    not_read=("Failed to decode image: Not implemented",),
)


def boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end of the content) of each box, and of those inside it."""
    while at + 8 <= end:
        size, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        until = min(at + size, end) if size else end
        if until <= at + 8:
            return
        yield kind, start, until
        if kind in _BOXES_OF_BOXES:
            yield from boxes(data, start + _BOXES_OF_BOXES[kind], until)
        at = until


def _item_offsets(iloc: bytes) -> Iterator[int]:
    """Where in the file each item starts, given the content of the box ``iloc``."""
    bits = av1.Bits(iloc)
    version = bits.take(8)
    bits.skip(24)
    offset_size, length_size, base_size, index_size = (8 * bits.take(4) for _ in range(4))
    index_size *= version > 0
    for _ in range(bits.take(32 if version == 2 else 16)):
        bits.skip(32 if version == 2 else 16)
        in_file = version == 0 or bits.take(16) & 15 == 0
        bits.skip(16)
        base, extents = bits.take(base_size), bits.take(16)
        bits.skip(index_size)
        offset = bits.take(offset_size)
        bits.skip(length_size + (extents - 1) * (index_size + offset_size + length_size))
        if extents == 0 or bits.spent:
            return
        if in_file:
            yield base + offset
