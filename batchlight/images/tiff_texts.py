"""What programs write about the pixels of a TIFF into its texts: how many pictures, statistics.

Layouts: ImageJ's FileInfo; tifffile's "shaped" files; MetaMorph STK; GDAL's persistent metadata.
"""

from __future__ import annotations

import math
import re

from batchlight.images import ifd
from batchlight.images import tiff_layout as tags
from batchlight.images.ifd import Directory, NewTag, Structure
from batchlight.images.pixels import Pixels
from batchlight.images.tiff_layout import Layout

DESCRIPTION, GDAL = 270, 42112
_METAMORPH = 33629
"""Its count is the number of planes."""
_IMAGEJ = b"ImageJ="
_IMAGES = re.compile(rb"^images=(\d{1,12})", re.MULTILINE)
_RANGE = re.compile(rb"^(min|max)=[^\n]*", re.MULTILINE)
_SHAPE = re.compile(rb'^\{?"?shape"?[:=]\s*[\[(]([\d, ]{1,200})[\])]')
_ITEM = re.compile(rb"<Item\b([^<>]*)>[^<]*</Item>\s*")
_STATISTICS = re.compile(rb"""\bname=["']STATISTICS_""")


def pictures(structure: Structure, directory: Directory, layout: Layout) -> int:
    """How many pictures follow one another, though one directory describes them all.

    1 if the file is too short for as many as it claims, like a page taken from a stack.
    """
    entries = (directory.entries.get(DESCRIPTION), *directory.repeated)
    texts = (_text(structure, entry) for entry in entries if entry and entry.tag == DESCRIPTION)
    counts = [_claimed(text, layout.width * layout.height * layout.samples) for text in texts]
    if planes := directory.entries.get(_METAMORPH):
        counts.append(planes.count)
    count, room = max(counts, default=1), len(structure.data) - layout.segments[0][0]
    whole = layout.compression == tags.NONE and len(layout.segments) >= layout.needed
    return count if count > 1 and whole and count * layout.decoded_bytes <= room else 1


def _text(structure: Structure, entry: ifd.Entry) -> bytes:
    return structure.raw(entry) if structure.holds(entry) else b""


def _claimed(text: bytes, samples: int) -> int:
    """``samples``: of one picture."""
    if text.startswith(_IMAGEJ):
        found = _IMAGES.search(text)
        return int(found[1]) if found else 1
    shape = _SHAPE.match(text)
    return math.prod(map(int, re.findall(rb"\d+", shape[1]))) // samples if shape else 1


def renewed(
    structure: Structure, directory: Directory, pixels: Pixels
) -> tuple[dict[int, NewTag | None], list[str]]:
    """The texts to change with the pixels, and what is lost.

    Viewers stretch the contrast to such values, and those of a dark picture make a brighter one
    white. ImageJ's range is renewed; GDAL computes its statistics when it needs them.
    """
    changed: dict[int, NewTag | None] = {}
    entry, lost = directory.entries.get(DESCRIPTION), list[str]()
    old = _text(structure, entry) if entry else b""
    if entry and old.startswith(_IMAGEJ) and _RANGE.search(old):
        ends = {b"min": float(pixels.min()), b"max": float(pixels.max())}
        new = _RANGE.sub(lambda found: b"%b=%.1f" % (found[1], ends[found[1]]), old)
        changed[DESCRIPTION] = NewTag(entry.kind, len(new), new)
    entry = directory.entries.get(GDAL)
    old = _text(structure, entry) if entry else b""
    new = _ITEM.sub(lambda found: b"" if _STATISTICS.search(found[1]) else found[0], old)
    if entry and new != old:
        changed[GDAL] = NewTag(entry.kind, len(new), new)
        lost.append("statistics")
    lost += {f"TIFF tag {again.tag}" for again in directory.repeated if again.tag in changed}
    return changed, lost
