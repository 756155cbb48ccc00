"""Thrift's compact protocol, which encodes the metadata of Parquet, without a schema.

A struct is kept as the numbers, types and values of its fields, so that unknown fields pass through
unchanged. Layout: Apache Thrift, "Thrift Compact protocol encoding".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

_TRUE, _FALSE, _I8, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT, _UUID = range(
    1, 14
)
BOOL, I32, I64, BINARY, LIST, STRUCT = _TRUE, _I32, _I64, _BINARY, _LIST, _STRUCT
"""Types of fields; ``BOOL`` stands for both of its values."""

_DEEPEST = 48
"""Structs, lists and maps within each other; the deepest in Parquet are about ten."""
_LONGEST_VARINT = 10

Value: TypeAlias = Any
"""``bool``, ``int``, ``bytes``, ``Struct``, ``Items`` or ``Pairs``; a double as its 8 bytes."""


@dataclass
class Items:
    """A list or a set."""

    kind: int
    values: list[Value]


@dataclass
class Pairs:
    """A map."""

    kinds: tuple[int, int]
    values: list[tuple[Value, Value]]


@dataclass
class Struct:
    """Its fields in order: type and value by number."""

    fields: dict[int, tuple[int, Value]] = field(default_factory=dict)

    def get(self, number: int, default: Value = None) -> Value:
        """The value of a field."""
        return self.fields[number][1] if number in self.fields else default

    def integer(self, number: int, default: int | None = None) -> int:
        """The value of a field that must be an integer. Raises ``ValueError``."""
        value = self.get(number, default)
        if type(value) is not int:  # nor a bool
            raise ValueError(f"field {number} is not a number")
        return value

    def struct(self, number: int) -> Struct:
        """The value of a field that must be a struct. Raises ``ValueError``."""
        value = self.get(number)
        if not isinstance(value, Struct):
            raise ValueError(f"field {number} is not a struct")
        return value

    def structs(self, number: int) -> list[Struct]:
        """The values of a field that is a list of structs; empty if it is missing."""
        value = self.get(number, Items(STRUCT, []))
        if not isinstance(value, Items) or not all(isinstance(v, Struct) for v in value.values):
            raise ValueError(f"field {number} is not a list of structs")
        return value.values

    def set(self, number: int, kind: int, value: Value) -> None:
        """Set a field: in place if it exists, otherwise after those with smaller numbers."""
        self.fields[number] = kind, value
        self.fields = dict(sorted(self.fields.items()))

    def add(self, number: int, more: int) -> None:
        """Add to the value of a field, if it exists."""
        if number in self.fields:
            self.fields[number] = self.fields[number][0], self.integer(number) + more

    def drop(self, *numbers: int) -> None:
        """Remove some fields."""
        for number in numbers:
            self.fields.pop(number, None)


def parsed(data: bytes | memoryview) -> tuple[Struct, int]:
    """The struct that the data begin with, and the offset after it.

    Raises ``ValueError`` for anything else, ``IndexError`` for truncated data.
    """
    reader = _Reader(data)
    return reader.struct(_DEEPEST), reader.at


def serialized(struct_: Struct) -> bytes:
    """A struct as bytes, each field in its shortest notation."""
    out = bytearray()
    _put_struct(out, struct_)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self.at = 0

    def struct(self, deeper: int) -> Struct:
        found = Struct()
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            if number in found.fields:
                raise ValueError(f"field {number} is there twice")
            if kind in (_TRUE, _FALSE):
                found.fields[number] = BOOL, kind == _TRUE
            else:
                found.fields[number] = kind, self._value(kind, deeper)
        return found

    def _value(self, kind: int, deeper: int) -> Value:
        if not deeper:
            raise ValueError("it is nested too deeply")
        match kind:
            case 1 | 2:  # as an item; in a field, the header holds it
                return self._byte() == _TRUE
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return self._bytes(8)
            case 8:
                return self._bytes(self._varint())
            case 9 | 10:
                return self._items(deeper - 1)
            case 11:
                return self._pairs(deeper - 1)
            case 12:
                return self.struct(deeper - 1)
            case 13:
                return self._bytes(16)
        raise ValueError(f"{kind} is not a type")

    def _items(self, deeper: int) -> Items:
        head = self._byte()
        kind, count = head & 15, head >> 4
        if count == 15:
            count = self._varint()
        self._require_room(count)
        return Items(kind, [self._value(kind, deeper) for _ in range(count)])

    def _pairs(self, deeper: int) -> Pairs:
        count = self._varint()
        if not count:
            return Pairs((0, 0), [])
        self._require_room(count)
        head = self._byte()
        kinds = head >> 4, head & 15
        pairs = [
            (self._value(kinds[0], deeper), self._value(kinds[1], deeper)) for _ in range(count)
        ]
        return Pairs(kinds, pairs)

    def _require_room(self, count: int) -> None:
        """Check the count: each item takes at least a byte."""
        if count > len(self._data) - self.at:
            raise ValueError("it has more items than bytes")

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise IndexError("it is cut short")
        self.at += size
        return bytes(self._data[self.at - size : self.at])

    def _varint(self) -> int:
        value, self.at = varint(self._data, self.at)
        return value

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _put_struct(out: bytearray, struct_: Struct) -> None:
    last = 0
    for number, (kind, value) in struct_.fields.items():
        noted = kind if kind != BOOL else (_TRUE if value else _FALSE)
        if 0 < number - last < 16:
            out.append((number - last) << 4 | noted)
        else:
            out.append(noted)
            _put_signed(out, number)
        last = number
        if kind != BOOL:
            _put(out, kind, value)
    out.append(0)


def _put(out: bytearray, kind: int, value: Value) -> None:
    match kind:
        case 1 | 2:
            out.append(_TRUE if value else _FALSE)
        case 3:
            out.append(value)
        case 4 | 5 | 6:
            _put_signed(out, value)
        case 7 | 13:
            out += value
        case 8:
            put_varint(out, len(value))
            out += value
        case 9 | 10:
            count = len(value.values)
            out.append(min(count, 15) << 4 | value.kind)
            if count >= 15:
                put_varint(out, count)
            for item in value.values:
                _put(out, value.kind, item)
        case 11:
            put_varint(out, len(value.values))
            if value.values:
                out.append(value.kinds[0] << 4 | value.kinds[1])
            for pair in value.values:
                for kind_, part in zip(value.kinds, pair, strict=True):
                    _put(out, kind_, part)
        case 12:
            _put_struct(out, value)


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """An unsigned number, 7 bits per byte, and the offset after it.

    Raises ``ValueError`` if it is too long, ``IndexError`` if it is truncated.
    """
    value = 0
    for place in range(_LONGEST_VARINT):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


def put_varint(out: bytearray, value: int) -> None:
    """Append such a number."""
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_signed(out: bytearray, value: int) -> None:
    put_varint(out, value << 1 if value >= 0 else ~value << 1 | 1)
