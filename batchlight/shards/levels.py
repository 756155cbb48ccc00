"""Numbers in Parquet's packed encodings: levels, indices into a dictionary, lengths.

Layouts: Apache Parquet, "Encodings": the RLE and bit-packing hybrid, and DELTA_BINARY_PACKED.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from batchlight.shards.thrift import put_varint, varint

Numbers: TypeAlias = npt.NDArray[np.int64]

_WIDEST = 64


def unpacked(data: memoryview, at: int, width: int, count: int) -> tuple[Numbers, int]:
    """``count`` numbers of ``width`` bits in the hybrid encoding, and the offset after them.

    Raises ``ValueError`` for anything else, ``IndexError`` for truncated data.
    """
    found = np.zeros(count, np.int64)
    if not width:
        return found, at
    done = 0
    while done < count:
        head, at = varint(data, at)
        if head & 1:
            size = (head >> 1) * width
            values = _of_bits(data, at, size, width)[: count - done]
            found[done : done + len(values)] = values
            done += len(values)
            at += size
        else:
            size = -(-width // 8)
            run = min(head >> 1, count - done)
            found[done : done + run] = int.from_bytes(_some(data, at, size), "little")
            done += run
            at += size
        if head < 2:
            raise ValueError("an empty run")
    return found, at


def packed(numbers: Numbers, width: int) -> bytes:
    """The reverse: one run per stretch of equal numbers."""
    out = bytearray()
    if not width or not len(numbers):
        return bytes(out)
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        put_varint(out, int(end - start) << 1)
        out += int(numbers[start]).to_bytes(-(-width // 8), "little")
    return bytes(out)


def deltas(data: memoryview, at: int, expected: int) -> tuple[Numbers, int]:
    """``expected`` numbers in DELTA_BINARY_PACKED, and the offset after them.

    Raises as ``unpacked``, and ``OverflowError`` for numbers of more than 64 bits.
    """
    block, at = varint(data, at)
    minis, at = varint(data, at)
    count, at = varint(data, at)
    first, at = _zigzag(data, at)
    if not minis or block % minis or (block // minis) % 8 or count != expected:
        raise ValueError("its lengths are damaged")
    each = block // minis
    found = [np.array([first], np.int64)]
    left = count - 1
    while left > 0:
        least, at = _zigzag(data, at)
        widths = _some(data, at, minis)
        at += minis
        for width in widths:
            if left <= 0:
                break
            size = each * width // 8
            some = _of_bits(data, at, size, width) if width else np.zeros(min(each, left), np.int64)
            found.append(some[:left] + least)
            left -= each
            at += size
    return np.cumsum(np.concatenate(found))[:count], at


def _zigzag(data: memoryview, at: int) -> tuple[int, int]:
    value, at = varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _of_bits(data: memoryview, at: int, size: int, width: int) -> Numbers:
    """Numbers of ``width`` bits, least significant first, in ``size`` bytes."""
    if width > _WIDEST:
        raise ValueError(f"numbers of {width} bits")
    bits = np.unpackbits(np.frombuffer(_some(data, at, size), np.uint8), bitorder="little")
    rows = bits[: len(bits) // width * width].reshape(-1, width)
    weights = np.left_shift(np.int64(1), np.arange(width, dtype=np.int64))
    numbers: Numbers = rows.astype(np.int64) @ weights
    return numbers


def _some(data: memoryview, at: int, size: int) -> bytes:
    if size < 0 or at + size > len(data):
        raise IndexError("it is cut short")
    return bytes(data[at : at + size])
