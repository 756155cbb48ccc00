"""JPEG: 8 bits, gray or colour, sequential or progressive.

simplejpeg (libjpeg-turbo) decodes, as only it reports damage that libjpeg just warns about; OpenCV
encodes. The rest of the file is carried over (``jpeg_carry``), or converted (``jpeg_metadata``).
Layout: ITU-T T.81 annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import simplejpeg

from batchlight.errors import ImageError
from batchlight.images import jpeg_carry, jpeg_metadata, mpf, opencv, xmp
from batchlight.images.effort import bounded_scans
from batchlight.images.image import Decoded, Encoded, Header, check_size
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels
from batchlight.images.segments import (
    APP0,
    APP1,
    APP2,
    APP14,
    EOI,
    FRAMES,
    SOS,
    Segment,
    after_scan,
    segment,
    segments,
)
from batchlight.images.thumbnails import Picture

_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_LS_FRAME = 0xF7
"""ITU-T T.87, SOF55."""
_MODES = {1: "L", 3: "RGB"}

_SAMPLINGS = {
    (1, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    (2, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    (2, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    (1, 2): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    (4, 1): cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
"""(horizontal, vertical) sampling of luminance relative to chrominance, to OpenCV's constant: what
the encoder can write."""

_SURPLUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
"""Left by some encoders after the last block; the image is complete without it."""
_SURPLUS_ROUNDS = 8
"""Only part of the stuffed bytes are counted each time."""
_SURPLUS_MAX = 32
"""Bytes: what is left of a buffer that hardware fills in units. More is filler, or coded data whose
blocks have lost their places."""
_READ_AHEAD = 16
"""Bytes that libjpeg may have read beyond the last block without counting them, rounded up: filler
that starts before has overwritten coded data."""
_PICTURES_LOOKED_AT = 8
"""How many JPEG files after the image are searched for its gain map."""
_START = b"\xff\xd8\xff"
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_OTHER_CODING = re.compile(
    r"Sorry|Unsupported|.*not implemented|.*Could not determine subsampling", re.IGNORECASE
)
"""What libjpeg reads and TurboJPEG does not: arithmetic coding, factors that could be halved."""


@dataclass(frozen=True)
class _Frame:
    """The frame header of the coded image: its kind, size, and the sampling of each component."""

    marker: int
    width: int
    height: int
    samplings: tuple[tuple[int, int], ...]


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header with its sampling, and everything but the coded image."""
    found = list(segments(data))
    frame = _frame(found)
    if not found or found[-1].marker != SOS:
        raise ImageError.corrupt("the file is damaged or cut short before its pixels")
    check_size(frame.width, frame.height, max_pixels)
    later, end = _scans(data, found)
    pictures = _pictures(found, data, (frame.width, frame.height), end)
    if any(one.name is None for one in pictures):
        raise ImageError.unsupported("several pictures cannot be kept; split the file first")
    carried = jpeg_carry.take(data, [*found, *later], end, pictures)
    metadata = jpeg_metadata.read(carried)
    return Header(
        "jpeg",
        frame.width,
        frame.height,
        _MODES[len(frame.samplings)],
        metadata,
        orientation=metadata.orientation,
        sampling=_sampling(frame.samplings),
        carried=carried,
    )


def _scans(data: bytes, found: Sequence[Segment]) -> tuple[list[Segment], int]:
    """The segments after the start of the first scan, and where the image ends."""
    later = list(bounded_scans(after_scan(data, found[-1].end))) if found else []
    is_whole = bool(later) and later[-1].marker == EOI
    return later, later[-1].start + 2 if is_whole else len(data)


def _frame(found: Sequence[Segment]) -> _Frame:
    """The frame header. Raises ``ImageError`` for a kind that is not read."""
    if any(one.marker == _LS_FRAME for one in found):
        raise ImageError.unsupported("the content is JPEG-LS, which batchlight does not read")
    header = next((one for one in found if one.marker in FRAMES), None)
    if header is None or len(header.payload) < 6:
        raise ImageError.corrupt("the file is damaged or cut short before its pixels")
    payload, marker = header.payload, header.marker
    if marker not in _SEQUENTIAL | _PROGRESSIVE:
        kind = "lossless" if marker & 3 == 3 else "hierarchical"
        raise ImageError.unsupported(f"{kind} JPEG cannot be read")
    if payload[0] != 8:
        raise ImageError.unsupported(f"{payload[0]}-bit JPEG cannot be read")
    parts = payload[6 : 6 + 3 * payload[5]]
    samplings = tuple((parts[at] >> 4, parts[at] & 15) for at in range(1, len(parts), 3))
    height, width = (int.from_bytes(payload[at : at + 2], "big") for at in (1, 3))
    if width and not height:
        reason = "JPEG whose height follows its pixels (DNL) cannot be read"
        raise ImageError.unsupported(reason)
    if not (width and height) or len(parts) != 3 * payload[5] or (0 in sum(samplings, ())):
        raise ImageError.corrupt("the header is damaged: an image without pixels")
    if len(samplings) not in _MODES:
        kind = "CMYK colours" if len(samplings) == 4 else f"{len(samplings)} channels"
        raise ImageError.unsupported(f"{kind} cannot be kept")
    return _Frame(marker, width, height, samplings)


def _sampling(samplings: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The sampling of luminance relative to chrominance. Raises ``ImageError`` if not supported."""
    if len(samplings) == 1:
        return (1, 1)
    (across, down), *colours = samplings
    one = colours[0]
    relative = (across // one[0], down // one[1])
    exact = across % one[0] == 0 and down % one[1] == 0 and len({*colours}) == 1
    if not exact or relative not in _SAMPLINGS:
        shown = ", ".join(f"{a}x{b}" for a, b in samplings)
        raise ImageError.unsupported(f"JPEG with {shown} sampling cannot be kept")
    return relative


def _pictures(
    found: Sequence[Segment], data: bytes, size: tuple[int, int], end: int
) -> list[mpf.Further]:
    """The pictures after the first, which ends at ``end``: those of the index, and a gain map."""
    pictures: list[mpf.Further] = []
    for one in found:
        if one.marker == APP2 and one.payload.startswith(mpf.PREFIX):
            start = one.start + 4 + len(mpf.PREFIX)
            pictures = mpf.further(one.payload[len(mpf.PREFIX) :], start, data, size)
            break
    if all(one.name != "gain map" for one in pictures):
        packets = [one.payload for one in found if one.marker == APP1]
        iso = jpeg_carry.with_prefix(found, APP2, mpf.GAIN_MAP_URN)
        if iso or any(map(xmp.tells_of_gain_map, packets)):
            listed = any(map(xmp.lists_gain_map, packets))
            pictures += _gain_map(data, end, pictures, listed)
    return pictures


def _gain_map(
    data: bytes, end: int, others: Sequence[mpf.Further], listed: bool
) -> Iterator[mpf.Further]:
    """The gain map of which the metadata tell, among the JPEG files after the image: by its own.

    If it is ``listed`` but has no such metadata, it is what follows the image, apart from padding.
    """
    at, plain = end, None
    for _ in range(_PICTURES_LOOKED_AT):
        at = data.find(_START, at)
        if at < 0:
            break
        within = next((one for one in others if one.start <= at < one.end), None)
        if within is not None:
            at = within.end
            continue
        behind = data[at:]
        length = _length(behind)
        found = mpf.Further(at, at + length, "gain map")
        if mpf.is_gain_map(behind[:length]):
            yield found
            return
        if listed and not data[end:at].strip(b"\0"):
            plain = found
        at += len(_START)
    if plain is not None:
        yield plain


def _length(data: bytes) -> int:
    """How long the JPEG file is with which the data begin."""
    *_, last = (None, *segments(data))
    *_, final = (None, *after_scan(data, last.end)) if last is not None else (None,)
    return final.start + 2 if final is not None and final.marker == EOI else len(data)


def decode(data: bytes, header: Header) -> Pixels | None:
    """The samples. Raises ``ValueError`` for libjpeg's warnings, unless they are harmless."""
    colours = "GRAY" if header.mode == "L" else "BGR"
    try:
        return _strictly(data, colours)
    except ValueError as error:
        if _OTHER_CODING.match(str(error)):
            return opencv.decode(data)
    # It may not concern pixels: the scan of Samsung phones, a version mark, garbage.
    return _strictly(_usual(data), colours)


def _strictly(data: bytes, colours: str) -> Pixels:
    surplus = b""
    for _ in range(_SURPLUS_ROUNDS):
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace=colours, strict=True)
            return pixels
        except ValueError as error:
            found = _SURPLUS.match(str(error))
            if not found:
                raise
            # A missing restart marker gives the same message, but then no image is left.
            start, end = _surplus(data, int(found[1]))
            surplus = data[start:end] + surplus
            if not _is_harmless(surplus, data[start - _READ_AHEAD : start]):
                raise
            data = data[:start] + data[end:]
    raise ValueError("Corrupt JPEG data: extraneous bytes")


def _surplus(data: bytes, count: int) -> tuple[int, int]:
    """Where the last ``count`` bytes before the end of the image are."""
    *_, scan = segments(data)
    *_, last = after_scan(data, scan.end)
    return max(scan.end, last.start - count), last.start


def _is_harmless(surplus: bytes, before: bytes) -> bool:
    """Whether bytes after the last block are few, or filler that does not start ``before`` them."""
    filler = len(set(surplus)) == 1 and not surplus.startswith(before)
    return len(surplus) <= _SURPLUS_MAX or filler


def _usual(data: bytes) -> bytes:
    """The same image with the parameters of other encoders, without metadata and garbage."""
    found = list(segments(data))
    out = bytearray(b"\xff\xd8")
    for one in found:
        if one.is_coding:
            out += data[one.start : one.end]
        elif one.marker == APP0 and one.payload.startswith(jpeg_carry.JFIF_PREFIX):
            out += _JFIF
        elif one.marker == APP14 and jpeg_carry.is_adobe(one):
            out += segment(APP14, one.payload[:11] + bytes([min(one.payload[11], 1)]))
    start = len(out)
    out += data[found[-1].end :]
    if any(one.marker in _SEQUENTIAL for one in found):
        scans = [one for one in after_scan(bytes(out), start) if one.marker == SOS]
        for end in (start, *(one.end for one in scans)):
            out[end - 3 : end] = bytes([0, 63, 0])
    return bytes(out)


def encode(decoded: Decoded, quality: int) -> Encoded:
    """A baseline JPEG with the same sampling."""
    header = decoded.header
    sampling = _SAMPLINGS.get(header.sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    if header.format != "jpeg":
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    data = opencv.encode(".jpg", decoded.samples, parameters)
    jfif = next(segments(data))
    if isinstance(header.carried, jpeg_carry.Carried):
        colours = 1 if decoded.pixels.ndim == 2 else 3
        picture = Picture(decoded.pixels)
        return Encoded.of(*jpeg_carry.put(header.carried, data[jfif.end :], colours, picture))
    head, lost = jpeg_metadata.converted(header.metadata, data[2 : jfif.end])
    return Encoded(data[:2] + head + data[jfif.end :], lost)


JPEG = ImageFormat(
    "jpeg",
    recognises=lambda data: data.startswith(_START),
    inspect=inspect,
    decode=decode,
    encode=encode,
    holds_alpha=False,
    holds_orientation=True,
    holds_aspect=True,
)
