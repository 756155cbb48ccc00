"""Previews of cameras in a JPEG file's own segments: smaller JPEG files, in one or several of them.

Layout: as described in ExifTool; Samsung, HP, GoPro, BenQ and others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchlight.images.segments import (
    APP2,
    APP3,
    APP4,
    APP5,
    EOI,
    SOS,
    Segment,
    after_scan,
    segments,
)
from batchlight.images.thumbnails import jpeg_size

_PREFIXES = {APP2: (b"", b"QVGA\0", b"BGTH"), APP3: (b"",)}
_STARTS = (b"\xff\xd8\xff\xdb", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1")
_FOLLOWING = {APP2: APP2, APP3: APP4, APP4: APP5}
"""The marker of the segment in which a preview goes on, by that of the one before."""
_OTHERS = (b"ICC_PROFILE\0", b"MPF\0", b"FPXR\0", b"urn:")
"""How segments of those markers begin that do not continue a preview."""
_SEGMENTS_AT_MOST = 16


@dataclass(frozen=True)
class Preview:
    """One preview."""

    segments: Sequence[Segment]
    prefix: bytes
    jpeg: bytes
    """May be cut short."""


def previews(found: Sequence[Segment]) -> Iterator[Preview]:
    """Each preview among the segments."""
    at = 0
    while at < len(found):
        preview = _preview(found[at : at + _SEGMENTS_AT_MOST])
        if preview is not None:
            yield preview
        at += 1 if preview is None else len(preview.segments)


def _preview(found: Sequence[Segment]) -> Preview | None:
    """The preview that the first segment begins; None if it begins none."""
    first = found[0]
    prefix = _prefix(first)
    if prefix is None:
        return None
    data, count = first.payload[len(prefix) :], 1
    is_whole = _is_whole(data)
    while not is_whole and count < len(found) and _goes_on(found[count - 1], found[count]):
        data, count = data + found[count].payload, count + 1
        is_whole = _is_whole(data)
    if not is_whole:  # what follows is something else
        data, count = first.payload[len(prefix) :], 1
    return None if jpeg_size(data) is None else Preview(found[:count], prefix, data)


def _goes_on(before: Segment, one: Segment) -> bool:
    """Whether a segment may continue the preview in the one before it."""
    is_next = one.marker == _FOLLOWING.get(before.marker)
    return is_next and not one.payload.startswith(_OTHERS) and _prefix(one) is None


def _prefix(one: Segment) -> bytes | None:
    """What is before a preview that a segment begins; None if it begins none."""
    for prefix in _PREFIXES.get(one.marker, ()):
        if one.payload.startswith(prefix) and one.payload.startswith(_STARTS, len(prefix)):
            return prefix
    return None


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG file has its end."""
    *_, last = (None, *segments(data))
    if last is None or last.marker != SOS:
        return False
    return any(one.marker == EOI for one in after_scan(data, last.end))
