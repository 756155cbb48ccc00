"""The numbers in a tar header, read, and rewritten in the same notation.

Layout of a header, by byte (POSIX.1-1988 and GNU tar's manual, "Basic Tar Format"): name 0 to 100,
size 124 to 136, checksum 148 to 156, kind 156, magic 257 to 265, prefix 345 to 500. A number is
octal digits, preceded by spaces or zeros and followed by spaces or NULs; or, if its first bit is
set, binary, most significant byte first.
"""

from __future__ import annotations

import re

BLOCK = 512
SIZE = slice(124, 136)
CHECKSUM = slice(148, 156)

_OCTAL = re.compile(rb"([ \0]*)([0-7]*)([ \0].*)?", re.DOTALL)


def number(field: bytes) -> int:
    """The value of a field. Raises ``ValueError`` unless it is a non-negative number."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise ValueError("a negative number")
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise ValueError(f"{field!r} is not a number")
    return int(found[2] or b"0", 8)


def rewritten(field: bytes, value: int) -> bytes:
    """A field with another value in the same notation. Raises ``ValueError`` if it does not fit."""
    if field[0] & 0x80:
        data = bytearray(value.to_bytes(len(field), "big"))
        if data[0] & 0xC0:
            raise ValueError(f"{value} does not fit")
        data[0] |= 0x80
        return bytes(data)
    found = _OCTAL.fullmatch(field)
    assert found is not None, field
    before, old, behind = found[1], found[2], found[3] or b""
    pad = b" " if b" " in before else b"0"
    digits = b"%o" % value
    width = len(before) + len(old)
    if len(digits) > width:  # left-aligned digits: they grow into what follows
        behind = behind[len(digits) - width :]
        if len(digits) + len(behind) > len(field) or (found[3] and not behind):
            raise ValueError(f"{value} does not fit")
    return digits.rjust(width, pad) + behind


def has_checksum(header: bytes) -> bool:
    """Whether a block is a header, by its checksum; some old tars sum signed bytes."""
    if len(header) < BLOCK:
        return False
    try:
        recorded = number(header[CHECKSUM])
    except ValueError:
        return False
    return recorded == _sum(header) or recorded == _signed_sum(header)


def with_size(header: bytes, size: int) -> bytes:
    """A header of the same member with another size. Raises ``ValueError`` if it does not fit."""
    signed = number(header[CHECKSUM]) != _sum(header)
    changed = bytearray(header)
    changed[SIZE] = rewritten(header[SIZE], size)
    total = _signed_sum(changed) if signed else _sum(changed)
    changed[CHECKSUM] = rewritten(header[CHECKSUM], total)
    return bytes(changed)


def _sum(header: bytes | bytearray) -> int:
    """The sum of all bytes, with those of the checksum counted as spaces."""
    return sum(header) - sum(header[CHECKSUM]) + 8 * ord(" ")


def _signed_sum(header: bytes | bytearray) -> int:
    high = sum(byte > 127 for byte in header) - sum(byte > 127 for byte in header[CHECKSUM])
    return _sum(header) - 256 * high
