"""Texts in PNG files: plain, compressed, international, and profiles as hex digits.

Layouts: W3C, Portable Network Graphics, third edition, 11.3.3; "Raw profile type" by ImageMagick.
"""

from __future__ import annotations

import zlib

TEXT_MAX, TEXTS_MAX = 2**24, 2**25
"""Limits for a decompressed text or profile, and for all of a file, in bytes."""
_STEP = 2**20
"""Bytes decompressed at once."""

TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_INTERNATIONAL, _COMPRESSED = b"iTXt", b"zTXt"
XMP_KEYWORD = b"XML:com.adobe.xmp\0"
RAW_EXIF, RAW_IPTC = b"Raw profile type exif\0", b"Raw profile type iptc\0"
RAW_APP1, RAW_XMP = b"Raw profile type APP1\0", b"Raw profile type xmp\0"
"""The former holds EXIF or XMP, as in JPEG."""
RAW_8BIM = b"Raw profile type 8bim\0"
"""Photoshop's image resources."""
RAW = (RAW_EXIF, RAW_IPTC, RAW_APP1, RAW_XMP, RAW_8BIM)
_DIGITS_IN_A_LINE = 72


class TextTooLongError(ValueError):
    """Compressed texts and profiles that are a decompression bomb."""


class Inflater:
    """Decompresses the texts of one file, within limits for each and for all of them."""

    def __init__(self) -> None:
        self._left = TEXTS_MAX

    def inflated(self, data: bytes) -> bytes | None:
        """A compressed text; None if it is damaged. Raises ``TextTooLongError``."""
        inflater, out = zlib.decompressobj(), bytearray()
        try:
            while not inflater.eof:
                part = inflater.decompress(data, _STEP)
                data = inflater.unconsumed_tail
                if not (part or data or inflater.eof):
                    return None
                self._left -= len(part)
                out += part
                if len(out) > TEXT_MAX:
                    raise TextTooLongError("a text or profile of more than 16 MB")
                if self._left < 0:
                    raise TextTooLongError("texts and profiles of more than 32 MB")
        except zlib.error:
            return None
        return bytes(out)

    def text(self, kind: bytes, payload: bytes) -> bytes | None:
        """The text in a chunk of any kind; None if it is damaged. Raises ``TextTooLongError``."""
        _keyword, found, rest = payload.partition(b"\0")
        if not found:
            return None
        if kind != _INTERNATIONAL:
            return self.inflated(rest[1:]) if kind == _COMPRESSED else rest
        parts = rest[2:].split(b"\0", 2)
        if len(parts) < 3:
            return None
        return self.inflated(parts[2]) if rest[0] else parts[2]

    def raw_profile(self, kind: bytes, payload: bytes) -> bytes | None:
        """A profile in text: a blank line, its name, its length, hex digits; None if damaged."""
        found = self.text(kind, payload)
        if found is None:
            return None
        try:
            digits = found.decode("latin-1").split("\n", 3)[3:]
            return bytes.fromhex("".join(digits).replace("\n", "")) or None
        except ValueError:
            return None


def with_text(kind: bytes, payload: bytes, text: bytes) -> bytes:
    """An undamaged chunk's content with another text, compressed if the old one was."""
    keyword, rest = payload.split(b"\0", 1)
    if kind == _INTERNATIONAL:
        language, translation, _ = rest[2:].split(b"\0", 2)
        body = zlib.compress(text) if rest[0] else text
        return b"\0".join([keyword, rest[:2] + language, translation, body])
    return keyword + b"\0" + (rest[:1] + zlib.compress(text) if kind == _COMPRESSED else text)


def with_raw_profile(kind: bytes, payload: bytes, profile: bytes) -> bytes:
    """The chunk's content with another profile of the same kind."""
    lines = (Inflater().text(kind, payload) or b"").split(b"\n", 2)
    name = lines[1] if len(lines) > 2 else b"exif"
    return with_text(kind, payload, _in_digits(name, profile))


def new_raw_profile(keyword: bytes, name: bytes, profile: bytes) -> bytes:
    """The content of a compressed chunk with a profile; ``keyword`` ends with its zero."""
    return keyword + b"\0" + zlib.compress(_in_digits(name, profile))


def _in_digits(name: bytes, profile: bytes) -> bytes:
    digits = profile.hex().encode()
    lines = [digits[at : at + _DIGITS_IN_A_LINE] for at in range(0, len(digits), _DIGITS_IN_A_LINE)]
    return b"\n".join([b"", name, b"%8d" % len(profile), *lines, b""])
