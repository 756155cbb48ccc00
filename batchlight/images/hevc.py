"""Whether an HEVC stream is lossless, as its picture parameter set says.

Layouts: ITU-T H.265, 7.3.2.3 (picture parameter set); ISO/IEC 14496-15 (hvcC).
"""

from __future__ import annotations

from collections.abc import Iterator

from batchlight.images.av1 import Bits
from batchlight.images.boxes import Reader

_HEAD = 22
"""Bytes of hvcC before its parameter sets."""
_KIND, _PICTURE_PARAMETERS = 63, 34
"""The bits with the type of a set, and the type in question."""
_UNIT_HEAD = 2
"""Bytes of a unit before its content."""


def is_lossless(configuration: bytes) -> bool:
    """Whether blocks may be stored as they are, given hvcC; False if it is damaged.

    Encoders allow it to be lossless.
    """
    try:
        return any(_bypasses(unit) for unit in _picture_parameters(configuration))
    except ValueError:
        return False


def _picture_parameters(configuration: bytes) -> Iterator[bytes]:
    reader = Reader(configuration)
    reader.take(_HEAD)
    for _ in range(reader.integer(1)):
        kind = reader.integer(1) & _KIND
        for _ in range(reader.integer(2)):
            unit = reader.take(reader.integer(2))
            if kind == _PICTURE_PARAMETERS:
                yield unit


def _bypasses(unit: bytes) -> bool:
    """The flag transquant_bypass_enabled_flag."""
    bits = Bits(unit[_UNIT_HEAD:].replace(b"\0\0\3", b"\0\0"))
    bits.skip_variable()  # numbers of this set, and of the sequence's
    bits.skip_variable()
    bits.skip(7)  # slices, further header bits, hidden signs, CABAC
    for _ in range(3):  # references, first quantizer
        bits.skip_variable()
    bits.skip(2)  # constrained prediction, skipped transforms
    if bits.take(1):  # changes of the quantizer
        bits.skip_variable()
    bits.skip_variable()  # its offsets for colours
    bits.skip_variable()
    bits.skip(3)  # offsets in slices, weights
    return bool(bits.take(1)) and not bits.spent
