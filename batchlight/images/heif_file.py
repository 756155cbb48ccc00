"""Writing AVIF and HEIF files: an encoder's coded picture amid everything else of another file.

Layouts: ISO/IEC 23008-12, ISO/IEC 23000-22 (MIAF), AVIF 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from batchlight.images import exif, xmp
from batchlight.images.boxes import box, boxes, full_box
from batchlight.images.heif_carry import (
    CODED,
    EXIF_HEAD,
    NCLX,
    PROFILES,
    XMP_TYPE,
    Carried,
    alpha_of,
    exif_block,
)
from batchlight.images.items import Item, Items, Reference, read, written
from batchlight.images.metadata import Cicp, Metadata
from batchlight.images.thumbnails import Picture

SAME_AS_BT601 = frozenset({2, 5, 6})
"""Matrices with the coefficients of BT.601; unspecified (2) also implies them."""
_SIZE = frozenset({b"ispe", b"clap"})


def put(
    carried: Carried, coded: bytes, cicp: Cicp | None, picture: Picture, resized: bool = False
) -> tuple[bytes, list[str]]:
    """The file with another coded picture, given as a whole file from the encoder.

    ``cicp``: the meaning of the colours, None for the encoder's; ``resized``: the encoder has
    padded the picture, and declares so.
    """
    kinds = CODED | _SIZE if resized else CODED
    new = _coded(coded, cicp, kinds)
    lost = list(carried.left_out)
    properties, items = list(carried.items.properties), dict(carried.items.items)
    for number, source in zip((carried.items.primary, carried.alpha), new, strict=True):
        if number is not None and source is not None:
            items[number] = _replaced(items[number], source, properties, kinds)
    for number, item in items.items():
        items[number] = _renewed(item, picture, carried.left_out, lost)
    merged = replace(carried.items, items=items, properties=tuple(properties))
    top = [
        (kind, _without_brand(whole) if kind == b"ftyp" and "gain map" in lost else whole)
        for kind, whole in carried.top
    ]
    return assembled(top, merged) + carried.trailer, lost


@dataclass(frozen=True)
class _Coded:
    """A coded picture from the encoder."""

    kind: bytes
    data: bytes
    properties: tuple[tuple[bytes, bool], ...]
    """Whole boxes, and whether a reader has to understand them."""


def _coded(data: bytes, cicp: Cicp | None, kinds: frozenset[bytes]) -> tuple[_Coded, _Coded | None]:
    """The picture and its alpha, as the encoder made them."""
    [meta] = [one for one in boxes(data) if one.kind == b"meta"]
    items = read(data, meta.content, meta.end)
    alpha = alpha_of(items)

    def part(number: int) -> _Coded:
        item = items.items[number]
        if item.data is None or items.targets(b"dimg", number):
            raise ValueError("the encoder's file is of another kind than expected")
        described = ((items.properties[index], must) for index, must in item.properties)
        wanted = [(p, must) for p, must in described if p[4:8] in kinds or p[4:8] == b"colr"]
        if cicp is not None:
            wanted = [(_said(whole, cicp), must) for whole, must in wanted]
        return _Coded(item.kind, item.data, tuple(wanted))

    return part(items.primary), None if alpha is None else part(alpha)


def _said(whole: bytes, cicp: Cicp) -> bytes:
    """The encoder's code points with other primaries, and another number for the same matrix."""
    if whole[4:12] != b"colr" + NCLX:
        return whole
    points = cicp.primaries.to_bytes(2, "big") + cicp.transfer.to_bytes(2, "big")
    matrix = int.from_bytes(whole[16:18], "big")
    if {matrix, cicp.matrix} <= SAME_AS_BT601:
        matrix = cicp.matrix
    return whole[:12] + points + matrix.to_bytes(2, "big") + whole[18:]


def _replaced(item: Item, new: _Coded, properties: list[bytes], kinds: frozenset[bytes]) -> Item:
    """An item with the encoder's bytes and properties; its other descriptions stay."""
    mine = [properties[index] for index, _ in item.properties]
    has_profile = any(p[4:8] == b"colr" and p[8:12] in PROFILES for p in mine)
    had_points = any(p[4:12] == b"colr" + NCLX for p in mine)
    kept = tuple(
        (index, must)
        for index, must in item.properties
        if properties[index][4:8] not in kinds and properties[index][4:12] != b"colr" + NCLX
    )
    added = []
    for whole, must in new.properties:
        if whole[4:8] == b"colr" and has_profile and not had_points:
            continue
        properties.append(whole)
        added.append((len(properties) - 1, must))
    described = replace(item, data=new.data, in_meta=(), properties=(*added, *kept))
    return described.renamed(new.kind)


def _renewed(item: Item, picture: Picture, left_out: tuple[str, ...], lost: list[str]) -> Item:
    """Metadata with a new thumbnail, and without pointers to parts that are left out."""
    if item.kind == b"Exif" and item.data:
        head, block = exif_block(item.data)
        block, kept = exif.with_thumbnail(block, picture)
        lost += [] if kept else ["EXIF thumbnail"]
        return replace(item, data=head + block)
    if item.kind == b"mime" and item.content_type == XMP_TYPE and item.data:
        packet, kept = xmp.with_thumbnails(item.data, picture)
        lost += [] if kept else ["XMP thumbnail"]
        if "gain map" in left_out:
            packet = xmp.without_gain_map(packet)
        if "Content Credentials" in left_out:
            packet = xmp.without_provenance(packet)
        return replace(item, data=packet)
    return item


def _without_brand(ftyp: bytes) -> bytes:
    """Without the brand that promises a gain map."""
    brands = [ftyp[at : at + 4] for at in range(16, len(ftyp), 4)]
    return box(b"ftyp", ftyp[8:16] + b"".join(b for b in brands if b != b"tmap"))


def assembled(top: Iterable[tuple[bytes, bytes]], items: Items) -> bytes:
    """A file: its boxes, with the items' own in the first ``meta`` and the first ``mdat``."""
    order = sorted(
        (n for n, item in items.items.items() if item.data is not None),
        key=lambda n: items.items[n].at,
    )
    places: dict[int, int] = {}
    content = b"".join(items.items[number].data or b"" for number in order)
    kinds = [kind for kind, _ in top]
    whole = [*top] if b"mdat" in kinds else [*top, (b"mdat", b"")]
    # The size of ``meta`` does not depend on the offsets in it.
    size = len(written(items, lambda number: 0))
    at, done = 0, False
    for kind, data in whole:
        if kind == b"mdat" and not data and not done:
            at += 8
            for number in order:
                places[number] = at
                at += len(items.items[number].data or b"")
            done = True
        else:
            at += size if kind == b"meta" and not data else len(data)
    out, done = [], False
    for kind, data in whole:
        if kind == b"meta" and not data:
            out.append(written(items, places.__getitem__))
        elif kind == b"mdat" and not data:
            out += [] if done else [box(b"mdat", content)]
            done = True
        else:
            out.append(data)
    return b"".join(out)


def converted(coded: bytes, metadata: Metadata, cicp: Cicp | None) -> bytes:
    """The encoder's file with EXIF, XMP and a profile."""
    top = [(b.kind, coded[b.start : b.end]) for b in boxes(coded)]
    [meta] = [one for one in boxes(coded) if one.kind == b"meta"]
    items = read(coded, meta.content, meta.end)
    main, properties = items.items[items.primary], list(items.properties)
    all_items, references = dict(items.items), list(items.references)
    if cicp is not None:
        properties = [_said(whole, cicp) for whole in properties]
    if metadata.icc:
        properties.append(box(b"colr", b"prof" + metadata.icc))
        described = (*main.properties, (len(properties) - 1, False))
        all_items[items.primary] = replace(main, properties=described)
    blocks = [
        (b"Exif", b"Exif\0", bytes(EXIF_HEAD) + metadata.exif if metadata.exif else None),
        (b"mime", b"XMP\0" + XMP_TYPE + b"\0", metadata.xmp),
    ]
    for kind, name, data in blocks:
        if data:
            number = max(all_items) + 1
            entry = full_box(b"infe", number.to_bytes(2, "big") + bytes(2) + kind + name, 2)
            all_items[number] = Item(number, kind, entry, False, data=data, at=2**40 + number)
            references.append(Reference(b"cdsc", number, (items.primary,)))
    merged = replace(
        items, items=all_items, references=tuple(references), properties=tuple(properties)
    )
    emptied = [(kind, b"" if kind in (b"meta", b"mdat") else whole) for kind, whole in top]
    return assembled(emptied, merged)
