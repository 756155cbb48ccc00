"""The colour meaning of a picture's numbers: code points and profiles, and their conversion.

Sources: ITU-T H.273 (code points), ICC.1:2022 (profiles), IEC 61966-2-1 (sRGB); chromatic
adaptation by Bradford's method, ICC.1 annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchlight.images.metadata import Cicp

Matrix = npt.NDArray[np.float64]
Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green, blue, in PNG's order."""

D65 = (0.3127, 0.3290)
_SRGB = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
PRIMARIES: Mapping[int, Chromaticities] = {
    1: _SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""By the code point of the primaries."""

Curve = tuple[float, ...]
"""Gamma alone, or g, a, b, c, d of ICC's parametric curve type 3."""

_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
CURVES: Mapping[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
}
"""By code point of the transfer characteristics; PQ and HLG have none that a profile can hold."""

_D50_XYZ = (0.9642, 1.0, 0.8249)
_BRADFORD: Matrix = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_HEADER_BYTES, _VERSION = 128, 0x04400000
_SPACE = slice(16, 20)
_TAGS_AT_MOST = 100
"""How many tags of a profile are looked at; usual ones have about ten, damaged ones billions."""
_CURVE_TAGS = (b"rTRC", b"gTRC", b"bTRC")


@dataclass(frozen=True)
class Colours:
    """Primaries and a curve, from which a profile can be made."""

    chromaticities: Chromaticities
    curve: Curve

    @classmethod
    def of(cls, cicp: Cicp) -> Colours | None:
        """From code points; None if a profile of this kind cannot express them."""
        primaries, curve = PRIMARIES.get(cicp.primaries), CURVES.get(cicp.transfer)
        if cicp.primaries == 2:
            primaries = _SRGB
        if cicp.transfer == 2:
            curve = _SRGB_CURVE
        return None if primaries is None or curve is None else cls(primaries, curve)


def profile(colours: Colours) -> bytes | None:
    """An ICC profile of three channels; None for implausible chromaticities."""
    curve = _curve(colours.curve)
    matrix = _to_d50(colours.chromaticities)
    if matrix is None:
        return None
    return _profile(matrix, curve)


def gray_profile(curve: Curve) -> bytes:
    """An ICC profile of one channel."""
    return _assembled(b"GRAY", {b"kTRC": _curve(curve)})


def colour_profile_of_gray(gray: bytes) -> bytes | None:
    """A profile of three channels that shows equal channels as the gray profile shows gray.

    None for a profile without the curve required for this.
    """
    found = _tag(gray, b"kTRC")
    matrix = _to_d50(_SRGB)
    return None if found is None or matrix is None else _profile(matrix, found)


def gray_profile_of_colours(icc: bytes) -> bytes | None:
    """A profile of one channel that shows gray as the other one shows equal channels.

    None for a profile without a curve that all channels share.
    """
    curves = {_tag(icc, name) for name in _CURVE_TAGS}
    curve = curves.pop()
    return None if curve is None or curves else _assembled(b"GRAY", {b"kTRC": curve})


def is_usable(icc: bytes) -> bool:
    """Whether a profile is for one channel, or for red, green and blue."""
    return icc[_SPACE] in (b"GRAY", b"RGB ")


def is_gray(icc: bytes) -> bool:
    """Whether a profile is for one channel."""
    return icc[_SPACE] == b"GRAY"


def _to_d50(chromaticities: Chromaticities) -> Matrix | None:
    """From linear red, green, blue to XYZ under D50, with the adaptation in its last column."""
    white, *primaries = zip(chromaticities[::2], chromaticities[1::2], strict=True)
    if min(y for _, y in (white, *primaries)) <= 0:
        return None
    columns = np.array([_xyz(x, y) for x, y in primaries]).T
    white_xyz = np.array(_xyz(*white))
    try:
        to_xyz = columns * np.linalg.solve(columns, white_xyz)
    except np.linalg.LinAlgError:
        return None
    cones = (_BRADFORD @ np.array(_D50_XYZ)) / (_BRADFORD @ white_xyz)
    adaptation = np.linalg.solve(_BRADFORD, cones[:, None] * _BRADFORD)
    return np.hstack([adaptation @ to_xyz, adaptation])


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1 - x - y) / y


def _fixed(values: npt.ArrayLike) -> bytes:
    """Numbers as signed 16.16 bits."""
    integers = np.rint(np.asarray(values, np.float64).ravel() * 65536)
    return np.clip(integers, -(2**31), 2**31 - 1).astype(">i4").tobytes()


def _curve(curve: Curve) -> bytes:
    kind = 0 if len(curve) == 1 else 3
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(curve)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(encoded), 28) + encoded


def _profile(matrix: Matrix, curve: bytes) -> bytes:
    columns = enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    return _assembled(
        b"RGB ",
        {
            b"chad": b"sf32" + bytes(4) + _fixed(matrix[:, 3:]),
            **{name: b"XYZ " + bytes(4) + _fixed(matrix[:, n]) for n, name in columns},
            **dict.fromkeys(_CURVE_TAGS, curve),
        },
    )


def _assembled(space: bytes, colours: Mapping[bytes, bytes]) -> bytes:
    """A display profile of a colour space and the tags that describe its colours."""
    tags = {
        b"desc": _text("Colours as the file said"),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": b"XYZ " + bytes(4) + _fixed(_D50_XYZ),
        **colours,
    }
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    values, index = bytearray(), struct.pack(">I", len(tags))
    for name, value in tags.items():
        if value not in places:
            places[value] = start + len(values)
            values += value + bytes(-len(value) % 4)
        index += struct.pack(">4sII", name, places[value], len(value))
    header = struct.pack(
        ">I4xI4s4s4s12x4s", start + len(values), _VERSION, b"mntr", space, b"XYZ ", b"acsp"
    )
    header = header.ljust(68, b"\0") + _fixed(_D50_XYZ)
    return header.ljust(_HEADER_BYTES, b"\0") + index + bytes(values)


def _tag(icc: bytes, name: bytes) -> bytes | None:
    """The value of a tag of a profile."""
    count = int.from_bytes(icc[_HEADER_BYTES : _HEADER_BYTES + 4], "big")
    for number in range(min(count, _TAGS_AT_MOST)):
        at = _HEADER_BYTES + 4 + 12 * number
        if icc[at : at + 4] == name:
            start, length = (int.from_bytes(icc[at + n : at + n + 4], "big") for n in (4, 8))
            return icc[start : start + length] or None
    return None
