"""Texts in PNG files: plain, compressed, international, and profiles as hex digits.

Layouts: W3C, Portable Network Graphics, third edition, 11.3.3; "Raw profile type" by ImageMagick.
"""

from __future__ import annotations

import zlib

TEXT_MAX = 2**24
"""Limit for a decompressed text or profile, in bytes; more is a decompression bomb."""

XMP_KEYWORD = b"XML:com.adobe.xmp"
RAW_EXIF, RAW_IPTC = b"Raw profile type exif\0", b"Raw profile type iptc\0"
RAW_APP1, RAW_XMP = b"Raw profile type APP1\0", b"Raw profile type xmp\0"
"""The former holds EXIF or XMP, as in JPEG."""
_DIGITS_IN_A_LINE = 72


class TextTooLongError(ValueError):
    """A compressed text or profile of more than ``TEXT_MAX`` bytes."""


def inflated(data: bytes) -> bytes | None:
    """A compressed text; None if it is damaged. Raises ``TextTooLongError``."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, TEXT_MAX)
    except zlib.error:
        return None
    if not inflater.eof and len(text) >= TEXT_MAX:
        raise TextTooLongError("a text or profile of more than 16 MB")
    return text if inflater.eof else None


def international(payload: bytes) -> bytes | None:
    """The text of an iTXt chunk; None if it is damaged."""
    try:
        _keyword, rest = payload.split(b"\0", 1)
        _language, _translation, text = rest[2:].split(b"\0", 2)
        return inflated(text) if rest[0] else text
    except (ValueError, IndexError) as error:
        if isinstance(error, TextTooLongError):
            raise
        return None


def with_international(payload: bytes, text: bytes) -> bytes:
    """The chunk's content with another text, compressed if the old one was."""
    keyword, rest = payload.split(b"\0", 1)
    language, translation, _ = rest[2:].split(b"\0", 2)
    body = zlib.compress(text) if rest[0] else text
    return b"\0".join([keyword, rest[:2] + language, translation, body])


def plain(kind: bytes, payload: bytes) -> tuple[bytes, bytes] | None:
    """Keyword and text of a tEXt or zTXt chunk; None if it is damaged."""
    keyword, found, text = payload.partition(b"\0")
    if not found:
        return None
    if kind == b"zTXt":
        inner = inflated(text[1:])
        return None if inner is None else (keyword, inner)
    return keyword, text


def raw_profile(kind: bytes, payload: bytes) -> bytes | None:
    """A profile in text: a blank line, its name, its length, hex digits; None if damaged."""
    found = plain(kind, payload)
    if found is None:
        return None
    try:
        return bytes.fromhex("".join(found[1].decode("latin-1").split("\n")[3:])) or None
    except ValueError:
        return None


def with_raw_profile(kind: bytes, payload: bytes, profile: bytes) -> bytes:
    """The chunk's content with another profile of the same kind."""
    found = plain(kind, payload)
    if found is None:
        return payload
    keyword, text = found
    name = text.split(b"\n")[1] if text.count(b"\n") > 1 else b"exif"
    return new_raw_profile(keyword + b"\0", name, profile, kind == b"zTXt")


def new_raw_profile(keyword: bytes, name: bytes, profile: bytes, compressed: bool = True) -> bytes:
    """The content of a chunk with a profile; ``keyword`` ends with its zero."""
    digits = profile.hex().encode()
    lines = [digits[at : at + _DIGITS_IN_A_LINE] for at in range(0, len(digits), _DIGITS_IN_A_LINE)]
    text = b"\n".join([b"", name, b"%8d" % len(profile), *lines, b""])
    return keyword + (b"\0" + zlib.compress(text) if compressed else text)
