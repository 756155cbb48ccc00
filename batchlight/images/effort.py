"""Images that are made to take much longer than their size tells: refused before they are decoded.

A progressive JPEG is decoded as a whole once for each of its scans, and 36 bytes make one; cameras
and encoders write about ten. Layout: ITU-T T.81, annex B.
"""

from __future__ import annotations

from PIL import Image

from batchlight.errors import ErrorCode, ImageError

SCANS_AT_MOST = 100

_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
_NO_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


def refuse_many_scans(data: bytes) -> None:
    """Raise ``ImageError`` for a JPEG of more scans than any encoder writes."""
    if not data.startswith(_SOI):
        return
    at = _first_scan(data)
    # In what is coded, a marker cannot stand by chance: 0xff is followed by zero there.
    end = data.find(_EOI, at)
    if at >= 0 and data.count(_SOS, at, end if end >= 0 else len(data)) > SCANS_AT_MOST:
        raise ImageError(
            ErrorCode.UNSUPPORTED, f"a JPEG of more than {SCANS_AT_MOST} scans takes too long"
        )


def has_several_pages(image: Image.Image) -> bool:
    """Whether there is a second page or frame; those after it are not looked for.

    Pillow counts the pages of a TIFF in a time that is quadratic in their number.
    """
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _first_scan(data: bytes) -> int:
    """Where the first scan begins, past segments that may hold other JPEGs; -1 if nowhere."""
    at = len(_SOI)
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            at += 1
        elif marker == _SOS[1]:
            return at
        elif marker == 0xFF:
            at += 1
        elif marker in _NO_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return -1
