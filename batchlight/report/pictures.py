"""The images that a report shows: read, decoded, shrunk and turned upright."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np

from batchlight.errors import BatchlightError, ImageError
from batchlight.images import codec
from batchlight.images.container_names import container_kind
from batchlight.images.header import read_header
from batchlight.images.pixels import Pixels, turned
from batchlight.output.inputs import DataSet, Input, place_of
from batchlight.output.state import OutputState
from batchlight.report.refused import decoded_somehow
from batchlight.shards.inventory import OpenParquet
from batchlight.storage import Location, Storage, open_source
from batchlight.storage.base import FileRefusedError

SIDE = 720
"""Longer side of a picture in pixels: large enough for the enlarged view."""
PIXELS_AT_MOST = 128_000_000
"""Limit for an image decoded for its picture."""
BYTES_AT_MOST = 60_000
BYTES_AT_LEAST = 1_000
QUALITIES = (80, 60, 40, 20)
"""WebP qualities; the first one that fits the byte limit is used."""


@dataclass(frozen=True)
class Picture:
    """A small image as a data URI, or the reason why there is none."""

    uri: str = ""
    width: int = 1
    height: int = 1
    missing: str = ""


class ByteBudget:
    """The byte budget for the pictures of a page; what one leaves unused is available to others."""

    def __init__(self, total: int, pictures: int) -> None:
        self._left = total
        self._pictures = pictures

    def next(self) -> int:
        """Bytes for the next picture."""
        each = self._left // max(1, self._pictures)
        return max(BYTES_AT_LEAST, min(BYTES_AT_MOST, each))

    def used(self, picture: Picture) -> None:
        """Note that a picture was made, or why not."""
        self._pictures -= 1
        self._left -= len(picture.uri) * 3 // 4


class PictureMaker:
    """Makes pictures of recorded images, reading each file once."""

    def __init__(
        self, output: Storage, state: OutputState, data_set: DataSet | None, budget: ByteBudget
    ) -> None:
        """``data_set``: where the originals are; None to show none."""
        self._output = output
        self._state = state
        self._data_set = data_set
        follow = data_set is not None and data_set.follows_links
        self._opened = lru_cache(partial(open_source, follow_links=follow))
        self._budget = budget
        self._parquet = OpenParquet()
        self._trouble: dict[str, str] = {}
        """Trouble with all originals or results: not retried, since each try could take minutes."""

    def close(self) -> None:
        """Close the containers that were read."""
        self._parquet.close()

    def original(self, row: Mapping[str, Any], failed: bool = False) -> Picture:
        """The input. ``failed``: decode as much of it as possible, by any means."""
        made = make_any_picture if failed else make_picture
        read = partial(self._read, row)
        return self._counted(self._made("original", row["input_sha256"], read, made))

    def result(self, row: Mapping[str, Any]) -> Picture:
        """The output."""
        read = partial(self._read_result, row)
        return self._counted(self._made("result", row["output_sha256"], read, make_picture))

    def place_of(self, row: Mapping[str, Any]) -> Location | None:
        """Where an original is; None if the data set does not name it."""
        try:
            item = self._item(row)
        except (FileRefusedError, BatchlightError):
            return None
        if item.source is not None:
            return Location.parse(item.source)
        return self._data_set.root.joined(item.path) if self._data_set else None

    def _counted(self, picture: Picture) -> Picture:
        self._budget.used(picture)
        return picture

    def _made(
        self,
        side: str,
        sha256: str | None,
        read: Callable[[], bytes],
        make: Callable[[bytes, int], Picture],
    ) -> Picture:
        if side in self._trouble:
            return Picture(missing=self._trouble[side])
        try:
            data = read()
            if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
                return Picture(missing=f"the {side} has changed since")
            return make(data, self._budget.next())
        except FileNotFoundError:
            return Picture(missing=f"the {side} is no longer there")
        except PermissionError:
            return Picture(missing=f"no permission to read the {side}")
        except ImageError as error:
            return Picture(missing=f"the {side} is not shown: {error.message}")
        except FileRefusedError as error:
            return Picture(missing=f"the {side} is not shown: {error}")
        except BatchlightError:
            self._trouble[side] = f"the location of the {side} cannot be reached"
            return Picture(missing=self._trouble[side])

    def _item(self, row: Mapping[str, Any]) -> Input:
        data_set = self._data_set
        if data_set is None:
            raise FileRefusedError("'batchlight report OUTPUT --input URI' shows it")
        plan = self._state.plan_of(self._output, row["batch"])
        item = plan.input_of(self._output, row["batch"], row["container"] or row["input"])
        if plan.root != str(data_set.root) or not data_set.names(item):
            raise FileRefusedError("it is not in this --input")
        return item

    def _read(self, row: Mapping[str, Any]) -> bytes:
        item = self._item(row)
        assert self._data_set is not None
        storage, path = place_of(item, self._opened(self._data_set.root), self._opened)
        return self._read_part(storage, path, row, "member_offset", "input_bytes")

    def _read_result(self, row: Mapping[str, Any]) -> bytes:
        return self._read_part(self._output, row["output"], row, "output_offset", "output_bytes")

    def _read_part(
        self, storage: Storage, path: str, row: Mapping[str, Any], offset: str, size: str
    ) -> bytes:
        """A file, or the image in a container that a row describes."""
        if row["container"] is None:
            return storage.read(path)
        kind = container_kind(row["container"])
        is_known = row[offset] is not None if kind == "tar" else row["input"] != row["container"]
        if not is_known:
            raise ImageError.unsupported("it is a container, not an image")
        if kind == "parquet":
            return self._parquet.bytes_of_row(storage, path, row["container"], row["input"])
        if kind != "tar":
            raise ImageError.unsupported("it is in a compressed container")
        return storage.read_part(path, row[offset], row[size])


def make_picture(data: bytes, bytes_at_most: int = BYTES_AT_MOST) -> Picture:
    """An encoded image as a small 8-bit WebP, upright and without metadata.

    Raises ``ImageError`` if it cannot be decoded or is too large for it, and ``MemoryError``.
    """
    header = read_header(data, PIXELS_AT_MOST)
    pixels = _in_8_bits(codec.decode(data, header).pixels)
    return as_picture(turned(shrunk(pixels, SIDE), header.orientation), bytes_at_most)


def make_any_picture(data: bytes, bytes_at_most: int) -> Picture:
    """The same for images that a run refuses: the remains of damaged ones, CMYK, first pages.

    Raises ``ImageError`` if nothing can be shown, and ``MemoryError``.
    """
    try:
        return make_picture(data, bytes_at_most)
    except ImageError as error:
        pixels = decoded_somehow(data, SIDE)
        if pixels is None:
            raise error from None
        return as_picture(shrunk(pixels, SIDE), bytes_at_most)


def upright(data: bytes, max_pixels: int) -> Pixels:
    """An encoded image as it is meant to be seen, 8 bits, without alpha. Raises as above."""
    header = read_header(data, max_pixels)
    return turned(_in_8_bits(codec.decode(data, header).pixels), header.orientation)


def shrunk(pixels: Pixels, side: int) -> Pixels:
    """Shrunk to a longer side of at most ``side`` pixels."""
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def halved(pixels: Pixels) -> Pixels:
    """The whole picture, at half its size."""
    return shrunk(pixels, max(1, max(pixels.shape[:2]) // 2))


def middle(pixels: Pixels) -> Pixels:
    """The middle half of its width and height, at full resolution."""
    height, width = pixels.shape[:2]
    top, left = height // 4, width // 4
    return pixels[top : top + max(1, height // 2), left : left + max(1, width // 2)]


def as_picture(
    pixels: Pixels,
    bytes_at_most: int,
    qualities: Sequence[int] = QUALITIES,
    smaller: Callable[[Pixels], Pixels] = halved,
) -> Picture:
    """8-bit pixels as a WebP of limited size; ``smaller`` is applied if noise needs more."""
    while True:
        for quality in qualities:
            _, encoded = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
            if encoded.size <= bytes_at_most:
                uri = "data:image/webp;base64," + base64.b64encode(bytes(encoded)).decode()
                return Picture(uri, pixels.shape[1], pixels.shape[0])
        pixels = smaller(pixels)


def _in_8_bits(pixels: Pixels) -> Pixels:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
