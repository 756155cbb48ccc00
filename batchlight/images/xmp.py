"""XMP packets, changed as text so that everything else in them stays byte for byte.

Layouts: XMP specification parts 1 and 3; Ultra HDR Image Format 1.1 and its GContainer; C2PA 2.1.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from batchlight.images.thumbnails import Picture

PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
"""Precedes a packet in a JPEG segment."""
EXTENSION_PREFIX = b"http://ns.adobe.com/xmp/extension/\x00"
_EXTENSION_HEAD = 40
"""Bytes of identifier, total length and offset before each part."""
_OFFSET_AT = 36
_ROOM_IN_EXTENSION = 2**16
"""Bytes by which a new thumbnail in an extension may be longer than the old one."""

_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[0-9]")
_ITEM, _ITEM_END = b"<rdf:li", b"</rdf:li>"
_OF_GAIN_MAP = re.compile(rb"Semantic\s*(?:=\s*[\"']|>)\s*GainMap")
_TRACES_OF_GAIN_MAP = (b"hdrgm:", b"HDRGainMap:", b"hdrgainmap")
_EXTENDED_WITHIN = 80
"""Bytes in which the name ``HasExtendedXMP`` and an identifier must be: 14 and 34 with quotation
marks, besides white space."""
_EXTENDED = re.compile(rb"[\"'>]\s*([0-9A-Fa-f]{32})\s*[\"'<]")
_THUMBNAIL = re.compile(
    rb"(<([\w.-]+):image\s*>|\s([\w.-]+):image\s*=\s*[\"'])([^<\"']*)",
)
"""A picture as an element or an attribute: what is before it, its namespace's prefix, its text."""
_IMAGE_NAMESPACE = re.compile(
    rb"xmlns:([\w.-]+)\s*=\s*[\"']http://ns\.adobe\.com/xap/1\.0/g/img/[\"']"
)
_IMAGE_PREFIXES = frozenset({b"xmpGImg", b"xapGImg"})
"""The usual ones, which an extension may use without declaring them; the latter until 2004."""
_NAMESPACE = re.compile(rb"\sxmlns:([\w.-]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_RDF, _RDF_END = b"<rdf:RDF", b"</rdf:RDF>"

_STUB = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/></rdf:RDF>'
    b"</x:xmpmeta>"
)


@dataclass(frozen=True)
class _Properties:
    """Properties by their names; all searches take time in proportion to a packet's length."""

    marks: tuple[bytes, ...]
    """One of them is part of each name. Most packets have none, which is known at once."""
    attribute: re.Pattern[bytes]
    """With all white space before it, a run of which is tried only from its start."""
    opening: re.Pattern[bytes]
    """The start of an opening tag, up to its name."""

    @classmethod
    def of(cls, name: bytes, *marks: bytes) -> _Properties:
        """Those whose names match a pattern."""
        return cls(
            marks,
            re.compile(rb"(?<!\s)\s++" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')"),
            re.compile(rb"<(" + name + rb")(?=[\s/>])"),
        )


_OF_GAIN_MAPS = _Properties.of(rb"(?:hdrgm|HDRGainMap):\w+", b"hdrgm:", b"HDRGainMap:")
_OF_PARTS = _Properties.of(
    rb"(?:G?Camera:(?:MotionPhoto|MicroVideo)\w*|G?Container:Directory)",
    *(b"Camera:M", b"Container:Directory"),
)
"""Of a motion photo, and the list of a file's parts."""
_PROVENANCE = _Properties.of(rb"dcterms:provenance", b"dcterms:provenance")
_HAS_EXTENSION = _Properties.of(rb"xmpNote:HasExtendedXMP", b"xmpNote:HasExtendedXMP")


def upright(packet: bytes | None) -> bytes | None:
    """The same with orientation 1, which some readers use if EXIF has none."""
    return None if packet is None else _ORIENTATION.sub(rb"\g<1>1", packet)


def tells_of_gain_map(packet: bytes) -> bool:
    """Whether it describes a gain map: its parameters, or a gain map among the file's items."""
    return any(trace in packet for trace in _TRACES_OF_GAIN_MAP) or lists_gain_map(packet)


def lists_gain_map(packet: bytes) -> bool:
    """Whether it lists a gain map among the file's items."""
    return bool(_OF_GAIN_MAP.search(packet))


def without_gain_map(packet: bytes) -> bytes:
    """Without the parameters of a gain map, and without the entry that points to it."""
    return _without(_OF_GAIN_MAPS, _without_items(packet))


def without_provenance(packet: bytes) -> bytes:
    """Without the pointer to a C2PA manifest."""
    return _without(_PROVENANCE, packet)


def of_a_single_picture(packet: bytes) -> bytes:
    """Without pointers to parts that only the original file contains."""
    return without_gain_map(without_provenance(_without(_OF_PARTS, packet)))


def _without_items(packet: bytes) -> bytes:
    """Without gain maps in lists of the file's parts."""
    if not lists_gain_map(packet):
        return packet
    out, at = bytearray(), 0
    while (start := packet.find(_ITEM, at)) >= 0:
        out += packet[at:start]
        tag_end = packet.find(b">", start)
        closed = packet[tag_end - 1 : tag_end] == b"/"
        closing = tag_end if closed else packet.find(_ITEM_END, start)
        if tag_end < 0 or closing < 0:
            return bytes(out + packet[start:])
        end = tag_end + 1 if closed else closing + len(_ITEM_END)
        if not _OF_GAIN_MAP.search(packet, start, end):
            out += packet[start:end]
        at = end
    return bytes(out + packet[at:])


def _without(names: _Properties, packet: bytes) -> bytes:
    """Without attributes and elements of these names."""
    if not any(mark in packet for mark in names.marks):
        return packet
    packet = names.attribute.sub(b"", packet)
    out, at = bytearray(), 0
    while found := names.opening.search(packet, at):
        tag_end = packet.find(b">", found.end())
        closed = packet[tag_end - 1 : tag_end] == b"/"
        closing = b"" if closed else b"</" + found[1] + b">"
        end = tag_end + 1 if closed else packet.find(closing, tag_end + 1)
        if tag_end < 0 or end < 0:
            break
        out += packet[at : found.start()]
        at = end + len(closing)
    return bytes(out + packet[at:])


def with_thumbnails(packet: bytes, picture: Picture, room: int = 0) -> tuple[bytes, bool]:
    """The packet with new thumbnails; False if one had to be emptied.

    ``room``: bytes by which a new one may be longer than the old one.
    """
    if b":image" not in packet:
        return packet, True
    kept = True
    prefixes = _IMAGE_PREFIXES | {found[1] for found in _IMAGE_NAMESPACE.finditer(packet)}

    def remade(found: re.Match[bytes]) -> bytes:
        nonlocal kept
        if (found[2] or found[3]) not in prefixes:
            return found[0]
        text = found[4].replace(b"&#xA;", b"").replace(b"&#10;", b"")
        try:
            old = base64.b64decode(text)
        except ValueError:
            old = b""
        new = picture.like(old, len(old) + room)
        kept &= new is not None
        return found[1] + base64.b64encode(new or b"")

    return _THUMBNAIL.sub(remade, packet), kept


def extension_of(packet: bytes) -> bytes | None:
    """The identifier of the packet's extension, separate in JPEG files; None without one."""
    at = packet.find(b"HasExtendedXMP")
    found = _EXTENDED.search(packet, at, at + _EXTENDED_WITHIN) if at >= 0 else None
    return found[1] if found else None


def joined(packet: bytes, parts: list[bytes]) -> tuple[bytes, bool]:
    """A packet and the parts of its extension as one; False if the extension is incomplete.

    ``parts``: what follows the prefix of each extension segment.
    """
    identifier = extension_of(packet)
    if identifier is None:
        return packet, not parts
    plain = _without(_HAS_EXTENSION, packet)
    extension = _assembled(parts, identifier)
    start = extension.find(b">", extension.find(_RDF)) + 1
    end, target = extension.rfind(_RDF_END), plain.rfind(_RDF_END)
    if not 0 < start <= end or target < 0:
        return plain, False
    whole = plain[:target] + extension[start:end] + plain[target:]
    return _with_namespaces(whole, extension[:start]), True


def _with_namespaces(packet: bytes, head: bytes) -> bytes:
    """A packet that declares the namespaces which ``head``, the start of another one, declares."""
    start = packet.find(_RDF)
    at = packet.find(b">", start)
    if start < 0:
        return packet
    there = {found[1] for found in _NAMESPACE.finditer(packet, 0, at)}
    new = {found[1]: found[0] for found in _NAMESPACE.finditer(head) if found[1] not in there}
    return packet[:at] + b"".join(new.values()) + packet[at:]


def is_part_of(part: bytes, identifier: bytes) -> bool:
    """Whether an extension segment, without its prefix, belongs to an extension."""
    return part[:32].upper() == identifier.upper()


def _assembled(parts: list[bytes], identifier: bytes) -> bytes:
    """An extension, given what follows the prefix of each segment; empty if it is incomplete."""
    mine = sorted(
        {part for part in parts if is_part_of(part, identifier)}, key=lambda part: part[_OFFSET_AT:]
    )
    extension = b"".join(part[_EXTENSION_HEAD:] for part in mine)
    length = int.from_bytes(mine[0][32:36], "big") if mine else 0
    return extension if len(extension) == length else b""


def with_thumbnails_in_extension(
    packet: bytes, parts: list[bytes], picture: Picture, at_most: int
) -> tuple[bytes, list[bytes], bool]:
    """A packet and the segments of its extension, with new thumbnails in the latter.

    ``parts`` as for ``joined``, ``at_most`` as for ``split``; False if a thumbnail had to be
    emptied. No segments if the old ones hold.
    """
    identifier = extension_of(packet) or b""
    extension = _assembled(parts, identifier)
    new, kept = with_thumbnails(extension, picture, _ROOM_IN_EXTENSION)
    if new == extension:
        return packet, [], True
    own, made = _in_parts(new, at_most)
    return packet.replace(identifier, own), made, kept


def split(packet: bytes, at_most: int) -> tuple[bytes, list[bytes]]:
    """A packet that is too long for a JPEG segment, as a main packet and extension segments.

    ``at_most``: bytes per segment; the segments include their prefix.
    """
    identifier, parts = _in_parts(packet, at_most)
    return _STUB % identifier, parts


def _in_parts(extension: bytes, at_most: int) -> tuple[bytes, list[bytes]]:
    """The identifier of an extension, and its segments with their prefix."""
    identifier = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    size = at_most - len(EXTENSION_PREFIX) - _EXTENSION_HEAD
    head = EXTENSION_PREFIX + identifier + len(extension).to_bytes(4, "big")
    starts = range(0, len(extension), size)
    return identifier, [head + at.to_bytes(4, "big") + extension[at : at + size] for at in starts]
