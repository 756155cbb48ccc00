"""TIFF: one page of 1, 8 or 16 bits per sample.

imagecodecs decodes the pixels (``tiff_pixels``); they are written into the structure of the file
that they came from (``tiff_file``), with all its tags. Previews and overviews are derived from the
page and left out. Layouts: TIFF, revision 6.0; BigTIFF; GDAL, Cloud Optimized GeoTIFF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from batchlight.errors import ImageError
from batchlight.images import tiff_file, tiff_metadata, tiff_pixels, tiff_texts
from batchlight.images import tiff_layout as tags
from batchlight.images.holed import Holed, Range, subtract
from batchlight.images.ifd import Directory, Structure, StructureError
from batchlight.images.image import Decoded, Encoded, Header
from batchlight.images.image_format import ImageFormat
from batchlight.images.pixels import Pixels
from batchlight.images.thumbnails import Picture
from batchlight.images.tiff_layout import layout_of

_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_REDUCED, _MASK = 1, 4
"""Bits of NewSubfileType."""
_OVERVIEWS_MAX = 64
_PLACES = (
    (tags.STRIP_OFFSETS, tags.STRIP_BYTES),
    (tags.TILE_OFFSETS, tags.TILE_BYTES),
    (tags.JPEG_THUMBNAIL, tags.JPEG_THUMBNAIL_BYTES),
)
"""Pairs of tags that say where pixels are."""
_PLACES_BYTES = 2**25
"""How many bytes these may have in all pages to be left out."""
_POINTERS = (34665, 34853, 40965)
_SEVERAL = "several pages cannot be kept; split the file first"
_PIXELS_UNCHECKED = 2**62
"""The header was checked earlier."""


@dataclass(frozen=True)
class Carried:
    """A TIFF file without its pixels, previews and overviews."""

    file: Holed
    extra: int | None
    """The kind of alpha; None if the file does not say."""
    left_out: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return self.file.nbytes


def inspect(data: bytes, max_pixels: int) -> Header:
    """The header, with everything but the pixels."""
    structure = Structure(data)
    first = structure.directory(structure.first)
    derived = [*_further(structure, first), *_inner(structure, first)]
    thumbnail = tags.JPEG_THUMBNAIL in first.entries
    if _subfile(structure, first) & _REDUCED and tags.SUB_DIRECTORIES in first.entries:
        raise ImageError.unsupported(
            "RAW, or a picture behind its own preview, which batchlight does not read"
        )
    layout = layout_of(structure, first, max_pixels)
    if tiff_texts.pictures(structure, first, layout) > 1:
        raise ImageError.unsupported(_SEVERAL)
    left_out = ("overviews",) if derived or thumbnail else ()
    metadata = tiff_metadata.read(structure, first, left_out)
    holes = list(layout.segments)
    for directory in _apart(structure, derived):
        holes += [*structure.used_by(directory), *_pixels_of(structure, directory)]
    protected = [*_used(structure, first), (0, 16 if structure.big else 8)]
    carried = Holed.of(data, subtract(holes, protected, len(data)))
    return Header(
        "tiff",
        layout.width,
        layout.height,
        layout.mode,
        metadata,
        orientation=layout.orientation,
        carried=Carried(carried, layout.extra, left_out),
    )


def _further(structure: Structure, first: Directory) -> Iterator[Directory]:
    """The directories after the first; the caller sees each before the next is read."""
    at, seen = first.next, {first.at}
    while at and at not in seen:
        if len(seen) > _OVERVIEWS_MAX:
            raise ImageError.unsupported(_SEVERAL)
        seen.add(at)
        directory = structure.directory(at)
        kind = _subfile(structure, directory)
        if tags.JPEG_THUMBNAIL in directory.entries and _is_smaller(structure, directory, first):
            kind |= _REDUCED  # as in EXIF
        _refuse_page(structure, directory, kind)
        yield directory
        at = directory.next


def _inner(structure: Structure, first: Directory) -> Iterator[Directory]:
    """The directories nested in the first one."""
    entry = first.entries.get(tags.SUB_DIRECTORIES)
    if entry is not None:
        offsets = structure.integers(entry)
        if len(offsets) > _OVERVIEWS_MAX:
            raise ImageError.unsupported(_SEVERAL)
        for directory in (structure.directory(at) for at in offsets if at):
            kind = _subfile(structure, directory)
            if _is_smaller(structure, directory, first):
                kind |= _REDUCED
            _refuse_page(structure, directory, kind)
            yield directory


def _is_smaller(structure: Structure, directory: Directory, first: Directory) -> bool:
    return _sides(structure, directory) < _sides(structure, first)


def _sides(structure: Structure, directory: Directory) -> int:
    """Width plus height."""
    entries = (directory.entries.get(tag) for tag in (tags.WIDTH, tags.LENGTH))
    return sum(structure.integers(entry)[0] for entry in entries if entry is not None)


def _subfile(structure: Structure, directory: Directory) -> int:
    entry = directory.entries.get(tags.SUBFILE)
    return next(iter(structure.integers(entry)), 0) if entry is not None else 0


def _refuse_page(structure: Structure, directory: Directory, kind: int) -> None:
    """Raise ``ImageError`` for a page that is not derived from the first.

    ``kind``: NewSubfileType.
    """
    entry = directory.entries.get(tags.PHOTOMETRIC)
    photometric = next(iter(structure.integers(entry)), 0) if entry is not None else 0
    if photometric in (32803, 34892):
        raise ImageError.unsupported("RAW, which batchlight does not read")
    if kind & _MASK or photometric == tags.MASK:
        raise ImageError.unsupported("a transparency mask as a page of its own cannot be kept")
    if not kind & _REDUCED:
        raise ImageError.unsupported(_SEVERAL)


def _apart(structure: Structure, derived: list[Directory]) -> Iterator[Directory]:
    """The pages to be left out; raises if they share the lists of where their pixels are."""
    left = min(len(structure.data), _PLACES_BYTES)
    for directory in derived:
        left -= sum(directory.entries[t].nbytes for t in chain(*_PLACES) if t in directory.entries)
        if left < 0:
            raise StructureError("overviews overlap")
        yield directory


def _pixels_of(structure: Structure, directory: Directory) -> Iterator[Range]:
    """Where the pixels of a page to be left out are."""
    for starts, lengths in _PLACES:
        found = directory.entries.get(starts), directory.entries.get(lengths)
        if found[0] is not None and found[1] is not None:
            pairs = zip(structure.integers(found[0]), structure.integers(found[1]), strict=False)
            yield from ((start, start + length) for start, length in pairs)


def _used(structure: Structure, directory: Directory, depth: int = 0) -> Iterator[Range]:
    """The ranges used by a directory, and by those of EXIF below it."""
    yield from structure.used_by(directory)
    for tag in _POINTERS:
        entry = directory.entries.get(tag)
        if entry is not None and depth < len(_POINTERS):
            try:
                yield from _used(
                    structure, structure.directory(structure.integers(entry)[0]), depth + 1
                )
            except (StructureError, IndexError):
                continue


def decode(data: bytes, header: Header) -> Pixels:
    """The samples as stored."""
    structure = Structure(data)
    directory = structure.directory(structure.first)
    return tiff_pixels.decode(data, layout_of(structure, directory, _PIXELS_UNCHECKED))


def encode(decoded: Decoded, quality: int) -> Encoded:
    """A TIFF in strips; the kind of alpha is kept."""
    carried, has_alpha = decoded.header.carried, decoded.alpha is not None
    if isinstance(carried, Carried):
        structure = Structure(carried.file.restored())
        first = structure.directory(structure.first)
        picture = Picture(decoded.pixels)
        changed, lost = tiff_metadata.renewed(structure, first, picture, carried.left_out)
        texts, stale = tiff_texts.renewed(structure, first, decoded.pixels)
        extra = carried.extra if has_alpha else None
        data = tiff_file.put(carried.file, decoded.samples, extra, {**texts, **changed})
        return Encoded.of(data, (*lost, *stale))
    file, changed, names = tiff_metadata.converted(decoded.header.metadata)
    extra = tags.UNASSOCIATED if has_alpha else None
    return Encoded.of(tiff_file.put(file, decoded.samples, extra, changed), names)


TIFF = ImageFormat(
    "tiff",
    recognises=lambda data: data.startswith(_MAGIC),
    inspect=inspect,
    encode=encode,
    decode=decode,
    not_read=("Unsupported JPEG",),
    holds_gray_alpha=False,
    holds_16_bit=True,
    holds_aspect=True,
)
