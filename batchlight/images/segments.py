"""JPEG files as segments: those before the pixels, where the image ends, what follows it.

Layout: ITU-T T.81 annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP1, APP2, APP3, APP4, APP5 = range(0xE0, 0xE6)
APP11, APP13, APP14, COMMENT = 0xEB, 0xED, 0xEE, 0xFE
SEGMENT_MAX = 65533
"""Bytes of content; the length field counts itself."""

_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
"""Markers that are not followed by a length: stuffing, TEM and the restarts."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF: frame headers; the low bits give the coding process."""
_CODING = FRAMES | {0xC4, 0xCC, SOI, EOI, SOS, *range(0xDB, 0xE0)}
"""Markers of segments that belong to the coded image: frames, tables, restarts, scans."""

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""Within coded data: anything but stuffing, restarts and padding."""


@dataclass(frozen=True)
class Segment:
    """A marker and its content."""

    marker: int
    start: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.start + 4 + len(self.payload)

    @property
    def is_coding(self) -> bool:
        """Whether it belongs to the coded image."""
        return self.marker in _CODING

    @property
    def is_metadata(self) -> bool:
        """Whether decoders skip it; they stop at segments that are neither this nor coding."""
        return APP0 <= self.marker < APP0 + 16 or self.marker == COMMENT


def segments(data: bytes) -> Iterator[Segment]:
    """The segments up to and including that of the first scan.

    Like decoders, skips padding, markers without content, and garbage between segments.
    """
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + max(2, length)
        if end > len(data):
            return
        if length >= 2:
            yield Segment(marker, at, data[at + 4 : end])
        if marker == SOS:
            return
        at = end


def after_scan(data: bytes, at: int) -> Iterator[Segment]:
    """The segments between the scans, given where the first scan's data begin; the last is EOI."""
    while found := _MARKER.search(data, at):
        at, marker = found.start(), data[found.start() + 1]
        if marker in (EOI, SOI):
            yield Segment(marker, at, b"")
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(data):
            at += 2
            continue
        yield Segment(marker, at, data[at + 4 : at + 2 + length])
        at += 2 + length


def segment(marker: int, payload: bytes) -> bytes:
    """A segment; raises ``ValueError`` for more than it can hold."""
    if len(payload) > SEGMENT_MAX:
        raise ValueError("metadata over 64 KB, which a JPEG file cannot hold")
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload
