"""A TIFF file's metadata in the terms that all formats share, and those written as tags.

Layouts: TIFF, revision 6.0; Exif 2.3; XMP part 3; ICC.1 annex B.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchlight.images import colour, exif, ifd, photoshop, xmp
from batchlight.images import tiff_layout as layout
from batchlight.images.holed import Holed, Range
from batchlight.images.ifd import Directory, Entry, NewTag, Structure, StructureError
from batchlight.images.metadata import COMMENT, Metadata, density_tags, ratio_within
from batchlight.images.thumbnails import Picture

XMP, IPTC, PHOTOSHOP, ICC, LAYERS, C2PA = 700, 33723, 34377, 34675, 37724, 52545
_EXIF, _GPS, _INTEROPERABILITY, _MAKER_NOTE = 34665, 34853, 40965, 37500
_TRANSFER, _WHITE, _PRIMARIES, _BLACK_AND_WHITE = 301, 318, 319, 532
_COLOURED = frozenset({layout.RGB, layout.PALETTE, layout.YCBCR})
_SCALES = (10**3, 10**6, 10**9, 10**13)
"""By which fractions are multiplied to whole numbers; the last is enough for any."""
_GAMMA = 2.2
"""Of a file without a transfer function. Source: TIFF, revision 6.0, section 20."""
_POINTERS = (_EXIF, _GPS, _INTEROPERABILITY)
_DESCRIPTIVE = frozenset(
    {*(269, 270, 271, 272, 305, 306, 315, 316, 33432), exif.ORIENTATION, 282, 283, 296}
)
"""Tags of the first directory that also exist in EXIF."""
_OF_PIXELS = frozenset(
    {*range(254, 267), 273, *range(277, 280), 284, 292, 293, 317, 320, *range(322, 329), 330}
    | {338, 339, 347, *range(512, 522), *range(529, 532)}
)
_SHARED = _DESCRIPTIVE | _OF_PIXELS | {XMP, IPTC, ICC, _EXIF, _GPS, PHOTOSHOP}
_COLOURS = "TIFF's colour description"
_NAMES = {
    **dict.fromkeys((33550, 33922, 34264, 34735, 34736, 34737), "GeoTIFF tags"),
    **dict.fromkeys((42112, 42113), "GDAL tags"),
    **dict.fromkeys((50838, 50839), "ImageJ tags"),
    LAYERS: "Photoshop layers",
    C2PA: "Content Credentials",
    **dict.fromkeys((_TRANSFER, _WHITE, _PRIMARIES), _COLOURS),
}
_TEXTS = {
    "Title": 269, COMMENT: 270, "Description": 270, "Software": 305, "Author": 315,
    "Copyright": 33432,
}  # fmt: skip
"""Tags equivalent to PNG's keywords."""


def read(structure: Structure, directory: Directory, left_out: tuple[str, ...]) -> Metadata:
    """The metadata of a file."""

    def payload(tag: int) -> bytes | None:
        entry = directory.entries.get(tag)
        return None if entry is None else structure.raw(entry) or None

    others = {*left_out}
    others |= {_NAMES.get(t, f"TIFF tag {t}") for t in directory.entries.keys() - _SHARED}
    others |= {f"TIFF tag {e.tag}" for e in directory.repeated if e.tag not in _OF_PIXELS}
    resources = payload(PHOTOSHOP) or b""
    others |= {*photoshop.not_shared(resources)}
    block, left_out_of_exif = as_exif(structure, directory)
    others |= left_out_of_exif
    icc, inexpressible = payload(ICC), None
    if icc is None and _TRANSFER in directory.entries:
        inexpressible = "its transfer function"
    elif icc is None and (icc := _made_profile(structure, directory)) is not None:
        others.discard(_COLOURS)
    return Metadata(
        exif=block,
        xmp=payload(XMP),
        icc=icc,
        iptc=payload(IPTC) or photoshop.iptc(resources),
        density=None if exif.density_in(structure, directory) else photoshop.density(resources),
        aspect=_aspect(structure, directory),
        others=tuple(sorted(others)),
        inexpressible=inexpressible,
    )


def _made_profile(structure: Structure, directory: Directory) -> bytes | None:
    """A profile equivalent to the tags of white and primaries; None if that is not possible."""
    kind = directory.entries.get(layout.PHOTOMETRIC)
    if structure.one(kind) not in _COLOURED:
        return None
    entries = [directory.entries.get(tag) for tag in (_WHITE, _PRIMARIES)]
    white, primaries = (() if entry is None else structure.rationals(entry) for entry in entries)
    if len(primaries) != 6:
        return None
    a, b, c, d, e, f, g, h = (*(white if len(white) == 2 else colour.D65), *primaries)
    return colour.profile(colour.Colours((a, b, c, d, e, f, g, h), (_GAMMA,)))


def _aspect(structure: Structure, directory: Directory) -> tuple[int, int] | None:
    """The aspect ratio of a pixel, if the resolution has no unit."""
    unit = directory.entries.get(exif.RESOLUTION_UNIT)
    if structure.one(unit) != 1:
        return None
    entries = [directory.entries.get(tag) for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION)]
    values = [structure.rationals(entry) for entry in entries if entry is not None]
    if len(values) != 2 or not (values[0] and values[1]):
        return None
    x, y = values[0][0], values[1][0]
    if min(x, y) <= 0:
        return None
    scale = next(one for one in _SCALES if min(x, y) * one >= _SCALES[0])
    aspect = round(x * scale), round(y * scale)
    return None if aspect[0] == aspect[1] else ratio_within(aspect, ifd.LONG_MAX)


def as_exif(structure: Structure, directory: Directory) -> tuple[bytes | None, set[str]]:
    """The descriptive tags and EXIF's own as a block, and the names of what had to be left out.

    That is a MakerNote, as only its maker understands the offsets in it, which would be wrong
    elsewhere; and EXIF that is damaged.
    """
    copier = _Copier(structure)
    tags = copier.tags(directory, _DESCRIPTIVE)
    found = {t: e for t, e in directory.entries.items() if t in (_EXIF, _GPS)}
    lost = set[str]()
    if not found and not tags:
        return None, lost
    block = bytearray(b"II*\0" if structure.order == "<" else b"MM\0*") + bytes(4)
    classic = Structure(bytes(block))
    for tag, entry in found.items():
        at, names = _append(copier, entry, classic, block)
        lost |= names
        if at:
            tags[tag] = NewTag(ifd.LONG, 1, classic.pack("I", at))
    block[4:8] = classic.pack("I", len(block))
    block += ifd.table(classic, tags, len(block))
    return bytes(block), lost


def _append(
    copier: _Copier, pointer: Entry, classic: Structure, block: bytearray, is_inner: bool = False
) -> tuple[int, set[str]]:
    """Copy a directory, and one inside it, to the end of a block.

    Returns its offset there, 0 if it is damaged, and the names of what is left out.
    """
    try:
        at = copier.structure.one(pointer)
        if at is None:
            return 0, {"EXIF"}
        directory = copier.structure.directory(at)
        tags = copier.tags(directory, None)
    except StructureError:
        return 0, {"EXIF"}
    lost = {"MakerNote"} if _MAKER_NOTE in directory.entries else set[str]()
    inner = directory.entries.get(_INTEROPERABILITY)
    if inner is not None and not is_inner:
        at, names = _append(copier, inner, classic, block, is_inner=True)
        lost |= names
        if at:
            tags[_INTEROPERABILITY] = NewTag(ifd.LONG, 1, classic.pack("I", at))
    block += bytes(len(block) & 1)
    at = len(block)
    block += ifd.table(classic, tags, at)
    return at, lost


class _Copier:
    """Copies tags, in all of no more bytes than the file has: tags may share the same value."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self._left = len(structure.data)

    def tags(self, directory: Directory, wanted: frozenset[int] | None) -> dict[int, NewTag]:
        """All or some; raises ``StructureError`` for values outside the file, or too many."""
        entries = {
            tag: entry
            for tag, entry in directory.entries.items()
            if (wanted is None or tag in wanted) and tag not in (*_POINTERS, _MAKER_NOTE)
            if entry.nbytes and entry.kind not in (13, 16, 17, 18)
        }
        left = self._left - sum(entry.nbytes for entry in entries.values())
        if left < 0:
            raise StructureError("the values of its tags overlap")
        self._left = left
        return {
            tag: NewTag(entry.kind, entry.count, self.structure.raw(entry))
            for tag, entry in entries.items()
        }


def renewed(
    structure: Structure, directory: Directory, picture: Picture, left_out: tuple[str, ...]
) -> tuple[dict[int, NewTag | None], list[str]]:
    """The tags to change with the pixels: thumbnails, and stale tags; and what is lost."""
    changed: dict[int, NewTag | None] = {}
    lost = [*left_out]
    for tag in _outside(structure, directory):
        changed[tag] = None
        lost.append(f"TIFF tag {tag}")
    for tag in (LAYERS, C2PA):
        if tag in directory.entries:
            changed[tag] = None
            lost.append(_NAMES[tag])
    if entry := directory.entries.get(PHOTOSHOP):
        resources = structure.raw(entry)
        if photoshop.has_thumbnail(resources):
            new, kept = photoshop.with_thumbnail(resources, picture)
            changed[PHOTOSHOP] = NewTag(entry.kind, len(new), new)
            lost += [] if kept else ["Photoshop thumbnail"]
    if entry := directory.entries.get(XMP):
        old = structure.raw(entry)
        packet, kept = xmp.with_thumbnails(old, picture)
        packet = xmp.without_provenance(packet) if C2PA in changed else packet
        lost += [] if kept else ["XMP thumbnail"]
        if packet != old:
            changed[XMP] = NewTag(entry.kind, len(packet), packet)
    palette = directory.entries.get(layout.COLOR_MAP)
    if palette is not None:
        lost.append("palette")
    levels, colours = (directory.entries.get(t) for t in (_BLACK_AND_WHITE, layout.PHOTOMETRIC))
    if levels is not None and structure.one(colours) == layout.RGB:
        # For RGB it holds for the new pixels too; elsewhere it describes YCbCr.
        changed[_BLACK_AND_WHITE] = NewTag(levels.kind, levels.count, structure.raw(levels))
    again = {f"TIFF tag {entry.tag}" for entry in directory.repeated if changed.get(entry.tag)}
    return changed, [*lost, *sorted(again)]


def _outside(structure: Structure, directory: Directory) -> Iterator[int]:
    """The tags whose values would lie outside the file; in a longer one they could be anything."""
    every = (*directory.entries.values(), *directory.repeated)
    return (entry.tag for entry in every if not structure.holds(entry))


def converted(metadata: Metadata) -> tuple[Holed, dict[int, NewTag | None], tuple[str, ...]]:
    """A TIFF without pixels, for an image of another format; its tags; the names of what is lost.

    The EXIF block is itself a TIFF structure, and stays where it is, so that all its offsets hold.
    """
    block, held = metadata.exif or exif.EMPTY, {"XMP", "colour profile", "IPTC", "resolution"}
    try:
        structure = Structure(block)
        first = structure.directory(structure.first)
        held.add("EXIF")
    except StructureError:
        block = exif.EMPTY
        structure = Structure(block)
        first = structure.directory(structure.first)
    lost, holes = [], list[Range]()
    if first.next:
        lost.append("EXIF thumbnail")
        holes += _second(structure, first)
    tags: dict[int, NewTag | None] = {exif.ORIENTATION: None}
    for tag, value in ((XMP, metadata.xmp), (ICC, metadata.icc), (IPTC, metadata.iptc)):
        if value:
            tags[tag] = NewTag(ifd.BYTE if tag == XMP else ifd.UNDEFINED, len(value), value)
    if metadata.density is not None:
        of_density = density_tags(structure, metadata.density)
        tags |= of_density
        held -= set() if of_density else {"resolution"}
    elif metadata.aspect is not None:
        tags |= _aspect_tags(structure, metadata.aspect)
    lost += _texts(metadata, first.entries, tags)
    names = metadata.lost(held | {"comment", "text"})
    return Holed.of(block, holes), tags, (*lost, *names)


def _aspect_tags(structure: Structure, aspect: tuple[int, int]) -> Mapping[int, NewTag]:
    x, y = (NewTag(ifd.RATIONAL, 1, structure.pack("II", value, 1)) for value in aspect)
    unit = NewTag(ifd.SHORT, 1, structure.pack("H", 1))
    return {exif.X_RESOLUTION: x, exif.Y_RESOLUTION: y, exif.RESOLUTION_UNIT: unit}


def _texts(
    metadata: Metadata, there: Mapping[int, Entry], tags: dict[int, NewTag | None]
) -> list[str]:
    """Put texts into the equivalent tags; returns the names of those that have none."""
    lost = []
    for keyword, text in metadata.texts:
        tag = _TEXTS.get(keyword)
        if tag is None or tag in there or tag in tags:
            lost.append("comment" if keyword == COMMENT else "text")
            continue
        value = text.encode() + b"\0"
        tags[tag] = NewTag(ifd.ASCII, len(value), value)
    return lost


def _second(structure: Structure, first: Directory) -> list[Range]:
    """Where the second directory of EXIF and its thumbnail are."""
    try:
        second = structure.directory(first.next)
        start, length = (structure.one(second.entries.get(tag)) for tag in (513, 514))
    except StructureError:
        return []
    if start is None or length is None:
        return []
    return [*structure.used_by(second), (start, start + length)]
