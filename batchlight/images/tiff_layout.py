"""How a TIFF file stores its pixels: what its first directory says, and what is refused.

Layout: TIFF, revision 6.0, and its technical notes on JPEG and on Deflate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchlight.errors import ImageError
from batchlight.images import exif
from batchlight.images.holed import Range
from batchlight.images.ifd import Directory, Structure, StructureError
from batchlight.images.image import check_size

SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 266, 273, 277, 278, 279, 284
T4_OPTIONS, PREDICTOR, COLOR_MAP, TILE_WIDTH, TILE_LENGTH = 292, 317, 320, 322, 323
TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES, EXTRA_SAMPLES = 324, 325, 330, 338
SAMPLE_FORMAT, JPEG_TABLES, DNG_VERSION, CANON_RAW = 339, 347, 50706, 50648
YCBCR_SUBSAMPLING, JPEG_THUMBNAIL, JPEG_THUMBNAIL_BYTES = 530, 513, 514
IMAGE_DEPTH, TILE_DEPTH = 32997, 32998

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, MASK, YCBCR = 0, 1, 2, 3, 4, 6
_RAW = frozenset({32803, 34892})
_COLOURS = {5: "CMYK colours", 8: "LAB colours", 9: "LAB colours", 10: "LAB colours"}
NONE, FAX_RLE, FAX3, FAX4, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS = (
    *(1, 2, 3, 4, 5, 7, 8, 32946, 32773),
)
_COMPRESSIONS = frozenset({NONE, FAX_RLE, FAX3, FAX4, LZW, JPEG, DEFLATE, OLD_DEFLATE, PACKBITS})
_PREDICTED = frozenset({LZW, DEFLATE, OLD_DEFLATE})
"""Compressions with a predictor; readers ignore the tag for others."""
_FAX = frozenset({FAX_RLE, FAX3, FAX4})
_NAMES = {
    6: "old JPEG", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA",
    34926: "Zstandard", 34927: "WebP", 34933: "PNG", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
SEPARATE = 2
UNSIGNED = 1
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of alpha (ExtraSamples): colours multiplied by alpha, or not."""
HORIZONTAL = 2
"""Predictor: differences between neighbours."""
_SIDE_MAX = 2**31
_SEGMENTS_MAX = 2**22
_SHARED_MAX = 64
"""How often the bytes of a file may be read, beyond what its samples take: blank tiles may share
the same bytes."""
_KINDS = {2: "signed", 3: "floating-point", 4: "undefined", 5: "complex", 6: "complex"}


@dataclass(frozen=True)
class Layout:
    """The pixels of a directory."""

    width: int
    height: int
    bits: int
    samples: int
    compression: int
    photometric: int
    predictor: int
    planar: bool
    """Whether channels are stored one after another."""
    fill_order: int
    rows: int
    """Rows of a strip or tile."""
    columns: int
    """Columns of a strip or tile."""
    tiled: bool
    segments: tuple[Range, ...]
    """Where each strip or tile is in the file."""
    extra: int | None
    """The kind of alpha; None if the file does not say."""
    orientation: int
    """1..8, as in EXIF; 1 if the file states another."""
    jpeg_tables: bytes
    fax_options: int
    palette: tuple[int, ...]
    subsampling: tuple[int, ...]
    """For YCbCr: how many pixels share a colour, across and down."""
    order: str
    """Byte order, as in ``struct``."""

    @property
    def planes(self) -> int:
        """How many times the strips or tiles cover the image."""
        return self.samples if self.planar else 1

    @property
    def needed(self) -> int:
        """The number of strips or tiles that cover the image."""
        across, down = -(-self.width // self.columns), -(-self.height // self.rows)
        return across * down * self.planes

    @property
    def decoded_bytes(self) -> int:
        """Of the whole image."""
        return sum(map(self.bytes_of, range(self.needed)))

    def bytes_of(self, number: int) -> int:
        """Of a strip or tile, without its compression."""
        rows = self.rows
        if not self.tiled:
            rows = min(rows, self.height - number % -(-self.height // rows) * rows)
        if self.photometric == YCBCR and not self.planar:
            across, down = (max(1, side) for side in (*self.subsampling, 1)[:2])
            return -(-self.columns // across) * -(-rows // down) * (across * down + 2)
        return rows * ((self.columns * self.samples // self.planes * self.bits + 7) // 8)

    @property
    def mode(self) -> str:
        """Pillow's name for the pixel format."""
        if self.photometric == PALETTE:
            return "P"
        return {1: "L", 3: "RGB", 4: "RGBA"}[self.samples]


class _Tags:
    """The tags of a directory as integers, with TIFF's defaults."""

    def __init__(self, structure: Structure, directory: Directory) -> None:
        self._structure, self._directory = structure, directory

    def all(self, tag: int) -> tuple[int, ...]:
        entry = self._directory.entries.get(tag)
        if entry is None:
            return ()
        if entry.count > _SEGMENTS_MAX:
            raise StructureError(f"tag {tag} has {entry.count} values")
        return self._structure.integers(entry)

    def one(self, tag: int, default: int) -> int:
        return next(iter(self.all(tag)), default)


def layout_of(structure: Structure, directory: Directory, max_pixels: int) -> Layout:
    """Raises ``ImageError`` for what cannot be kept, ``StructureError`` for what is damaged."""
    tags = _Tags(structure, directory)
    width, height = tags.one(WIDTH, 0), tags.one(LENGTH, 0)
    if not (0 < width < _SIDE_MAX and 0 < height < _SIDE_MAX):
        raise StructureError("an image without pixels")
    check_size(width, height, max_pixels)
    _refuse(tags, directory)
    _refuse_volume(tags)
    tiled = TILE_WIDTH in directory.entries
    columns = tags.one(TILE_WIDTH, width) if tiled else width
    rows = tags.one(TILE_LENGTH, 0) if tiled else min(tags.one(ROWS, height), height)
    if columns < 1 or rows < 1:
        raise StructureError("strips or tiles without pixels")
    # A tile takes the memory that it claims, however small the image is.
    check_size(columns, rows, max_pixels, " in a tile")
    samples, bits = _samples(tags), tags.one(BITS, 1)
    tables = directory.entries.get(JPEG_TABLES)
    photometric = tags.one(PHOTOMETRIC, RGB if samples >= 3 else MIN_IS_WHITE)
    compression = tags.one(COMPRESSION, NONE)
    found = Layout(
        width, height, bits, samples, compression, photometric,
        tags.one(PREDICTOR, 1) if compression in _PREDICTED else 1,
        tags.one(PLANAR, 1) == SEPARATE and samples > 1,
        tags.one(FILL_ORDER, 1), rows, columns, tiled, _segments(tags, tiled, structure),
        next(iter(tags.all(EXTRA_SAMPLES)), None), _orientation(tags),
        b"" if tables is None else structure.raw(tables), tags.one(T4_OPTIONS, 0),
        tags.all(COLOR_MAP), tags.all(YCBCR_SUBSAMPLING) or (2, 2), structure.order,
    )  # fmt: skip
    _refuse_layout(found)
    _refuse_overlap(found, len(structure.data))
    return _with_true_lengths(found)


def _with_true_lengths(layout: Layout) -> Layout:
    """Without compression, lengths of zero and those that reach into what follows are put right."""
    if layout.compression != NONE:
        return layout
    stated = enumerate(layout.segments)
    lengths = ((start, end - start, layout.bytes_of(number)) for number, (start, end) in stated)
    segments = tuple((start, start + (min(given, true) or true)) for start, given, true in lengths)
    return replace(layout, segments=segments)


def _refuse_overlap(layout: Layout, nbytes: int) -> None:
    """Raise ``StructureError`` if all strips or tiles are the same large part of the file."""
    ends = ((start, min(end, nbytes)) for start, end in layout.segments)
    used = sum(max(0, end - start) + len(layout.jpeg_tables) for start, end in ends)
    pixels = (layout.width + layout.columns) * (layout.height + layout.rows)
    if used > _SHARED_MAX * nbytes + pixels * layout.samples * layout.bits // 8:
        raise StructureError("strips or tiles overlap")


def _orientation(tags: _Tags) -> int:
    stated = tags.one(exif.ORIENTATION, 1)
    return stated if 1 <= stated <= 8 else 1


def _samples(tags: _Tags) -> int:
    return tags.one(SAMPLES, max(1, len(tags.all(BITS))))


def _segments(tags: _Tags, tiled: bool, structure: Structure) -> tuple[Range, ...]:
    starts = tags.all(TILE_OFFSETS if tiled else STRIP_OFFSETS)
    if not starts and tiled:  # some writers give tiles the tags of strips
        starts = tags.all(STRIP_OFFSETS)
    lengths = tags.all(TILE_BYTES if tiled else STRIP_BYTES) or tags.all(STRIP_BYTES)
    if not starts:
        raise StructureError("no pixels")
    if len(starts) == 1 and not any(lengths):
        lengths = (max(0, len(structure.data) - starts[0]),)
    if not lengths and tags.one(COMPRESSION, NONE) == NONE:
        lengths = (0,) * len(starts)
    if len(lengths) < len(starts):
        raise StructureError("strips or tiles without lengths")
    return tuple((a, a + n) for a, n in zip(starts, lengths, strict=False))


def _refuse(tags: _Tags, directory: Directory) -> None:
    """Raise ``ImageError`` for a pixel format that cannot be kept."""
    photometric, compression = tags.one(PHOTOMETRIC, MIN_IS_WHITE), tags.one(COMPRESSION, NONE)
    raw = photometric in _RAW or {DNG_VERSION, CANON_RAW} & directory.entries.keys()
    bits = set(tags.all(BITS)[: _samples(tags)] or (1,))
    formats = set(tags.all(SAMPLE_FORMAT))
    reason = None
    if raw:
        reason = "RAW, which batchlight does not read"
    elif photometric in _COLOURS:
        reason = f"{_COLOURS[photometric]} cannot be kept"
    elif photometric == MASK:
        reason = "a transparency mask cannot be kept"
    elif photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, YCBCR):
        reason = f"TIFF of the photometric interpretation {photometric} cannot be kept"
    elif compression not in _COMPRESSIONS:
        name = _NAMES.get(compression, str(compression))
        reason = f"TIFF compression {name} cannot be decoded"
    elif formats - {UNSIGNED}:
        reason = f"{_KINDS.get(max(formats), 'unknown')} samples cannot be kept"
    elif len(bits) > 1 or not bits <= {1, 8, 16}:
        reason = f"TIFF of {max(bits)} bits per sample cannot be kept"
    if reason:
        raise ImageError.unsupported(reason)


def _refuse_volume(tags: _Tags) -> None:
    depth = max(tags.one(IMAGE_DEPTH, 1), tags.one(TILE_DEPTH, 1))
    if depth > 1:
        raise ImageError.unsupported(f"a volume of {depth} planes cannot be kept")


def _refuse_layout(layout: Layout) -> None:
    """Raise ``ImageError`` for a combination that cannot be kept."""
    colours = {RGB: 3, YCBCR: 3}.get(layout.photometric, 1)
    alpha = layout.samples == 4 and layout.photometric == RGB and layout.extra != 0
    reason = None
    if layout.samples != colours and not alpha:
        reason = f"the TIFF's {layout.samples} samples per pixel cannot all be kept"
    elif layout.extra == ASSOCIATED and alpha:  # once enhanced, a colour would exceed its alpha
        reason = "premultiplied alpha cannot be kept"
    elif alpha and layout.extra not in (None, UNASSOCIATED):
        reason = f"extra samples of the kind {layout.extra} cannot be kept"
    elif layout.bits == 1 and layout.samples > 1:
        reason = "TIFF of 1 bit per sample cannot be kept in colour"
    elif layout.bits == 16 and layout.photometric == MIN_IS_WHITE:
        reason = "16-bit TIFF with inverted gray cannot be kept"
    elif layout.bits == 16 and layout.photometric in (PALETTE, YCBCR):
        reason = "16-bit TIFF with a palette or YCbCr samples cannot be kept"
    elif layout.bits == 16 and layout.planar:
        reason = "16-bit TIFF in separate planes cannot be kept"
    elif layout.photometric == YCBCR and layout.planar and layout.subsampling != (1, 1):
        reason = "YCbCr in separate planes of different sizes cannot be read"
    elif layout.compression in _FAX and layout.bits != 1:
        raise StructureError("fax compression of more than 1 bit")
    elif layout.predictor not in (1, HORIZONTAL):
        reason = f"TIFF predictor {layout.predictor} cannot be decoded"
    if reason:
        raise ImageError.unsupported(reason)
