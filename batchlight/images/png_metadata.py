"""A PNG file's metadata in the terms that all formats share, and those written as chunks.

Layout: W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import chain

from batchlight.images import colour, exif, photoshop, png_text, xmp
from batchlight.images.chunks import png_chunk
from batchlight.images.metadata import Cicp, Metadata, ratio_within
from batchlight.images.png_carry import GRAY, GRAY_ALPHA, Carried

_RAW = (png_text.RAW_EXIF, png_text.RAW_IPTC, png_text.RAW_APP1, png_text.RAW_XMP)
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_KNOWN = frozenset({*_TEXTS, b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs"})
_NAMES = {
    b"PLTE": "palette",
    b"sPLT": "suggested palette",
    b"hIST": "suggested palette",
    b"tIME": "modification time",
    b"caBX": "Content Credentials",
}
_METRE = 1
_SRGB_GAMMA = 45455
_SCALE = 100_000
"""Scale of gAMA and cHRM."""
_SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_KEYWORD_MAX = 79
_DENSITY_MAX = 2**31 - 1


def read(carried: Carried) -> Metadata:
    """The metadata of a file, from before and after the pixels."""
    block = carried.get(b"eXIf")
    block = block.removeprefix(exif.PREFIX) if block else None
    iptc, packets = None, list[bytes]()
    texts: list[tuple[str, str]] = []
    others = [
        _NAMES.get(k, f"{k.decode('latin-1')} chunk")
        for k, _ in carried.chunks
        if k not in _KNOWN and k != b"tRNS"
    ]
    for kind, payload in carried.chunks:
        if kind not in _TEXTS:
            continue
        if payload.startswith(_RAW):
            raw = png_text.raw_profile(kind, payload) or b""
            if payload.startswith(png_text.RAW_IPTC):
                iptc = photoshop.iptc_alone(raw) or None
            elif payload.startswith(png_text.RAW_XMP) or raw.startswith(xmp.PREFIX):
                packets.append(raw.removeprefix(xmp.PREFIX))
            else:
                block = block or raw.removeprefix(exif.PREFIX) or None
        elif kind == b"iTXt" and payload.startswith(png_text.XMP_KEYWORD + b"\0"):
            packets.append(png_text.international(payload) or b"")
        elif (text := _text(kind, payload)) is not None:
            texts.append(text)
        else:
            others.append("text")
    density, aspect = _density(carried.get(b"pHYs"), block)
    icc, cicp = _colours(carried)
    if carried.get(b"iCCP") is not None and icc is None and cicp is None:
        others.append("damaged colour profile")
    others += ["data behind the image"] if carried.trailer else []
    others += ["second XMP"] if packets[1:] else []
    narrow = (carried.get(b"cICP") or b"")[3:] == b"\0"
    return Metadata(
        exif=block,
        xmp=packets[0] or None if packets else None,
        icc=icc,
        iptc=iptc,
        texts=tuple(texts),
        density=density,
        aspect=aspect,
        cicp=cicp,
        others=tuple(others),
        inexpressible="its samples of narrow range" if narrow else None,
    )


def _text(kind: bytes, payload: bytes) -> tuple[str, str] | None:
    if kind == b"iTXt":
        text = png_text.international(payload)
        if text is None:
            return None
        return payload.split(b"\0", 1)[0].decode("latin-1"), text.decode(errors="replace")
    found = png_text.plain(kind, payload)
    return None if found is None else (found[0].decode("latin-1"), found[1].decode("latin-1"))


def _density(
    phys: bytes | None, block: bytes | None
) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    """Pixels per metre; or, if the unit is unknown, the shape of a pixel that is not square."""
    if phys is None or len(phys) != 9:
        return None, None
    x, y, unit = struct.unpack(">IIB", phys)
    if not (x and y):
        return None, None
    if unit == _METRE:
        return (None if exif.density(block) else (float(x), float(y))), None
    return None, None if x == y else (x, y)


def _colours(carried: Carried) -> tuple[bytes | None, Cicp | None]:
    """A profile or code points, by the precedence of the chunks that define them."""
    cicp = carried.get(b"cICP")
    if cicp is not None and len(cicp) == 4:
        found = Cicp(cicp[0], cicp[1], cicp[2], bool(cicp[3]))
        if not found.is_srgb:
            return None, found
        if carried.get(b"iCCP") is None:
            return None, None
    iccp = carried.get(b"iCCP")
    if iccp is not None:
        _name, _, rest = iccp.partition(b"\0")
        return png_text.inflated(rest[1:]) or None, None
    if carried.get(b"sRGB") is not None:
        return None, None
    return _made_profile(carried), None


def _made_profile(carried: Carried) -> bytes | None:
    """A profile equivalent to gAMA and cHRM; None if that is sRGB."""
    gama, chrm = carried.get(b"gAMA") or b"", carried.get(b"cHRM") or b""
    gamma = int.from_bytes(gama, "big") if len(gama) == 4 else _SRGB_GAMMA
    points = struct.unpack(">8I", chrm) if len(chrm) == 32 else _SRGB_CHROMATICITIES
    if not gamma or (gamma == _SRGB_GAMMA and points == _SRGB_CHROMATICITIES):
        return None
    curve = colour.CURVES[13] if gamma == _SRGB_GAMMA else (_SCALE / gamma,)
    if carried.kind in (GRAY, GRAY_ALPHA):
        return None if gamma == _SRGB_GAMMA else colour.gray_profile(curve)
    a, b, c, d, e, f, g, h = (point / _SCALE for point in points)
    return colour.profile(colour.Colours((a, b, c, d, e, f, g, h), curve))


def converted(metadata: Metadata) -> tuple[bytes, tuple[str, ...]]:
    """The chunks for an image of another format, and the names of what they cannot hold."""
    held = {"EXIF", "XMP", "colour profile", "IPTC", "comment", "text", "resolution"}
    if metadata.density is not None and not _holds(metadata.density):
        held.remove("resolution")
    return b"".join(chain(_described(metadata), _texts(metadata))), metadata.lost(held)


def _holds(density: tuple[float, float]) -> bool:
    """Whether pixels per metre can be stated: whole numbers, of which 0 means nothing."""
    return all(1 <= round(value) <= _DENSITY_MAX for value in density)


def _described(metadata: Metadata) -> Iterator[bytes]:
    if metadata.cicp is not None:
        points = bytes([metadata.cicp.primaries, metadata.cicp.transfer, 0, 1])
        yield png_chunk(b"cICP", points)
    if metadata.icc:
        yield png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    density = metadata.resolution
    if density is not None and _holds(density):
        x, y = (round(value) for value in density)
        yield png_chunk(b"pHYs", struct.pack(">IIB", x, y, _METRE))
    elif metadata.aspect is not None:
        x, y = ratio_within(metadata.aspect, _DENSITY_MAX)
        yield png_chunk(b"pHYs", struct.pack(">IIB", x, y, 0))
    if metadata.exif:
        yield png_chunk(b"eXIf", metadata.exif)


def _texts(metadata: Metadata) -> Iterator[bytes]:
    if metadata.xmp:
        yield png_chunk(b"iTXt", png_text.XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp)
    if metadata.iptc:
        profile = png_text.new_raw_profile(png_text.RAW_IPTC, b"iptc", metadata.iptc)
        yield png_chunk(b"zTXt", profile)
    for keyword, text in metadata.texts:
        name = keyword.encode("latin-1", "replace")[:_KEYWORD_MAX] or b"Comment"
        try:
            yield png_chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            yield png_chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())
