"""What an AVIF or HEIF file contains besides its coded picture, and carrying it into another one.

Layouts: ISO/IEC 23008-12, ISO/IEC 23000-22 (MIAF), AVIF 1.2 (gain maps), C2PA 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from batchlight.errors import ImageError
from batchlight.images import exif
from batchlight.images.boxes import UUID, Reader, box, boxes
from batchlight.images.items import TIMES_THE_FILE, Items, read
from batchlight.images.metadata import Cicp, Metadata

_ALPHA = (
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha",
    b"urn:mpeg:hevc:2015:auxid:1",
    b"urn:mpeg:avc:2015:auxid:1",
)
_GAIN_MAP = b"hdrgainmap"
_C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
CODED = frozenset({b"av1C", b"hvcC", b"pixi", b"a1op", b"a1lx", b"lsel"})
"""Properties that describe the coded picture."""
_KNOWN = CODED | {b"ispe", b"colr", b"pasp", b"clap", b"irot", b"imir", b"auxC"}
_LIGHT_LEVEL = b"clli"
"""The only descriptive property that decoders accept even where a file marks it as essential."""
_PICTURES = frozenset({b"av01", b"hvc1", b"grid", b"iden", b"iovl", b"tmap", b"jpeg", b"avc1"})
NCLX, PROFILES = b"nclx", (b"prof", b"rICC")
XMP_TYPE = b"application/rdf+xml"
EXIF_HEAD = 4
"""Bytes of the field with the offset of the TIFF structure, counted from its own end."""


@dataclass(frozen=True)
class Stream:
    """What the coded data of a picture, or of its first tile, state."""

    cicp: Cicp | None = None
    """Code points, which hold if the boxes state none."""
    lossless: bool = False


@dataclass(frozen=True)
class Carried:
    """A file without its coded picture."""

    top: tuple[tuple[bytes, bytes], ...]
    """Type and whole box of all top-level boxes; without content where ``meta`` and ``mdat`` go."""
    items: Items
    """The items of the picture have no data."""
    alpha: int | None
    left_out: tuple[str, ...]
    trailer: bytes
    stream: Stream

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        data = (len(item.data or b"") for item in self.items.items.values())
        return sum(data) + sum(len(whole) for _, whole in self.top) + len(self.trailer)

    @property
    def cicp(self) -> Cicp | None:
        """The code points of the picture; None if nothing states any."""
        for payload in self._colours(NCLX):
            if len(payload) >= 7:
                a, b, c = (int.from_bytes(payload[n : n + 2], "big") for n in (0, 2, 4))
                return Cicp(a, b, c, bool(payload[6] & 0x80))
        return self.stream.cicp

    @property
    def icc(self) -> bytes | None:
        """The colour profile of the picture."""
        found = (payload for kind in PROFILES for payload in self._colours(kind))
        return next(found, None) or None

    def _colours(self, kind: bytes) -> Iterator[bytes]:
        for index, _ in self.items.items[self.items.primary].properties:
            whole = self.items.properties[index]
            if whole[4:8] == b"colr" and whole[8:12] == kind:
                yield whole[12:]

    def metadata(self) -> Metadata:
        """In the terms that all formats share."""
        block = packet = None
        others = set(self.left_out)
        for item in self.items.items.values():
            if item.kind == b"Exif" and item.data:
                block = block or exif_block(item.data)[1]
            elif item.kind == b"mime" and item.content_type == XMP_TYPE:
                packet = packet or item.data
            elif item.kind not in _PICTURES:
                others.add(f"{item.kind.decode('latin-1')} item")
            elif item.number not in (self.items.primary, self.alpha):
                others.add("auxiliary picture")
        known = (b"ftyp", b"meta", b"mdat", b"free", b"skip")
        others |= {f"{k.decode('latin-1')} box" for k, _ in self.top if k not in known}
        others |= {"data behind the image"} if self.trailer else set()
        cicp = None if self.icc else self.cicp
        cicp = None if cicp is None or cicp.is_srgb else cicp
        others |= {f"{kind.decode('latin-1')} property" for kind in self._kinds() - _KNOWN}
        return Metadata(
            block,
            packet,
            self.icc,
            aspect=self._aspect(),
            cicp=cicp,
            others=tuple(sorted(others)),
        )

    def _kinds(self) -> set[bytes]:
        """The types of the picture's properties."""
        described = self.items.items[self.items.primary].properties
        return {self.items.properties[index][4:8] for index, _ in described}

    def _aspect(self) -> tuple[int, int] | None:
        """Pixels per length, across and down: the inverse of a pixel's own width and height."""
        spacing = self.items.property(self.items.primary, b"pasp") or b""
        if len(spacing) < 8:
            return None
        width, height = (int.from_bytes(spacing[at : at + 4], "big") for at in (0, 4))
        return (height, width) if width != height and width and height else None

    def configuration(self, kind: bytes) -> bytes | None:
        """The content of a property of the coded picture, or of its first tile."""
        tiles = self.items.targets(b"dimg", self.items.primary)
        for number in (self.items.primary, *tiles):
            if number in self.items.items:
                found = self.items.property(number, kind)
                if found is not None:
                    return found
        return None


def _unknown(coded: bytes) -> Stream:
    return Stream()


def take(data: bytes, read_stream: Callable[[bytes], Stream] = _unknown) -> Carried:
    """Everything but the coded picture and what would be stale for the new one.

    ``read_stream`` is given the coded data of the picture, or of its first tile.

    Raises ``ImageError`` for several pictures, ``ValueError`` for a damaged file.
    """
    top: list[tuple[bytes, bytes]] = []
    items, end = None, 0
    left_out = set()
    for one in boxes(data):
        end = one.end
        if one.kind == b"moov":
            raise ImageError.unsupported("an animation cannot be kept; split the file first")
        if one.kind == UUID and data[one.content : one.content + 16] == _C2PA_BOX:
            left_out.add("Content Credentials")
        elif one.kind == b"meta" and items is None:
            items = read(data, one.content, one.end)
            top.append((one.kind, b""))
        elif one.kind == b"mdat":
            top.append((one.kind, b""))
        else:
            top.append((one.kind, data[one.start : one.end]))
    if items is None:
        raise ValueError("no box 'meta'")
    alpha = alpha_of(items)
    if items.sources(b"prem", items.primary) or items.targets(b"prem", items.primary):
        raise ImageError.unsupported("premultiplied alpha cannot be kept")
    gone = dict(_derived(items))
    _refuse_others(items, gone, alpha)
    left_out |= set(gone.values()) - {""}
    tiles = items.targets(b"dimg", items.primary)
    coded = items.items[tiles[0] if tiles else items.primary].data or b""
    kept = _without(items, gone.keys())
    if sum(len(item.data or b"") for item in kept.items.values()) > TIMES_THE_FILE * len(data):
        raise ValueError("its items are larger than the file")
    names = tuple(sorted(left_out))
    return Carried(tuple(top), kept, alpha, names, data[end:], read_stream(coded))


def _auxiliary(items: Items, number: int) -> bytes:
    """The role of an auxiliary picture, as a URN."""
    return (items.property(number, b"auxC") or bytes(4))[4:].split(b"\0")[0]


def alpha_of(items: Items) -> int | None:
    """The item with the transparency of the picture; None if there is none."""
    found = items.sources(b"auxl", items.primary)
    return next((number for number in found if _auxiliary(items, number) in _ALPHA), None)


def _derived(items: Items) -> Iterator[tuple[int, str]]:
    """The items to leave out, and the name of each loss; empty for parts of the picture."""
    alpha = alpha_of(items)
    for number in (items.primary, *([alpha] if alpha is not None else [])):
        yield from ((tile, "") for tile in items.targets(b"dimg", number))
    for number in items.sources(b"thmb", items.primary):
        yield from _with_tiles(items, number, "thumbnail")
    for number in items.sources(b"auxl", items.primary):
        if _GAIN_MAP in _auxiliary(items, number):
            yield from _with_tiles(items, number, "gain map")
    for number, item in items.items.items():
        if item.kind == b"tmap":
            yield number, "gain map"
            for part in items.targets(b"dimg", number):
                if part != items.primary:
                    yield from _with_tiles(items, part, "gain map")


def _with_tiles(items: Items, number: int, name: str) -> Iterator[tuple[int, str]]:
    yield number, name
    yield from ((tile, name) for tile in items.targets(b"dimg", number))


def _refuse_others(items: Items, gone: Mapping[int, str], alpha: int | None) -> None:
    """Raise ``ImageError`` for independent pictures, and for those derived from several."""
    main = items.items[items.primary]
    needed = {items.properties[index][4:8] for index, must in main.properties if must}
    for kind in sorted(needed - _KNOWN - {_LIGHT_LEVEL}):
        raise ImageError.unsupported(
            f"a picture with the property {kind.decode('latin-1')} cannot be read"
        )
    if main.kind in (b"iden", b"iovl", b"tmap"):
        raise ImageError.unsupported(
            f"a picture made of others ({main.kind.decode()}) cannot be kept"
        )
    for number, item in items.items.items():
        belongs = number in gone or number in (items.primary, alpha) or item.hidden
        if item.kind in _PICTURES and not belongs and not items.targets(b"auxl", number):
            raise ImageError.unsupported("several pictures cannot be kept; split the file first")


def _without(items: Items, gone: Iterable[int]) -> Items:
    """Without some items, metadata that describe only them, and all references to them."""
    dropped = set(gone)
    for one in items.references:
        if one.kind == b"cdsc" and one.targets and dropped.issuperset(one.targets):
            dropped.add(one.source)
    tiled = {items.primary, alpha_of(items)}
    references = []
    for one in items.references:
        targets = tuple(number for number in one.targets if number not in dropped)
        if one.source in dropped or not targets or (one.kind == b"dimg" and one.source in tiled):
            continue
        references.append(replace(one, targets=targets))
    kept = {}
    for number, item in items.items.items():
        if number in dropped:
            continue
        coded = number in tiled and item.data is not None
        kept[number] = replace(item, data=b"" if coded else item.data)
    groups = tuple(_group(whole, dropped) for whole in items.groups)
    return replace(
        items,
        items=kept,
        references=tuple(references),
        groups=tuple(whole for whole in groups if whole),
    )


def _group(whole: bytes, gone: set[int]) -> bytes:
    """A group of items without some; empty if fewer than two are left."""
    reader = Reader(whole[8:])
    head, identifier, count = reader.take(4), reader.take(4), reader.integer(4)
    members = [reader.integer(4) for _ in range(min(count, reader.left // 4))]
    left = [number for number in members if number not in gone]
    if len(left) == len(members):
        return whole
    if len(left) < 2:
        return b""
    body = len(left).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in left)
    return box(whole[4:8], head + identifier + body + reader.rest())


def exif_block(payload: bytes) -> tuple[bytes, bytes]:
    """The bytes before the TIFF structure of an EXIF item, and the structure."""
    start = EXIF_HEAD + int.from_bytes(payload[:EXIF_HEAD], "big")
    if start > len(payload):
        start = EXIF_HEAD
    if payload[start : start + len(exif.PREFIX)] == exif.PREFIX:
        start += len(exif.PREFIX)
    return payload[:start], payload[start:]
