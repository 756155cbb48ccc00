"""Whether fax data are sound: decoders fill what they do not understand with white.

Follows the codes row by row without making pixels. Layouts: ITU-T T.4 and T.6; TIFF, revision 6.0,
sections 10 and 11.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from batchlight.images.kernels import kernel

RLE, GROUP_3, GROUP_3_TWO_DIMENSIONAL, GROUP_4 = range(4)
"""Codings: rows that begin at whole bytes; rows behind marks; these with rows that refer to the one
above; only such rows."""

_WHITE = """
00110101 000111 0111 1000 1011 1100 1110 1111 10011 10100 00111 01000 001000 000011 110100 110101
101010 101011 0100111 0001100 0001000 0010111 0000011 0000100 0101000 0101011 0010011 0100100
0011000 00000010 00000011 00011010 00011011 00010010 00010011 00010100 00010101 00010110 00010111
00101000 00101001 00101010 00101011 00101100 00101101 00000100 00000101 00001010 00001011 01010010
01010011 01010100 01010101 00100100 00100101 01011000 01011001 01011010 01011011 01001010 01001011
00110010 00110011 00110100
11011 10010 010111 0110111 00110110 00110111 01100100 01100101 01101000 01100111 011001100
011001101 011010010 011010011 011010100 011010101 011010110 011010111 011011000 011011001 011011010
011011011 010011000 010011001 010011010 011000 010011011
"""
_BLACK = """
0000110111 010 11 10 011 0011 0010 00011 000101 000100 0000100 0000101 0000111 00000100 00000111
000011000 0000010111 0000011000 0000001000 00001100111 00001101000 00001101100 00000110111
00000101000 00000010111 00000011000 000011001010 000011001011 000011001100 000011001101
000001101000 000001101001 000001101010 000001101011 000011010010 000011010011 000011010100
000011010101 000011010110 000011010111 000001101100 000001101101 000011011010 000011011011
000001010100 000001010101 000001010110 000001010111 000001100100 000001100101 000001010010
000001010011 000000100100 000000110111 000000111000 000000100111 000000101000 000001011000
000001011001 000000101011 000000101100 000001011010 000001100110 000001100111
0000001111 000011001000 000011001001 000001011011 000000110011 000000110100 000000110101
0000001101100 0000001101101 0000001001010 0000001001011 0000001001100 0000001001101 0000001110010
0000001110011 0000001110100 0000001110101 0000001110110 0000001110111 0000001010010 0000001010011
0000001010100 0000001010101 0000001011010 0000001011011 0000001100100 0000001100101
"""
_LONG = """
00000001000 00000001100 00000001101 000000010010 000000010011 000000010100 000000010101
000000010110 000000010111 000000011100 000000011101 000000011110 000000011111
"""
"""Codes of the runs of 0 to 63, and of 64 to 1728 in steps of 64; of 1792 to 2560 for both."""

_CODE_BITS = 13
_SHIFT = 12
_RUN_MASK = 2**_SHIFT - 1
_LAST_RUN = 63
"""Longer runs are followed by another code."""
_MARK_BITS = 12
"""Eleven zeros and a one, which end a row."""
_MARGIN = 8
"""Entries behind the changes of a row, which end it."""

MARK = b"\0\1"
"""Such a mark, with zeros before it."""

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int32]


def _table(codes: str) -> Numbers:
    """By the next 13 bits: length of the code, shifted by 12, and length of the run; 0 for none."""
    table = np.zeros(2**_CODE_BITS, np.int32)
    for number, code in enumerate([*codes.split(), *_LONG.split()]):
        run = number if number <= _LAST_RUN else (number - _LAST_RUN) * 64
        free = _CODE_BITS - len(code)
        first = int(code, 2) << free
        table[first : first + 2**free] = len(code) << _SHIFT | run
    return table


_TABLES = np.stack([_table(_WHITE), _table(_BLACK)])


def sound_rows(data: bytes, columns: int, rows: int, coding: int) -> int:
    """How many rows can be followed before the first fault; ``rows`` if there is none.

    ``coding``: one of those above.
    """
    coded = np.frombuffer(data, np.uint8)
    changes = np.empty((2, min(columns, coded.size * 8) + _MARGIN), np.int32)
    count: Any = _sound_rows(coded, columns, rows, coding, _TABLES, changes)
    return int(count)


@kernel
def _bits(data: Bytes, at: int, count: int) -> int:
    """Up to 24 bits at an offset in bits; zeros behind the end."""
    value, first = 0, at >> 3
    for n in range(4):
        value <<= 8
        if first + n < data.size:
            value |= data[first + n]
    return (value >> (32 - count - (at & 7))) & ((1 << count) - 1)


@kernel
def _run(data: Bytes, at: int, table: Numbers) -> tuple[int, int]:
    """The length of a run, and where the next code is; -1 - length if no code ends it."""
    total = 0
    while True:
        entry = table[_bits(data, at, _CODE_BITS)]
        if entry == 0:
            return -1 - total, at
        at += entry >> _SHIFT
        total += entry & _RUN_MASK
        if entry & _RUN_MASK <= _LAST_RUN:
            return total, at


@kernel
def _changed(changes: Numbers, count: int, at: int) -> int:
    """Note where the colour changes; two changes at one place are none. Returns how many."""
    if count and changes[count - 1] == at:
        return count - 1
    changes[count] = at
    return count + 1


@kernel
def _plain_row(data: Bytes, at: int, columns: int, tables: Numbers, changes: Numbers) -> int:
    """Follow a row of runs; where it ends, or -1 for a fault."""
    place, colour, count = 0, 0, 0
    while place < columns:
        run, at = _run(data, at, tables[colour])
        if run < 0:
            run = -1 - run
            if run == 0 or place + run != columns:  # some encoders leave out the end of a long run
                return -1
        place += run
        if place > columns:
            return -1
        count = _changed(changes, count, place)
        colour ^= 1
    for n in range(3):
        changes[count + n] = columns
    return at


@kernel
def _mode(bits: int) -> tuple[int, int]:
    """The kind of the next code, given seven bits, and its length.

    -3..3: the change is that far from the one above; 4: two runs; 5: none at the two above; 6: a
    fault.
    """
    if bits >= 0x40:
        return 0, 1
    if bits >= 0x20:
        return (1, 3) if bits >= 0x30 else (-1, 3)
    if bits >= 0x08:
        return (4, 3) if bits >= 0x10 else (5, 4)
    if bits >= 0x04:
        return (2, 6) if bits >= 0x06 else (-2, 6)
    if bits >= 0x02:
        return (3, 7) if bits == 0x03 else (-3, 7)
    return 6, 7


@kernel
def _row_below(
    data: Bytes, at: int, columns: int, tables: Numbers, above: Numbers, changes: Numbers
) -> int:
    """Follow a row that refers to the one above; where it ends, or -1 for a fault."""
    place, colour, count, seen = -1, 0, 0, 0
    while place < columns:
        while above[seen] <= place and above[seen] < columns:
            seen += 1
        next = seen + ((seen ^ colour) & 1)
        kind, length = _mode(_bits(data, at, 7))
        at += length
        if kind == 6 or at > data.size * 8:
            return -1
        start = max(place, 0)
        if kind == 5:
            place = above[next + 1]
        elif kind == 4:
            one, at = _run(data, at, tables[colour])
            other, at = _run(data, at, tables[colour ^ 1])
            place = start + one + other
            if one < 0 or other < 0 or place > columns:
                return -1
            count = _changed(changes, _changed(changes, count, start + one), place)
        else:
            place = above[next] + kind
            if place < start or place > columns:
                return -1
            count = _changed(changes, count, place)
            colour ^= 1
    for n in range(3):
        changes[count + n] = columns
    return at


@kernel
def _behind_mark(data: Bytes, at: int) -> int:
    """Skip zeros and the mark of a row's end, if it is there."""
    end, size = at, data.size * 8
    while end < size and _bits(data, end, 1) == 0:
        end += 1
    return end + 1 if _MARK_BITS - 1 <= end - at < size - at else at


@kernel
def _first_row(data: Bytes, columns: int) -> int:
    """Behind the first mark; 0 if it is not near the beginning."""
    behind = _behind_mark(data, 0)
    if behind:
        return behind
    for at in range(min(columns * 2, data.size * 8)):
        if _bits(data, at, _MARK_BITS) == 1:
            return at + _MARK_BITS
    return 0


@kernel
def _sound_rows(
    data: Bytes, columns: int, rows: int, coding: int, tables: Numbers, changes: Numbers
) -> int:
    at = 0
    if coding in (GROUP_3, GROUP_3_TWO_DIMENSIONAL):
        at = _first_row(data, columns)
    for n in range(4):
        changes[1, n] = columns
    for row in range(rows):
        above, below = changes[1 - (row & 1)], changes[row & 1]
        refers = coding == GROUP_4
        if coding == GROUP_3_TWO_DIMENSIONAL:
            refers = _bits(data, at, 1) == 0
            at += 1
        if refers:
            at = _row_below(data, at, columns, tables, above, below)
        else:
            at = _plain_row(data, at, columns, tables, below)
        if at < 0 or at > data.size * 8:
            return row
        if coding == RLE:
            at = (at + 7) // 8 * 8
            at += _MARK_BITS if _bits(data, at, _MARK_BITS) == 1 else 0
        elif coding != GROUP_4:
            at = _behind_mark(data, at)
    return rows
