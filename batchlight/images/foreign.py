"""Names of formats that are not read, for messages about a file."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image, UnidentifiedImageError

from batchlight.images.heif_header import brands

_STARTS: Mapping[bytes, str] = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"GIF8": "GIF",
    b"8BPS": "PSD",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"FUJIFILMCCD-RAW": "RAW of Fujifilm",
    b"IIRO": "RAW of Olympus",
    b"IIRS": "RAW of Olympus",
    b"IIU\0": "RAW of Panasonic",
    b"FOVb": "RAW of Sigma",
    b"\0MRM": "RAW of Minolta",
    b"II\xbc\x01": "JPEG XR",
    b"farbfeld": "farbfeld",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"\xabKTX": "KTX",
    b"SIMPLE  =": "FITS",
}
_BRANDS: Mapping[bytes, str] = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "HEIC"),
    b"crx ": "RAW of Canon",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"jxl ": "JPEG XL",
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"qt  "), "a video"),
}


def name_of(data: bytes) -> str | None:
    """The name of the format; None for unknown content."""
    for start, name in _STARTS.items():
        if data.startswith(start):
            return name
    found = brands(data)
    for brand, name in _BRANDS.items():
        if brand in found:
            return name
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format
    except UnidentifiedImageError:
        return None
