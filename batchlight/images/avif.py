"""AVIF: still pictures of 8 bits.

imagecodecs (libavif) decodes the pixels; OpenCV encodes those of the usual kind (4:2:0, BT.601),
imagecodecs other samplings and matrices, and lossless pictures. Everything else in the file is
carried over.

The size that the file states is in a box (``ispe``); the memory that a decoder reserves depends on
the AV1 stream of each picture: a file of 3 kB can make it take 3 GB. Rotation and mirroring are
boxes too, and readers ignore the orientation in EXIF.
Layouts: ISO/IEC 14496-12 (boxes), ISO/IEC 23000-22 (MIAF).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import imagecodecs

from batchlight.errors import ImageError
from batchlight.images import av1, av1_frame, heif_carry, heif_file, heif_header, opencv
from batchlight.images.boxes import boxes
from batchlight.images.heif_carry import Carried, Stream
from batchlight.images.image import Decoded, Encoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.items import ITEMS_MAX
from batchlight.images.metadata import Cicp, with_density_in_exif
from batchlight.images.pixels import Pixels
from batchlight.images.thumbnails import Picture

_BRANDS = frozenset({b"avif", b"avis"})
_BOXES_OF_BOXES = {b"meta": 4, b"iprp": 0, b"ipco": 0}
"""Boxes that contain boxes, and after how many bytes; only those that are needed."""
_DEPTH = 4
"""Of ``av1C``, inside the three."""

_IDENTITY, _UNSPECIFIED, _BT601, _BT2020 = 0, 2, 6, 9
_NO_POINTS = (_UNSPECIFIED, _UNSPECIFIED, _UNSPECIFIED)
_FORMATS = {(1, 1): "yuv444", (2, 1): "yuv422", (2, 2): "yuv420"}
_SPEED = 9
"""Also OpenCV's default."""
_LOSSLESS = 100


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the coded picture."""
    carried = heif_carry.take(data, _stream)
    configuration = carried.configuration(b"av1C")
    if configuration is None or len(configuration) < 4:
        raise ImageError.corrupt("the header is damaged: no AV1 configuration")
    flags = configuration[2]
    heif_header.require_depth(12 if flags & 0x20 else 10 if flags & 0x40 else 8, "avif")
    sampling = (1 + (flags >> 3 & 1), 1 + (flags >> 2 & 1))
    mono = bool(flags & 0x10)
    matrix = _UNSPECIFIED if carried.cicp is None else carried.cicp.matrix
    lossless = sampling == (1, 1) and not mono and matrix == _IDENTITY
    lossless |= mono and carried.stream.lossless
    found = heif_header.header("avif", carried, max_pixels, mono, sampling, lossless)
    if carried.items.property(carried.items.primary, b"clap") is None:
        return found
    # The decoder does not crop.
    return replace(found, metadata=replace(found.metadata, inexpressible="its cropping"))


def _stream(coded: bytes) -> Stream:
    """What a stream states."""
    found = av1.sequence(coded, 0)
    if found is None:
        return Stream()
    points = None if found.points == _NO_POINTS else Cicp(*found.points, found.full_range)
    return Stream(points, av1_frame.is_lossless(coded, found))


def decode(data: bytes, header: Header) -> Pixels:
    """The samples, as stored."""
    samples: Pixels = imagecodecs.avif_decode(data, numthreads=1)
    if samples.ndim == 2:
        return samples
    kind = cv2.COLOR_RGB2BGR if samples.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.cvtColor(samples, kind)


def encode(decoded: Decoded, quality: int) -> Encoded:
    """An AVIF with the same sampling, lossless if the image came from one; otherwise 4:2:0."""
    header, picture = decoded.header, Picture(decoded.pixels)
    if isinstance(header.carried, Carried) and header.format == "avif":
        cicp = header.carried.cicp
        coded = _coded(decoded, quality, cicp, header.sampling, header.lossless)
        return Encoded.of(*heif_file.put(header.carried, coded, cicp, picture))
    metadata = with_density_in_exif(header.metadata)
    cicp = metadata.cicp
    if cicp is not None:
        cicp = Cicp(cicp.primaries, cicp.transfer, _BT2020 if cicp.primaries == 9 else _BT601)
    coded = _coded(decoded, quality, cicp, (2, 2), lossless=False)
    lost = metadata.lost({"EXIF", "XMP", "colour profile"})
    return Encoded.of(heif_file.converted(coded, metadata, cicp), lost)


def _coded(
    decoded: Decoded, quality: int, cicp: Cicp | None, sampling: tuple[int, int], lossless: bool
) -> bytes:
    samples = decoded.samples
    gray = samples.ndim == 2
    usual = cicp is None or cicp.matrix in heif_file.SAME_AS_BT601
    if usual and (gray or sampling == (2, 2)) and not lossless:
        return opencv.encode(".avif", samples, [cv2.IMWRITE_AVIF_QUALITY, quality])
    points = cicp or Cicp(_UNSPECIFIED, _UNSPECIFIED, _IDENTITY if lossless else _BT601)
    if not gray:
        kind = cv2.COLOR_BGR2RGB if samples.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        samples = cv2.cvtColor(samples, kind)
    try:
        return bytes(
            imagecodecs.avif_encode(
                samples,
                _LOSSLESS if lossless else quality,
                speed=_SPEED,
                pixelformat="yuv400" if gray else _FORMATS[sampling],
                primaries=points.primaries,
                transfer=points.transfer,
                matrix=points.matrix,
                numthreads=1,
            )
        )
    except (imagecodecs.AvifError, KeyError) as error:
        raise ValueError(f"its colours or their sampling: {error}") from error


def claimed_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of each AV1 stream found; empty for other content."""
    if data[4:8] != b"ftyp":
        return []
    found = (av1.sequence(data, at) for at in _streams(data))
    return [(one.width, one.height) for one in found if one is not None]


def _streams(data: bytes) -> Iterator[int]:
    """Where each AV1 stream, or its configuration, may start."""
    inner = _inner(data, 0, len(data), _DEPTH)
    found = [one for one in inner if one[0] in (b"av1C", b"iloc", b"idat")]
    for kind, start, end in found:
        if kind == b"av1C":
            yield start + 4
        elif kind == b"iloc":
            for in_file, offset in _item_offsets(data[start:end]):
                bases = [0] if in_file else [at for kind, at, _ in found if kind == b"idat"]
                yield from (base + offset for base in bases)


AVIF = ImageFormat(
    "avif",
    recognises=lambda data: bool(heif_header.brands(data) & _BRANDS),
    inspect=inspect,
    encode=encode,
    decode=decode,
    claimed_sizes=claimed_sizes,
    holds_cicp=True,
)


def _inner(data: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end of the content) of each box, and of those inside it."""
    for one in boxes(data, at, end):
        yield one.kind, one.content, one.end
        if one.kind in _BOXES_OF_BOXES and depth > 1:
            yield from _inner(data, one.content + _BOXES_OF_BOXES[one.kind], one.end, depth - 1)


def _item_offsets(iloc: bytes) -> Iterator[tuple[bool, int]]:
    """Where each item starts, given the content of the box ``iloc``: in the file, or in ``idat``.

    Of no more items than a file may have.
    """
    bits = av1.Bits(iloc)
    version = bits.take(8)
    bits.skip(24)
    offset_size, length_size, base_size, index_size = (8 * bits.take(4) for _ in range(4))
    index_size *= version > 0
    for _ in range(min(bits.take(32 if version == 2 else 16), ITEMS_MAX)):
        bits.skip(32 if version == 2 else 16)
        in_file = version == 0 or bits.take(16) & 15 == 0
        bits.skip(16)
        base, extents = bits.take(base_size), bits.take(16)
        start = av1.Bits(iloc, bits.at + index_size)
        bits.skip(extents * (index_size + offset_size + length_size))
        if bits.spent:
            return
        if extents:
            yield in_file, base + start.take(offset_size)
