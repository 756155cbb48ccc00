"""A PNG file's metadata in the terms that all formats share, and those written as chunks.

Layout: W3C, Portable Network Graphics, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from batchlight.images import colour, exif, photoshop, png_text, xmp
from batchlight.images.chunks import png_chunk
from batchlight.images.metadata import Cicp, Metadata, ratio_within
from batchlight.images.png_carry import GRAY, GRAY_ALPHA, Carried
from batchlight.images.png_text import Inflater

_KNOWN = png_text.TEXTS | {b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs"}
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
    texts = _Texts(Inflater(), block.removeprefix(exif.PREFIX) if block else None)
    icc, cicp = _colours(carried, texts.inflater)
    others = [
        _NAMES.get(k, f"{k.decode('latin-1')} chunk")
        for k, _ in carried.chunks
        if k not in _KNOWN and k != b"tRNS"
    ]
    for kind, payload in carried.chunks:
        if kind in png_text.TEXTS:
            texts.add(kind, payload)
    density, aspect = _density(carried.get(b"pHYs"), texts.exif)
    if carried.get(b"iCCP") is not None and icc is None and cicp is None:
        others.append("damaged colour profile")
    others += ["data behind the image"] if carried.trailer else []
    others += ["second XMP"] if texts.packets[1:] else []
    narrow = (carried.get(b"cICP") or b"")[3:] == b"\0"
    return Metadata(
        exif=texts.exif,
        xmp=texts.packets[0] or None if texts.packets else None,
        icc=icc,
        iptc=texts.iptc,
        texts=tuple(texts.texts),
        density=density,
        aspect=aspect,
        cicp=cicp,
        others=(*others, *texts.others),
        inexpressible="its samples of narrow range" if narrow else None,
    )


@dataclass
class _Texts:
    """What the texts of a file contain."""

    inflater: Inflater
    exif: bytes | None
    iptc: bytes | None = None
    packets: list[bytes] = field(default_factory=list)
    """Of XMP."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def add(self, kind: bytes, payload: bytes) -> None:
        """One more chunk."""
        if payload.startswith(png_text.RAW):
            self._add_raw(payload, self.inflater.raw_profile(kind, payload) or b"")
            return
        text = self.inflater.text(kind, payload)
        if payload.startswith(png_text.XMP_KEYWORD):
            self.packets.append(text or b"")
        elif text is None:
            self.others.append("text")
        else:
            coding = "utf-8" if kind == b"iTXt" else "latin-1"
            keyword = payload.split(b"\0", 1)[0].decode("latin-1")
            self.texts.append((keyword, text.decode(coding, errors="replace")))

    def _add_raw(self, payload: bytes, raw: bytes) -> None:
        resources = raw.removeprefix(photoshop.APP13_PREFIX)
        if payload.startswith(png_text.RAW_IPTC):
            self.iptc = photoshop.iptc_alone(raw) or None
            self.others += photoshop.not_shared(resources)
        elif payload.startswith(png_text.RAW_8BIM):
            self.iptc = self.iptc or photoshop.iptc(resources)
            self.others += photoshop.not_shared(resources)
        elif payload.startswith(png_text.RAW_XMP) or raw.startswith(xmp.PREFIX):
            self.packets.append(raw.removeprefix(xmp.PREFIX))
        else:
            self.exif = self.exif or raw.removeprefix(exif.PREFIX) or None


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


def _colours(carried: Carried, inflater: Inflater) -> tuple[bytes | None, Cicp | None]:
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
        return inflater.inflated(rest[1:]) or None, None
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
        yield png_chunk(b"iTXt", png_text.XMP_KEYWORD + b"\0\0\0\0" + metadata.xmp)
    if metadata.iptc:
        profile = png_text.new_raw_profile(png_text.RAW_IPTC, b"iptc", metadata.iptc)
        yield png_chunk(b"zTXt", profile)
    for keyword, text in metadata.texts:
        name = keyword.encode("latin-1", "replace")[:_KEYWORD_MAX] or b"Comment"
        try:
            yield png_chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
        except UnicodeEncodeError:
            yield png_chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())
