"""HEIF: still pictures of 8 bits in HEVC, as phones write them (HEIC); with the extra ``heif``.

pillow-heif (libheif) decodes and encodes the pixels; it turns and crops them as the file says.
Everything else in the file is carried over, as for AVIF.
Layouts: ISO/IEC 23008-12; ISO/IEC 14496-15 (hvcC).
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import pillow_heif

from batchlight.errors import ImageError
from batchlight.images import heif_carry, heif_file, heif_header, hevc
from batchlight.images.heif_carry import Carried
from batchlight.images.image import Decoded, Encoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels, turned_back
from batchlight.images.thumbnails import Picture

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis"})
_NOT_STILL = frozenset({b"avif", b"avis", b"hevc", b"hevx", b"msf1"})
_CHROMA, _LUMA_BITS = 16, 17
"""Bytes of hvcC that contain the chroma sampling, and the bits per sample less 8."""
_SAMPLINGS = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}
_CHROMAS = {(2, 2): 420, (2, 1): 422, (1, 1): 444}
_LOSSLESS, _IDENTITY = -1, 0
"""A quality, and the matrix with which colours are lossless as well."""
_PADDING = 1
"""Pixels that encoders add to an odd side, to be cropped again."""


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the coded picture."""
    carried = heif_carry.take(data)
    configuration = carried.configuration(b"hvcC")
    if configuration is None or len(configuration) <= _LUMA_BITS:
        raise ImageError.unsupported("HEIF with a coding other than HEVC cannot be kept")
    heif_header.require_depth(8 + (configuration[_LUMA_BITS] & 7), "heif")
    chroma, lossless = configuration[_CHROMA] & 3, hevc.is_lossless(configuration)
    sampling = _SAMPLINGS[chroma]
    header = heif_header.header("heif", carried, max_pixels, chroma == 0, sampling, lossless)
    return heif_header.cropped(header, carried, _PADDING)


def decode(data: bytes, header: Header) -> Pixels:
    """The samples as stored."""
    file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
    upright: Pixels = np.asarray(file[file.primary_index])
    if upright.ndim == 3:
        kind = cv2.COLOR_RGB2BGR if upright.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        upright = cv2.cvtColor(upright, kind)
    return turned_back(upright, header.orientation)


def encode(decoded: Decoded, quality: int) -> Encoded:
    """A HEIC with the sampling of the one that the image came from, lossless if that was."""
    header, carried, samples = decoded.header, decoded.header.carried, decoded.samples
    assert isinstance(carried, Carried)  # no other format is written as HEIC
    mode = "L"
    if samples.ndim == 3:
        mode = "RGB" if samples.shape[2] == 3 else "RGBA"
        kind = cv2.COLOR_BGR2RGB if mode == "RGB" else cv2.COLOR_BGRA2RGBA
        samples = cv2.cvtColor(samples, kind)
    height, width = samples.shape[:2]
    buffer = io.BytesIO()
    image = pillow_heif.from_bytes(mode=mode, size=(width, height), data=samples.tobytes())
    options = {} if mode == "L" else {"chroma": _CHROMAS[header.sampling]}
    if header.lossless:
        quality = _LOSSLESS
        if mode != "L" and carried.cicp is not None and carried.cicp.matrix == _IDENTITY:
            options["matrix_coefficients"] = _IDENTITY
    image.save(buffer, quality=quality, **options)
    picture = Picture(decoded.pixels)
    out = heif_file.put(carried, buffer.getvalue(), carried.cicp, picture, resized=True)
    return Encoded.of(*out)


HEIF = ImageFormat(
    "heif",
    recognises=lambda data: bool(
        (brands := heif_header.brands(data)) & _BRANDS and not brands & _NOT_STILL
    ),
    inspect=inspect,
    encode=encode,
    decode=decode,
)
