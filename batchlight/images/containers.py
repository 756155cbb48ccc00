"""Metadata inside image files: taken out of one container, put into another, bytes to bytes.

OpenCV's own metadata functions lose what a data set needs (XMP in PNG, ICC in AVIF, profiles over
64 KB in JPEG, resolution, comments), so JPEG and PNG are spliced here: between two files of the
same format the metadata blocks go over verbatim, between formats as the payloads EXIF, XMP and ICC.
TIFF gets tags of its own beside those of the encoder.
Source of the layouts: JPEG (ITU-T T.81 annex B, Exif 2.3, ICC.1 annex B.4, XMP part 3), PNG
(W3C, third edition) and TIFF (revision 6.0).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EXIF_PREFIX = b"Exif\x00\x00"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
ICC_PREFIX = b"ICC_PROFILE\x00"

_JPEG_SOS, _JPEG_COMMENT = 0xDA, 0xFE
_JPEG_APP0, _JPEG_APP1, _JPEG_APP2, _JPEG_APP13 = 0xE0, 0xE1, 0xE2, 0xED
_JPEG_SEGMENT_MAX = 65533
_JPEG_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""Markers that no length follows: none at all, TEM and the restarts."""

# Everything about an image but its pixels, its palette and its transparency.
_PNG_METADATA = frozenset(
    b"gAMA cHRM sRGB iCCP cICP mDCV cLLI pHYs eXIf tEXt zTXt iTXt tIME".split()
)
_PNG_XMP = b"XML:com.adobe.xmp"
PNG_TEXT_MAX = 2**24
"""Bytes of a compressed text or profile that are looked at; more is a decompression bomb."""

_TIFF_EXTRA_SAMPLES, _TIFF_XMP, _TIFF_ICC = 338, 700, 34675
_TIFF_BYTE, _TIFF_SHORT, _TIFF_UNDEFINED = 1, 3, 7
UNASSOCIATED_ALPHA = 2
"""Of the TIFF tag ExtraSamples: colours that are not multiplied by alpha."""

_ORIENTATION_TAG = 0x0112
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[0-9]')


@dataclass(frozen=True)
class Metadata:
    """What an image file says about itself beside its pixels."""

    exif: bytes | None = None
    """A TIFF structure, without JPEG's ``Exif`` prefix."""

    xmp: bytes | None = None
    """The XMP packet, without JPEG's namespace prefix."""

    icc: bytes | None = None
    """The whole colour profile."""

    native: dict[str, bytes] = field(default_factory=dict)
    """By format, the blocks as they stood in the file, to go verbatim into one of that format."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1..8; 1 where there is none."""
        place = _orientation_place(self.exif or b"")
        if place is None or self.exif is None:
            return 1
        offset, order = place
        value: int = struct.unpack_from(order + "H", self.exif, offset)[0]
        return value if 1 <= value <= 8 else 1

    def upright(self) -> Metadata:
        """The same for pixels that have been turned: orientation 1, nothing verbatim.

        XMP may repeat the orientation, and some readers believe it where EXIF has none.
        """
        exif = self.exif
        if exif is not None and (place := _orientation_place(exif)) is not None:
            offset, order = place
            exif = exif[:offset] + struct.pack(order + "H", 1) + exif[offset + 2 :]
        xmp = None if self.xmp is None else _XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        return Metadata(exif, xmp, self.icc)


def native_blocks(data: bytes, format: str) -> dict[str, bytes]:
    """The metadata blocks of a JPEG or PNG file as they stand; empty for other formats."""
    if format == "jpeg":
        kept = [
            (kind, data[start:end])
            for start, end, kind in _jpeg_segments(data)
            if _is_metadata(data, start, kind)
        ]
        # JFIF must come first, but some cameras write it after EXIF.
        kept.sort(key=lambda block: block[0] != _JPEG_APP0)
        return {format: b"".join(block for _, block in kept)}
    if format == "png":
        return {format: b"".join(c for kind, c in _png_chunks(data) if kind in _PNG_METADATA)}
    return {}


def png_is_whole(data: bytes) -> bool:
    """Whether the chunks of a PNG file lie within it, pixels among them, metadata as written.

    A decoder may reserve what a chunk claims to hold, even behind an end without pixels: up to
    4 GB for a few damaged bytes. And readers refuse a file for the checksum of metadata, even if
    their decoders do not mind.
    """
    has_pixels = False
    for kind, at, end in _png_places(data):
        if kind == b"IEND":
            return has_pixels and end <= len(data)
        has_pixels |= kind == b"IDAT"
        if kind in _PNG_METADATA:
            checked = memoryview(data)[at + 4 : end - 4]
            if data[end - 4 : end] != zlib.crc32(checked).to_bytes(4, "big"):
                return False
    return False


def png_payloads(data: bytes) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP of a PNG file, wherever they stand in it: before or after the pixels."""
    exif = xmp = None
    for kind, chunk in _png_chunks(data):
        if kind == b"eXIf":
            exif = chunk[8:-4].removeprefix(EXIF_PREFIX)
        elif kind == b"iTXt" and chunk[8:].startswith(_PNG_XMP + b"\x00"):
            xmp = _international_text(chunk[8 + len(_PNG_XMP) + 1 : -4])
    return exif or None, xmp or None


def with_jpeg_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Put metadata into a freshly encoded JPEG that has none.

    Raises ``ValueError`` for EXIF or XMP too long for a JPEG segment (64 KB).
    """
    blocks = metadata.native.get("jpeg")
    if blocks is None:
        blocks = b"".join(_jpeg_blocks(metadata))
    if not blocks:
        return data
    # The encoder's JFIF header comes first and stays first, unless the original brings its own.
    _, header_end, _ = next(_jpeg_segments(data))
    own_header = b"" if blocks[1] == _JPEG_APP0 else data[2:header_end]
    return data[:2] + own_header + blocks + data[header_end:]


def with_png_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Put metadata into a freshly encoded PNG that has none."""
    blocks = metadata.native.get("png")
    if blocks is None:
        blocks = b"".join(_png_blocks(metadata))
    header_end = len(PNG_SIGNATURE) + 25  # IHDR is always first and always 13 bytes long
    return data[:header_end] + blocks + data[header_end:]


def gray_alpha_png(gray_png: bytes, samples: bytes, row_bytes: int) -> bytes:
    """Turn an encoded gray PNG into gray with alpha, which OpenCV cannot write.

    ``samples``: the rows of interleaved gray and alpha, big-endian, without filter bytes.
    """
    header = bytearray(gray_png[16:29])
    header[9] = 4  # colour type: gray with alpha
    rows = (samples[at : at + row_bytes] for at in range(0, len(samples), row_bytes))
    pixels = zlib.compress(b"".join(b"\x00" + row for row in rows), 6)
    return b"".join(
        [
            PNG_SIGNATURE,
            _png_chunk(b"IHDR", bytes(header)),
            _png_chunk(b"IDAT", pixels),
            _png_chunk(b"IEND", b""),
        ]
    )


def with_tiff_metadata(data: bytes, metadata: Metadata, extra_samples: int | None) -> bytes:
    """Put XMP, ICC and the kind of alpha into a freshly encoded TIFF file of one page.

    ``extra_samples``: the value of the tag of that name; None for none.
    """
    tags: dict[int, tuple[int, bytes]] = {}
    if extra_samples is not None:
        tags[_TIFF_EXTRA_SAMPLES] = (_TIFF_SHORT, extra_samples.to_bytes(2, "little"))
    if metadata.xmp:
        tags[_TIFF_XMP] = (_TIFF_BYTE, metadata.xmp)
    if metadata.icc:
        tags[_TIFF_ICC] = (_TIFF_UNDEFINED, metadata.icc)
    return _with_tiff_tags(data, tags) if tags else data


def webp_is_lossless(data: bytes) -> bool:
    """Whether a still WebP file's pixels are in the lossless encoding (a VP8L chunk)."""
    pixels = (kind for kind, _ in _webp_chunks(data) if kind in (b"VP8L", b"VP8 "))
    return next(pixels, None) == b"VP8L"


def webp_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of a WebP file, each time that it is said; empty for other content."""
    found = []
    for kind, body in _webp_chunks(data):
        if kind == b"VP8X":
            found.append((_little(body[4:7]) + 1, _little(body[7:10]) + 1))
        elif kind == b"VP8L":
            bits = _little(body[1:5])
            found.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        elif kind == b"VP8 ":
            found.append((_little(body[6:8]) & 0x3FFF, _little(body[8:10]) & 0x3FFF))
    return found


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, start of the content, up to 10 bytes) of each chunk; none of other content."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    at = 12
    while at + 8 <= len(data):
        size = _little(data[at + 4 : at + 8])
        yield data[at : at + 4], data[at + 8 : at + 18]
        at += 8 + size + (size & 1)


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, end, marker) of each segment before the pixels."""
    at = 2
    # Decoders skip padding, markers without content, and garbage between segments.
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _JPEG_BARE:
            at += 2
            continue
        if marker == _JPEG_SOS:
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + max(2, length)
        if end > len(data):
            return
        if length >= 2:  # it counts itself
            yield at, end, marker
        at = end


def _is_metadata(data: bytes, start: int, marker: int) -> bool:
    payload = data[start + 4 : start + 4 + len(XMP_PREFIX)]
    if marker == _JPEG_APP0:
        return payload.startswith(b"JFIF\x00")
    if marker == _JPEG_APP2:  # not the index of a multi-picture file
        return payload.startswith(ICC_PREFIX)
    return marker in (_JPEG_APP1, _JPEG_APP13, _JPEG_COMMENT)


def _jpeg_blocks(metadata: Metadata) -> Iterator[bytes]:
    if metadata.exif:
        yield _jpeg_segment(_JPEG_APP1, EXIF_PREFIX + metadata.exif)
    if metadata.xmp:
        yield _jpeg_segment(_JPEG_APP1, XMP_PREFIX + metadata.xmp)
    if metadata.icc:
        size = _JPEG_SEGMENT_MAX - len(ICC_PREFIX) - 2
        parts = [metadata.icc[at : at + size] for at in range(0, len(metadata.icc), size)]
        if len(parts) > 255:
            raise ValueError("the colour profile is too long for a JPEG file")
        for number, part in enumerate(parts, 1):
            yield _jpeg_segment(_JPEG_APP2, ICC_PREFIX + bytes([number, len(parts)]) + part)


def _jpeg_segment(marker: int, payload: bytes) -> bytes:
    if len(payload) > _JPEG_SEGMENT_MAX:
        raise ValueError("its EXIF or XMP is over 64 KB, which a JPEG file cannot hold")
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, whole chunk) of each chunk, up to the end of the image."""
    for kind, at, end in _png_places(data):
        if kind == b"IEND":
            return
        yield kind, data[at:end]


def _png_places(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk, even if its end lies behind that of the file."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _international_text(data: bytes) -> bytes | None:
    """The text of a PNG iTXt chunk, given what follows its keyword; None if it is damaged."""
    try:
        _language, _translation, text = data[2:].split(b"\x00", 2)
        if data[0]:
            inflater = zlib.decompressobj()
            text = inflater.decompress(text, PNG_TEXT_MAX)
            return text if inflater.eof else None
    except (ValueError, IndexError, zlib.error):
        return None
    return text


def _png_blocks(metadata: Metadata) -> Iterator[bytes]:
    if metadata.icc:
        yield _png_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(metadata.icc))
    if metadata.exif:
        yield _png_chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield _png_chunk(b"iTXt", _PNG_XMP + b"\x00\x00\x00\x00\x00" + metadata.xmp)


def _png_chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(4, "big")
        + kind
        + payload
        + zlib.crc32(kind + payload).to_bytes(4, "big")
    )


def _with_tiff_tags(data: bytes, tags: Mapping[int, tuple[int, bytes]]) -> bytes:
    """Add tags, by number their type and little-endian value, that the file has not yet."""
    if data[:4] != b"II*\x00":
        raise ValueError("the encoder's TIFF is not of the classic little-endian kind")
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    first = directory + 2
    entries = {
        struct.unpack_from("<H", data, at)[0]: data[at : at + 12]
        for at in range(first, first + 12 * count, 12)
    }
    # Values that do not fit an entry, then a new directory, go behind what is there.
    out = bytearray(data)
    for tag, (kind, value) in tags.items():
        items = len(value) // (2 if kind == _TIFF_SHORT else 1)
        field = value.ljust(4, b"\x00")
        if len(value) > 4:
            out += b"\x00" * (len(out) & 1)
            field = struct.pack("<I", len(out))
            out += value
        entries[tag] = struct.pack("<HHI", tag, kind, items) + field
    out += b"\x00" * (len(out) & 1)
    struct.pack_into("<I", out, 4, len(out))
    out += struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    return bytes(out + b"\x00" * 4)


def _orientation_place(exif: bytes) -> tuple[int, str] | None:
    """Where the orientation's value stands in a TIFF structure, and the byte order."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 10:
        return None
    directory = struct.unpack_from(order + "I", exif, 4)[0]
    if directory + 2 > len(exif):
        return None
    for index in range(struct.unpack_from(order + "H", exif, directory)[0]):
        entry = directory + 2 + 12 * index
        if entry + 12 > len(exif):
            return None
        if struct.unpack_from(order + "H", exif, entry)[0] == _ORIENTATION_TAG:
            return entry + 8, order
    return None
